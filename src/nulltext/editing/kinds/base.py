"""What a kind of edit is: how the target prompt uses the attention of the source prompt."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nulltext.editing.kinds.controls import RowControl
from nulltext.editing.tokens import Tokens, find_word
from nulltext.errors import UserError

Window: TypeAlias = float | tuple[float, float]
"""A share of the steps, from the first on; or (from, to)."""

WINDOW = 0.4
"""The share of the steps that see through the source's attention, where nothing else is said."""


@dataclass(frozen=True)
class Kind(ABC):
    """How an edit uses the source's attention. A new kind is a subclass with ``control`` and one entry of ``KINDS``.

    Attributes:
        cross_replace: When cross-attention comes from the source; for single words of the target prompt as a mapping,
            with ``default`` for the others.
        self_replace: When self-attention comes from the source.
        equalizer: Words of the target prompt and the factors of their attention.
        compat: Copy the reference where its errors change the result.
    """

    cross_replace: Window | Mapping[str, Window] = WINDOW
    self_replace: Window = WINDOW
    equalizer: Mapping[str, float] = field(default_factory=dict)
    compat: bool = False

    def __post_init__(self) -> None:
        """Refuses windows that are none."""
        cross = self.cross_replace
        for word, window in (cross if isinstance(cross, Mapping) else {"": cross}).items():
            check_window(f"cross_replace of {word!r}" if word else "cross_replace", window)
        check_window("self_replace", self.self_replace)

    @abstractmethod
    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The attention control of an edit in T steps.

        Raises:
            UserError: The prompts do not suit the kind, or a word of a window or the equalizer is not in the target.
        """

    def chosen(self, source: Tokens, target: Tokens) -> Kind:
        """The kind that acts on these prompts: this one, unless it chooses another."""
        return self

    def as_kind(self, kind: type[Kind]) -> Kind:
        """Another kind with the same settings."""
        return kind(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Kind)})

    def windowed(self, mapper: Tensor, mapped: Tensor, target: Tokens, steps: int) -> RowControl:
        """A mapper (L target, L source) in the windows and with the equalizer of this kind."""
        cross = self.cross_replace
        windows = cross if isinstance(cross, Mapping) else {"default": cross}
        share = steps_inside(windows.get("default", 0.0), steps)[:, None].repeat(1, target.length).float()
        for word, window in windows.items():
            if word != "default":
                share[:, list(find_word(target, word))] = steps_inside(window, steps)[:, None].float()
        loudness = equalizer(target, self.equalizer)
        return RowControl(mapper, mapped, loudness, share, steps_inside(self.self_replace, steps))


def check_window(name: str, window: Any) -> None:
    """Refuses what is no share of the steps.

    Raises:
        UserError: It is no number from 0 to 1, nor two in order.
    """
    ends = window if isinstance(window, tuple) else (0.0, window)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in ends)
    if len(ends) != 2 or not numbers or not 0 <= ends[0] <= ends[1] <= 1:
        raise UserError(f"{name} is a share of the steps between 0 and 1, or from and to; not {window!r}")


def steps_inside(window: Window, steps: int) -> Tensor:
    """Which of the T steps lie in a window (T,) bool: those whose middle does."""
    start, end = window if isinstance(window, tuple) else (0.0, window)
    middle = (torch.arange(steps) + 0.5) / steps
    return (middle >= start) & (middle < end)


def equalizer(target: Tokens, factors: Mapping[str, float]) -> Tensor:
    """The factor of each target token's attention (L,): one, but for the tokens of the words given.

    Raises:
        UserError: A word is not in the target prompt.
    """
    loudness = torch.ones(target.length)
    for word, factor in factors.items():
        loudness[list(find_word(target, word))] = factor
    return loudness
