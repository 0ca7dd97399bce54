"""What a person types: the verbs fit, edit and test."""

from nulltext.cli.main import main

__all__ = ["main"]
