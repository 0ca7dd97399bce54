"""What a person types: the verbs fit, edit, test and app."""

from nulltext.cli.main import main

__all__ = ["main"]
