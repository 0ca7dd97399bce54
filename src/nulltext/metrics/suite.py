"""The metrics of a run: which there are, which can be computed here, and all their scores at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nulltext.errors import UserError
from nulltext.imports import find_class
from nulltext.metrics import pixel, semantic
from nulltext.metrics.base import Metric, Reference
from nulltext.metrics.networks import ClipScorer, PerceptualScorer, StructureScorer

_CLASSES: tuple[type[Metric], ...] = (
    pixel.Psnr,
    pixel.Ssim,
    pixel.Mse,
    semantic.ClipImageTarget,
    semantic.ClipImageSource,
    semantic.ClipTextTarget,
    semantic.ClipTextSource,
    semantic.ClipDirection,
    semantic.StructureDistance,
    pixel.BackgroundPsnr,
    semantic.BackgroundLpips,
    pixel.BackgroundMse,
    pixel.BackgroundSsim,
    semantic.ClipWhole,
    semantic.ClipEdited,
    pixel.TruthPsnr,
    pixel.TruthPsnrInside,
    pixel.TruthSsim,
    pixel.BackgroundPsnrOutside,
    semantic.StructureDistanceCorrected,
)
METRICS: dict[str, type[Metric]] = {metric.name: metric for metric in _CLASSES}
"""Every metric by its name, in the order of the tables."""

NETWORKS: dict[str, tuple[str, Callable[..., Any]]] = {
    "clip": ("CLIP", ClipScorer.from_pretrained),
    "dino": ("DINO", StructureScorer.from_pretrained),
    "lpips": ("LPIPS", PerceptualScorer),
}

OWN = "--metrics.own"


@dataclass(frozen=True)
class MetricOptions:
    """The networks behind the metrics; a metric whose network is not named or not there is left out by name.

    Args:
        clip: A CLIP model: farmyard (shipped), a folder or a hub id.
        dino: A DINO ViT for the structure distance, a folder or a hub id: facebook/dino-vitb8.
        lpips: LPIPS's network: squeeze, alex or vgg; needs the package lpips.
        own: Metrics of your own by import path, such as my.module.MyMetric, a subclass of nulltext.metrics.Metric.
    """

    clip: str | None = "farmyard"
    dino: str | None = None
    lpips: str | None = None
    own: list[str] | None = None


@dataclass
class Suite:
    """The metrics that can be computed here, and by name those that cannot, with the reason."""

    metrics: list[Metric]
    absent: dict[str, str] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)

    def score(self, outputs: Tensor, reference: Reference) -> list[dict[str, float]]:
        """All metrics of several outputs of one edit.

        Args:
            outputs: (B, 3, H, W) in [0, 1].
            reference: What they are compared with.

        Returns:
            B dictionaries from metric to value; without those that require what the reference lacks.

        Raises:
            UserError: An output's size is not the source's.
        """
        if outputs.shape[1:] != reference.source.shape:
            raise UserError(
                f"outputs are {tuple(outputs.shape[1:])}, the source is {tuple(reference.source.shape)}"
            )
        values = {m.name: m(outputs, reference) for m in self.metrics if m.requires <= reference.there}
        return [{name: float(value[i]) for name, value in values.items()} for i in range(len(outputs))]


def load_metrics(options: MetricOptions | None = None, device: str | torch.device = "cpu") -> Suite:
    """Load each network that is named and can be had, and note why metrics without theirs are absent.

    Args:
        options: The networks, and metrics of one's own.
        device: Where the networks compute.

    Raises:
        UserError: A metric of one's own cannot be imported.
    """
    options = options or MetricOptions()
    own = [find_class(path, METRICS, Metric, OWN) for path in options.own or ()]  # type: ignore[type-abstract]
    classes = [*METRICS.values(), *own]
    suite, reasons = Suite([]), {}
    for key, (title, load) in NETWORKS.items():
        found = _load(title, key, getattr(options, key), load, device)
        if isinstance(found, str):
            reasons[key] = found
        else:
            suite.networks[key] = found
    for metric in classes:
        if metric.network in reasons:
            suite.absent[metric.name] = reasons[metric.network]
        else:
            suite.metrics.append(metric(suite.networks[metric.network]) if metric.network else metric())
    return suite


def _load(
    title: str, key: str, name: str | None, load: Callable[..., Any], device: str | torch.device
) -> Any:
    """The network, or the reason why it is absent."""
    if name is None:
        return f"no {title} model was named (metrics.{key})"
    try:
        return load(name, device)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"{title} model '{name}' could not be loaded: {first_line}"
