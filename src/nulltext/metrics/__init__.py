"""Scores of pictures: what `test` reports, and the only PSNR of the package. Pictures are in [0, 1]."""

from nulltext.metrics.base import Column, Metric, Reference
from nulltext.metrics.pixel import PSNR_CEILING, mse, psnr, ssim
from nulltext.metrics.suite import MetricOptions, Suite, load_metrics
from nulltext.metrics.table import METRICS

__all__ = [
    "METRICS",
    "PSNR_CEILING",
    "Column",
    "Metric",
    "MetricOptions",
    "Reference",
    "Suite",
    "load_metrics",
    "mse",
    "psnr",
    "ssim",
]
