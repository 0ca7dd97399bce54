"""The farmyard's recipe: data, training, export and figures of its models."""
