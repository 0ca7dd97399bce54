"""The metrics of a run: which can be computed here, and all their scores at once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nulltext.errors import UserError, first_line
from nulltext.imports import find_class
from nulltext.metrics.base import Metric, Reference
from nulltext.metrics.networks import ClipScorer, StructureScorer, load_lpips
from nulltext.metrics.table import METRICS

NETWORKS: dict[str, Callable[[str, str | torch.device], Any]] = {
    "clip": ClipScorer.from_pretrained,
    "dino": StructureScorer.from_pretrained,
    "lpips": load_lpips,
}


@dataclass(frozen=True)
class MetricOptions:
    """The networks behind the metrics; a metric whose network is not named or not there is left out by name.

    Args:
        clip: A CLIP model: farmyard (shipped), a folder or a hub id.
        dino: A DINO ViT for the structure distance, a folder or a hub id: facebook/dino-vitb8.
        lpips: LPIPS's network: squeeze, alex or vgg; needs the package torchvision.
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
    options: MetricOptions = field(default_factory=MetricOptions)

    @property
    def names(self) -> dict[str, str]:
        """The networks by kind: what they were loaded by, and the first digits of a hash of weights of theirs."""
        names = {key: str(getattr(self.options, key)) for key in self.networks}
        for key, network in self.networks.items():
            if hasattr(network, "model"):
                *_, weights = network.model.parameters()
                digest = hashlib.sha256(weights.detach().cpu().numpy().tobytes()).hexdigest()
                names[key] += f" ({digest[:8]})"
        return names

    def score(self, outputs: Tensor, reference: Reference) -> list[dict[str, float]]:
        """All metrics of outputs (B, 3, H, W) in [0, 1] of one edit, without those that the reference cannot serve."""
        if outputs.shape[1:] != reference.source.shape:
            raise UserError(
                f"outputs are {tuple(outputs.shape[1:])}, the source is {tuple(reference.source.shape)}"
            )
        values = {
            metric.name: metric(outputs, reference)
            for metric in self.metrics
            if all(getattr(reference, what) is not None for what in metric.requires)
        }
        return [{name: float(value[i]) for name, value in values.items()} for i in range(len(outputs))]


def load_metrics(options: MetricOptions | None = None, device: str | torch.device = "cpu") -> Suite:
    """Loads each network that is named and can be had, and notes why metrics without theirs are absent."""
    options = options or MetricOptions()
    own = [
        find_class(path, METRICS, Metric, "--metrics.own")  # type: ignore[type-abstract]
        for path in options.own or ()
    ]
    suite, reasons = Suite([], options=options), {}
    for key, load in NETWORKS.items():
        place = getattr(options, key)
        if place is None:
            reasons[key] = f"no {key.upper()} model was named (metrics.{key})"
            continue
        try:
            suite.networks[key] = load(place, device)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            reasons[key] = f"{key.upper()} model '{place}' could not be loaded: {first_line(error)}"
    for metric in [*METRICS.values(), *own]:
        if metric.network in reasons:
            suite.absent[metric.name] = reasons[metric.network]
        else:
            suite.metrics.append(metric(suite.networks[metric.network]) if metric.network else metric())
    return suite
