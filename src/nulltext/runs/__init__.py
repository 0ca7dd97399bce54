"""What a run leaves: its folder, its checkpoints, its results."""
