"""Null-text inversion under Lightning: the module, its data, its callbacks, its strategy."""
