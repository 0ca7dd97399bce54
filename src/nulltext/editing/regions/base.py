"""What a region is: where an edit may change the picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.editing.kinds.controls import AttentionControl
from nulltext.editing.options import Edit
from nulltext.editing.tokens import Tokens, find_word, has_word
from nulltext.inversion.base import Replay
from nulltext.inversion.file import Inversion
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning


@dataclass(frozen=True)
class Source:
    """An inverted picture and its replay, from which its edits depart."""

    model: DiffusionModel
    inversion: Inversion
    schedule: Schedule
    cond: Conditioning  # its prompt, one row
    replay: Replay  # one row

    @property
    def null_texts(self) -> Sequence[Conditioning]:
        """T null texts, one row each."""
        return self.replay.null_texts

    @property
    def trajectory(self) -> Tensor:
        """(T + 1, 1, C, h, w), noisiest first; the end is the reconstruction."""
        return self.replay.trajectory

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.trajectory.shape[-2], self.trajectory.shape[-1]


@dataclass(frozen=True)
class Context:
    """What a region may look at."""

    inversion: Inversion
    size: tuple[int, int]  # (h, w) of the latents
    device: torch.device
    edit: Edit
    source: Tokens  # the source prompt
    target: Tokens  # the edit's prompt
    difference: Callable[[], Tensor]  # (n, h, w), on demand: how each change of the prompt denoises otherwise
    attention: AttentionControl | None = None  # what was recorded so far; None before the first step
    row: int = 0  # of the edit in it

    def maps(self, word: str) -> list[Tensor]:
        """The attention maps (h', w') of a word, in whichever prompts have it; none before the first step."""
        rows = [(0, self.source)] if has_word(self.source, word) else []
        if not rows or has_word(self.target, word):
            rows.append((self.row, self.target))
        tokens = [(row, find_word(prompt, word)) for row, prompt in rows]
        if self.attention is None or not self.attention.sums:
            return []
        return [self.attention.maps(row, found) for row, found in tokens]


class Region(ABC):
    """Where an edit may act. A new region is a subclass with ``find``, named in ``local_blend`` by its import path."""

    follows_attention: ClassVar[bool] = False
    """Whether it is found again after each step, from the attention maps recorded so far; otherwise once, before."""

    @abstractmethod
    def find(self, context: Context) -> Tensor | None:
        """The mask (h, w) over the latents in [0, 1], 1 where the edit may act; None while there is none."""
