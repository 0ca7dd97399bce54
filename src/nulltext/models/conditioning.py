"""What a prompt becomes: a sequence of token embeddings and whatever rides along with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """A batch of prompts as the network reads them.

    The sequence is what null-text inversion learns. Extras are named by the family: the pooled embedding and time ids
    of SDXL, the mask of a transformer. Each has B rows.
    """

    sequence: Tensor  # (B, L, d) fp32
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # each (B, ...)

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, rows: slice | Tensor) -> Conditioning:
        """Some rows of the batch."""
        return self.map(lambda x: x[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same change to the sequence and to every extra."""
        return Conditioning(change(self.sequence), {name: change(x) for name, x in self.extras.items()})

    def expand(self, batch: int) -> Conditioning:
        """The one row, ``batch`` times."""
        return self.map(lambda x: x.expand(batch, *x.shape[1:]))

    def with_sequence(self, sequence: Tensor) -> Conditioning:
        """Other token embeddings (B, L, d) with the same extras."""
        return replace(self, sequence=sequence)

    def equals(self, other: Conditioning) -> bool:
        """Whether the network would see the same."""
        return (
            self.extras.keys() == other.extras.keys()
            and torch.equal(self.sequence, other.sequence)
            and all(torch.equal(x, other.extras[name]) for name, x in self.extras.items())
        )

    @staticmethod
    def cat(rows: Sequence[Conditioning]) -> Conditioning:
        """One batch of several."""
        first, *others = rows
        if not others:
            return first
        extras = {name: torch.cat([row.extras[name] for row in rows]) for name in first.extras}
        return Conditioning(torch.cat([row.sequence for row in rows]), extras)

    @staticmethod
    def lerp(a: Conditioning, b: Conditioning, share: float) -> Conditioning:
        """From a (share 0) to b (share 1) in a straight line; extras that are no floats are those of a."""
        extras = {
            name: torch.lerp(x, b.extras[name], share) if x.is_floating_point() else x
            for name, x in a.extras.items()
        }
        return Conditioning(torch.lerp(a.sequence, b.sequence, share), extras)
