"""What a kind of edit is: how the target prompt uses the attention of the source prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nulltext.editing.tokens import Tokens, find_word
from nulltext.errors import UserError

Window: TypeAlias = float | tuple[float, float]
"""A share of the steps, from the first on; or (from, to)."""
WINDOW = 0.4
"""The share of the steps that see through the source's attention, where nothing else is said."""


@dataclass(frozen=True)
class RowControl:
    """What happens to the attention of one edited row."""

    mapper: Tensor  # (L target, L source), columns sum to one
    mapped: Tensor  # (L target,): 1 where a token has its counterpart in the source, 0 where it is new
    equalizer: Tensor  # (L target,): factor of a token's map
    share: Tensor  # (T, L target): weight of the controlled map at each step; the rest is the row's own map
    self_steps: Tensor  # (T,) bool: when the row takes the source's self-attention

    @staticmethod
    def nothing(steps: int, length: int) -> RowControl:
        """The control that changes nothing."""
        off, ones = torch.zeros(steps, dtype=torch.bool), torch.ones(length)
        return RowControl(torch.eye(length), ones, ones, torch.zeros(steps, length), off)

    def only_equalizer(self) -> RowControl:
        """The same without what it takes from the source."""
        share = self.share * (self.equalizer != 1).float()
        off = torch.zeros_like(self.self_steps)
        return RowControl(self.mapper, torch.zeros_like(self.mapped), self.equalizer, share, off)

    @property
    def empty(self) -> bool:
        """Whether it changes nothing at any step."""
        return not (self.share.any() or self.self_steps.any())

    def at(self, step: int, like: Tensor) -> tuple[Tensor, ...]:
        """Mapper, mapped, equalizer and share (L,) of a step, in another tensor's precision and on its device."""
        return tuple(x.to(like) for x in (self.mapper, self.mapped, self.equalizer, self.share[step]))


@dataclass(frozen=True)
class Kind(ABC):
    """How an edit uses the source's attention. A new kind is a subclass with ``control`` and one entry of ``KINDS``."""

    cross_replace: Window | Mapping[str, Window] = WINDOW  # for single words a mapping, with "default"
    self_replace: Window = WINDOW
    equalizer: Mapping[str, float] = field(default_factory=dict)  # words of the target and their factors
    compat: bool = False  # copy the reference where its errors change the result

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


class Plain(Kind):
    """The target prompt alone: nothing of the source's attention is used."""

    def __post_init__(self) -> None:
        """Refuses an equalizer, which would do nothing."""
        super().__post_init__()
        if self.equalizer:
            raise UserError("kind plain has no attention control, so no equalizer; use kind: reweight")

    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The control that changes nothing."""
        return RowControl.nothing(steps, target.length)


def check_window(name: str, window: Any) -> None:
    """Refuses with a UserError what is no number from 0 to 1, nor two in order."""
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
    """The factor of each target token's attention (L,): one, but for the tokens of the words given."""
    loudness = torch.ones(target.length)
    for word, factor in factors.items():
        loudness[list(find_word(target, word))] = factor
    return loudness
