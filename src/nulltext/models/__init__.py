"""Models: one interface to every diffusion model, one file a family, attention offered to a hook."""

from nulltext.models.attention import AttentionHook, AttentionSite
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning
from nulltext.models.device import DTYPES, PRECISIONS, find_device, find_precision
from nulltext.models.families import MODELS
from nulltext.models.loading import LoadingOptions, check_model, load_model

__all__ = [
    "DTYPES",
    "MODELS",
    "PRECISIONS",
    "AttentionHook",
    "AttentionSite",
    "Conditioning",
    "DiffusionModel",
    "LoadingOptions",
    "check_model",
    "find_device",
    "find_precision",
    "load_model",
]
