"""Which rows a training sees at which step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler


class Stacked:
    """Arrays one after another as if they were one; none is copied, so that files stay on the disk.

    Args:
        parts: Arrays that agree in all but their length.
    """

    def __init__(self, *parts: NDArray[np.uint8]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.ends[-1])

    def __getitem__(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Some rows, as an array of their own."""
        return np.stack([self._row(index) for index in indices])

    def _row(self, index: int) -> NDArray[np.uint8]:
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - int(self.ends[part]) + len(self.parts[part])]


class Rows(Dataset[dict[str, Any]]):
    """Columns of equal length; a list of indices gives a batch at once, without collation item by item.

    Args:
        columns: Tensors, pictures or sequences.
    """

    def __init__(self, **columns: Tensor | Stacked | Sequence[Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """The rows of a batch, column by column."""
        return {name: _pick(column, indices) for name, column in self.columns.items()}


def _pick(column: Tensor | Stacked | Sequence[Any], indices: list[int]) -> Any:
    if isinstance(column, Stacked):
        return torch.from_numpy(column[indices])
    return column[indices] if isinstance(column, Tensor) else [column[i] for i in indices]


class Order(Sampler[list[int]]):
    """Batches of indices that depend on the seed and the step alone, so that a resumed training sees the same.

    The items are dealt out like cards, a new shuffled deck when one is used up.

    Args:
        size: How many items there are.
        batch_size: Items in a batch.
        batches: Batches in an epoch.
        seed: With the step, the seed of the draw.
        step: Says which step comes next; Lightning cuts the epochs elsewhere after a resume.
    """

    def __init__(self, size: int, batch_size: int, batches: int, seed: int, step: Callable[[], int]) -> None:
        self.size, self.batch_size, self.batches = size, batch_size, batches
        self.seed, self.step = seed, step

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        """The batches from the step that comes next."""
        first = self.step()
        for step in range(first, first + self.batches):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """The batch of one step."""
        first = step * self.batch_size
        cards: list[int] = []
        for deck in range(first // self.size, (first + self.batch_size - 1) // self.size + 1):
            cards += np.random.default_rng([self.seed, deck]).permutation(self.size).tolist()
        return cards[first % self.size :][: self.batch_size]


class Mixed(Order):
    """Batches of which a part are whole groups of rows that belong together.

    Args:
        groups: The rows of each group.
        size: How many rows may be dealt singly: 0 to size - 1.
        batch_size: Rows in a batch.
        batches: Batches in an epoch.
        seed: With the step, the seed of the draw.
        step: Says which step comes next.
        grouped: Share of a batch that comes in groups.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        size: int,
        batch_size: int,
        batches: int,
        seed: int,
        step: Callable[[], int],
        grouped: float,
    ) -> None:
        super().__init__(size, batch_size, batches, seed, step)
        self.groups, self.grouped = groups, int(grouped * batch_size)

    def batch(self, step: int) -> list[int]:
        """Groups, then rows as the cards fall."""
        rng = np.random.default_rng([self.seed, step, 1])
        together: list[int] = []
        while len(together) < self.grouped:
            together += self.groups[int(rng.integers(len(self.groups)))]
        return (together[: self.grouped] + super().batch(step))[: self.batch_size]
