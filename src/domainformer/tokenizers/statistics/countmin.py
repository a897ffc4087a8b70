"""A count-min table: counts of any number of distinct values in a fixed array.

Each value has one cell in each of four rows, and its count is added to all of them::

    "corner shop" ─hash─▶  row 0  │ · · 7 · · · · · │
                           row 1  │ · · · · · 9 · · │   estimate: the smallest, 7
                           row 2  │ 12· · · · · · · │   (never below the true count)
                           row 3  │ · · · 7 · · · · │

Cormode and Muthukrishnan 2005, "An improved data stream summary: the count-min sketch and its
applications" (Journal of Algorithms 55), Theorem 1; cells by double hashing, Kirsch and
Mitzenmacher 2006, "Less hashing, same performance" (ESA).
"""

from __future__ import annotations

import hashlib
from typing import Self

import numpy as np
import polars as pl

from domainformer.tokenizers.statistics.base import Int64Array
from domainformer.tokenizers.statistics.hashing import rehash, stable_hash

_ROWS = 4


class CountMinTable:
    """Counts that can be added to, added up, and estimated from above.

    With N counted in all, an estimate exceeds the true count by more than e·N / width with a
    probability of at most e⁻⁴ (2 %), and it is never below it.

    Args:
        cells: int64 ``[4, width]``, width a power of two.

    Example:
        >>> table = CountMinTable.of_width(1024)
        >>> table.add(pl.Series(["a", "b"]), np.array([5, 2]))
        >>> table.estimate(pl.Series(["a", "b", "c"])).tolist()
        [5, 2, 0]
    """

    def __init__(self, cells: Int64Array) -> None:
        self.cells = cells

    @classmethod
    def of_width(cls, at_least: int) -> Self:
        """An empty table of the next power of two, and of 16 at least."""
        width = max(16, 1 << (at_least - 1).bit_length())
        return cls(np.zeros((_ROWS, width), dtype=np.int64))

    def add(self, values: pl.Series, counts: Int64Array) -> None:
        """Add counts of distinct values."""
        for row, at in enumerate(self._cells_of(values)):
            np.add.at(self.cells[row], at, counts)

    def merge(self, other: Self) -> None:
        """Add up two tables of one width."""
        self.cells += other.cells

    def estimate(self, values: pl.Series) -> Int64Array:
        """At least the count of each value."""
        found = [self.cells[row][at] for row, at in enumerate(self._cells_of(values))]
        return np.minimum.reduce(found)

    def digest(self) -> str:
        """A short name of the content."""
        cells = np.ascontiguousarray(self.cells, dtype="<i8")
        return hashlib.blake2b(cells.tobytes(), digest_size=16).hexdigest()

    def _cells_of(self, values: pl.Series) -> list[Int64Array]:
        first = stable_hash(values)
        step = rehash(first) | np.uint64(1)
        mask = np.uint64(self.cells.shape[1] - 1)
        return [((first + np.uint64(row) * step) & mask).astype(np.int64) for row in range(_ROWS)]
