"""The mathematics of diffusion and of rectified flow: no model, no file."""

from nulltext.diffusion.prediction import Prediction, guide, step
from nulltext.diffusion.sampling import Denoise, sample, trajectory
from nulltext.diffusion.schedule import KINDS, Level, Schedule

__all__ = ["KINDS", "Denoise", "Level", "Prediction", "Schedule", "guide", "sample", "step", "trajectory"]
