"""What a prompt becomes: a sequence of token embeddings and whatever rides along with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class Learned:
    """Which part of a null text is learned, and how it is packed into one tensor (B, rows, d).

    First come token embeddings: all L, or the first few of each text encoder. Then, where it is learned as well, the
    pooled embedding, filled with zeros to whole rows.
    """

    encoders: tuple[int, ...]  # the tokens of each text encoder; they add up to L
    pooled: int = 0  # p, the width of the pooled embedding; 0: it is not learned

    def rows(self, width: int, tokens: int | None = None) -> int:
        """The rows of a packed tensor of d = ``width``."""
        return len(self._positions(tokens)) + -(-self.pooled // width)

    def pack(self, text: Conditioning, tokens: int | None = None) -> Tensor:
        """What is learned of a text (B, rows, d); ``tokens`` of each encoder, None for all."""
        sequence = text.sequence
        if tokens is not None:
            sequence = sequence[:, self._positions(tokens)]
        if not self.pooled:
            return sequence
        width, pooled = sequence.shape[-1], text.extras["pooled"]
        filled = F.pad(pooled, (0, -self.pooled % width))
        return torch.cat([sequence, filled.unflatten(1, (-1, width))], dim=1)

    def unpack(self, text: Conditioning, packed: Tensor) -> Conditioning:
        """A text with what was learned (B, rows, d) in its place; differentiable in it."""
        width = packed.shape[-1]
        count = packed.shape[1] - -(-self.pooled // width)
        sequence = packed[:, :count] if self.pooled else packed
        if count < sum(self.encoders):
            positions = torch.tensor(self._positions(count // len(self.encoders)), device=packed.device)
            whole = text.sequence.expand(len(packed), *text.sequence.shape[1:])
            sequence = whole.index_copy(1, positions, sequence)
        if not self.pooled:
            return text.with_sequence(sequence)
        pooled = packed[:, count:].flatten(1)[:, : self.pooled]
        return Conditioning(sequence, {**text.extras, "pooled": pooled})

    def fits(self, rows: int, width: int) -> bool:
        """Whether a packed tensor may have so many rows."""
        count = rows - -(-self.pooled // width)
        few = count % len(self.encoders) == 0 and 0 < count // len(self.encoders) < min(self.encoders)
        return few or count == sum(self.encoders)

    def _positions(self, tokens: int | None) -> list[int]:
        if tokens is None or tokens >= min(self.encoders):
            return list(range(sum(self.encoders)))
        starts = [sum(self.encoders[:k]) for k in range(len(self.encoders))]
        return [start + n for start in starts for n in range(tokens)]
