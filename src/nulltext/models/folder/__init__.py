"""A model's folder on disk: where it comes from, what is in it, and whether the method can use its parts."""
