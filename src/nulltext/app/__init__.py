"""The page ``python main.py app``: every picture and number on it comes from the rooms below."""
