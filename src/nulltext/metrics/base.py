"""What a metric is, and what it compares with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar, Literal

from torch import Tensor


class Column:
    """A measured number: what it means and how a table prints it. The docstring of a subclass is its definition."""

    name: ClassVar[str]
    title: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    unit: ClassVar[str] = ""
    scale: ClassVar[float] = 1.0  # what a table multiplies the raw value with
    digits: ClassVar[int] = 2  # decimals in a table
    tables: ClassVar[tuple[str, ...]] = ("further",)  # of reconstruction, slides, pie, truth, further
    boxed: ClassVar[bool] = False  # whether box plots show it

    @property
    def definition(self) -> str:
        """Formula, range and source."""
        return cleandoc(type(self).__doc__ or "").replace("\n", " ")

    @property
    def heading(self) -> str:
        """The title with its scale and its unit."""
        scale = f" x{self.scale:.0e}".replace("e+0", "e") if self.scale != 1 else ""
        return f"{self.title}{scale}{', ' if self.unit else ''}{self.unit}"

    def format(self, value: float) -> str:
        """A raw value as a table prints it."""
        return f"{value * self.scale:.{self.digits}f}"


@dataclass(frozen=True)
class Reference:
    """What the outputs of one edit are compared with; all pictures in [0, 1]."""

    source: Tensor  # (3, H, W)
    prompt: str = ""
    target_prompt: str | None = None  # None: a reconstruction alone is scored
    mask: Tensor | None = None  # (1, H, W), 1 where the edit is to happen
    truth: Tensor | None = None  # (3, H, W), the picture as the target prompt would have it
    generated: Tensor | None = None  # (3, H, W), a generation from the target prompt, where there is no truth

    @property
    def target(self) -> Tensor | None:
        """The true picture, or the generation that takes its place (3, H, W)."""
        return self.generated if self.truth is None else self.truth


class Metric(Column, ABC):
    """A score of pictures. A new one is a subclass that is named by its import path, or a row of ``METRICS``."""

    requires: ClassVar[frozenset[str]] = frozenset()  # of target_prompt, mask, truth, target
    network: ClassVar[str | None] = None  # what it scores with: clip, dino or lpips

    def __init__(self, network: Any = None) -> None:
        """Hold the loaded network that ``network`` names."""
        self.net = network

    @abstractmethod
    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:
        """Scores of pictures (B, 3, H, W) in [0, 1]: (B,), NaN where undefined. Means leave NaN out and count it."""
