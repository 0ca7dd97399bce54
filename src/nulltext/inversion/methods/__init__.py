"""The inversion methods, one file each."""
