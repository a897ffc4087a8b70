"""Which rows make which batch: decided by (seed, epoch) alone, never by a global generator.

A resumed run must see the rows that an uninterrupted one would have seen. Therefore an epoch has a
fixed number of batches, known before the first step, and the order within it belongs to the data
set, which permutes itself in ``set_epoch(epoch)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np


class EpochDataset(Protocol):
    """What the trainer asks of a data set of rows."""

    def __len__(self) -> int:
        """Rows in the current epoch."""
        ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One row."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Bring the rows into the order of this epoch."""
        ...


class EpochBatches:
    """Batches of row numbers, the same number of batches in every epoch.

    Packing again may give an epoch a row more or less than the first had. A row more is left for
    another epoch; a missing one is filled by the epoch's first rows::

        rows of the epoch   0 1 2 3 4 5 6      batch_size 3, rows 8
        batches             [0 1 2] [3 4 5] [6 0]

    Args:
        dataset: Sized; asked for its length whenever an epoch begins.
        rows: Rows per epoch.
        batch_size: Rows per batch; the last batch may be smaller.

    Example:
        >>> list(EpochBatches(range(7), rows=8, batch_size=3))
        [[0, 1, 2], [3, 4, 5], [6, 0]]
    """

    def __init__(
        self, dataset: EpochDataset | Sequence[object], rows: int, batch_size: int
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        available = len(self.dataset)
        for start in range(0, self.rows, self.batch_size):
            stop = min(start + self.batch_size, self.rows)
            yield [row % available for row in range(start, stop)]


def spread(rows: int, limit: int | None) -> list[int]:
    """Row numbers of at most ``limit`` rows, evenly spread over all.

    Example:
        >>> spread(10, 4), spread(3, None)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    if limit is None or rows <= limit:
        return list(range(rows))
    return [index * rows // limit for index in range(limit)]
