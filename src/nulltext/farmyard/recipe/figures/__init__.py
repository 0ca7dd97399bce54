"""The figures of a trained model."""
