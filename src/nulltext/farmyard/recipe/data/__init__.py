"""What the stages of the training see."""
