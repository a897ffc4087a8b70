"""How often each category or whole number occurs: exactly, or the frequent ones in two passes.

::

    first pass       counts of every value ──more than most_distinct──▶ a count-min table alone
                                                                          │ handed to all workers
    second pass      values whose estimate reaches a threshold, counted exactly (RecountSketch)

An estimate is never below the true count. So all values that are as frequent as the threshold are
counted in the second pass, and the result is exact: *the values seen at least so often*.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Self

import polars as pl

from domainformer.errors import FingerprintError, TokenizerError
from domainformer.tokenizers.statistics.base import Int64Array, Limits, Sketch, SketchState
from domainformer.tokenizers.statistics.countmin import CountMinTable
from domainformer.tokenizers.statistics.recount import RecountSketch
from domainformer.tokenizers.statistics.tally import COUNT, VALUE, Tally, ValueKind


class Frequent(NamedTuple):
    """Values in increasing order with their exact counts.

    All that occur at least ``threshold`` times are here, and no others; 1 stands for all.
    """

    values: pl.Series
    counts: Int64Array
    threshold: int

    def at_least(self, count: int) -> tuple[pl.Series, Int64Array]:
        """The values that occur at least ``count`` times, and their counts."""
        enough = self.counts >= count
        return self.values.filter(pl.Series(enough)), self.counts[enough]


class CountSketch(Sketch):
    """Counts of distinct values in bounded memory.

    Args:
        kind: ``"text"`` or ``"integer"``.
        limits: `Limits` of the fit.
        least: Rarer values are of no interest, should a second pass be needed.

    Example:
        >>> sketch = CountSketch("text", Limits(most_distinct=2))
        >>> sketch.add(pl.DataFrame({"value": ["a", "b", "c"], "count": [9, 9, 1]}))
        >>> sketch.overflowed, sketch.needs_recount
        (True, True)
        >>> second = sketch.recounting()
        >>> second.add(pl.DataFrame({"value": ["a", "b", "c"], "count": [9, 9, 1]}))
        >>> sketch.adopt(second)
        >>> sketch.frequent().values.to_list(), sketch.frequent().threshold
        (['a', 'b'], 2)
    """

    kind: ClassVar[str] = "counts"

    def __init__(self, kind: ValueKind, limits: Limits, *, least: int = 1) -> None:
        self.values: ValueKind = kind
        self.limits = limits
        self.least = least
        self._tally = Tally(kind)
        self._table: CountMinTable | None = None
        self._frequent: Frequent | None = None

    @property
    def overflowed(self) -> bool:
        """Whether there were too many distinct values to count each of them."""
        self._settle()
        return self._table is not None

    @property
    def needs_recount(self) -> bool:
        """Whether a second pass is needed before `frequent` can tell."""
        return self.overflowed and self._frequent is None

    def add(self, counted: pl.DataFrame) -> None:
        """Add distinct values (column ``value``) with their counts (column ``count``)."""
        self._frequent = None
        if self._table is not None:
            self._table.add(counted[VALUE], counted[COUNT].to_numpy())
        elif self._tally.add(counted.select(VALUE, pl.col(COUNT).cast(pl.Int64))):
            self._settle()

    def merge(self, other: Self) -> None:
        """Add all that ``other`` has counted."""
        self._frequent = None
        if other._table is None:
            self.add(other._tally.unordered)
            return
        self._overflow()
        assert self._table is not None
        self._table.merge(other._table)
        self._add_to_table(other._tally)

    def _settle(self) -> None:
        if self._table is None and self._tally.size > self.limits.most_distinct:
            self._overflow()

    def _overflow(self) -> None:
        if self._table is None:
            self._table = CountMinTable.of_width(self.limits.most_distinct)
            self._add_to_table(self._tally)
            self._tally = Tally(self.values)

    def _add_to_table(self, tally: Tally) -> None:
        assert self._table is not None
        counted = tally.unordered
        self._table.add(counted[VALUE], counted[COUNT].to_numpy())

    def recounting(self) -> RecountSketch:
        """A collector for the second pass, which reads this sketch's table."""
        if not self.overflowed:
            super().recounting()
        assert self._table is not None
        digest = self._table.digest()
        return RecountSketch(self._table, digest, self.values, self.limits, self.least)

    def adopt(self, recount: RecountSketch) -> None:
        """Take the result of a second pass over the data of this sketch."""
        if self._table is None or recount.digest != self._table.digest():
            raise FingerprintError(
                "the second pass does not belong to these statistics",
                why="it began from another table, or more was added to the first pass since",
                next_step="call recounting() again, and read the same data once more",
            )
        tally, threshold = recount.tally, recount.threshold
        if (tally.counts > self._table.estimate(tally.values)).any():
            raise FingerprintError(
                "the second pass has counted other data than the first",
                why="a value occurs more often than the first pass has seen it",
                next_step="read the same data twice: once to update, once to recounting()",
            )
        enough = tally.counts >= threshold
        values = tally.values.filter(pl.Series(enough))
        self._frequent = Frequent(values, tally.counts[enough], threshold)

    def frequent(self) -> Frequent:
        """The values and their counts.

        Raises:
            TokenizerError: A second pass is needed first.
        """
        if not self.overflowed:
            return Frequent(self._tally.values, self._tally.counts, 1)
        if self._frequent is None:
            raise TokenizerError(
                "a second pass over the data is needed",
                why=f"there are more than {self.limits.most_distinct:,} distinct values, of which "
                "only estimated counts were kept",
                next_step="collect the same data in statistics.recounting(), and adopt() it",
            )
        return self._frequent

    def state(self) -> SketchState:
        """Counts or the table, and the result of the second pass where there is one."""
        meta = {"values": self.values, "least": self.least, "overflowed": self.overflowed}
        if self._table is None:
            return SketchState(meta | {"threshold": None}, self._tally.arrays())
        arrays = {"cells": self._table.cells.reshape(-1)}
        if self._frequent is None:
            return SketchState(meta | {"threshold": None}, arrays)
        found = Tally(self.values)
        found.add(pl.DataFrame({VALUE: self._frequent.values, COUNT: self._frequent.counts}))
        return SketchState(meta | {"threshold": self._frequent.threshold}, arrays | found.arrays())

    @classmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch from what `state` gave."""
        meta, arrays = state
        sketch = cls(meta["values"], limits, least=int(meta["least"]))
        if not meta["overflowed"]:
            sketch._tally = Tally.of_arrays(sketch.values, arrays)
            return sketch
        empty = CountMinTable.of_width(limits.most_distinct)
        sketch._table = CountMinTable(arrays["cells"].reshape(empty.cells.shape))
        if meta["threshold"] is not None:
            found = Tally.of_arrays(sketch.values, arrays)
            sketch._frequent = Frequent(found.values, found.counts, int(meta["threshold"]))
        return sketch
