"""The second pass over values that were too many to count: the frequent ones, exactly."""

from __future__ import annotations

from typing import ClassVar, Self

import polars as pl

from domainformer.errors import FingerprintError, TokenizerError
from domainformer.tokenizers.statistics.base import Limits, Sketch, SketchState
from domainformer.tokenizers.statistics.countmin import CountMinTable
from domainformer.tokenizers.statistics.tally import COUNT, ESTIMATE, VALUE, Tally, ValueKind


class RecountSketch(Sketch):
    """Counts exactly the values whose estimate in a count-min table reaches a threshold.

    The threshold starts at ``least`` and rises by an eighth (and by 1 at least) whenever more than
    ``limits.most_distinct`` values reach it. So the last threshold is the lowest of its ladder
    that few enough values of *all* data reach, and does not depend on their order.

    Args:
        table: The table of the first pass over the same data; None for counts that come from
            bytes, which can be merged and adopted but not added to.
        digest: The table's name.
        kind: ``"text"`` or ``"integer"``.
        limits: `Limits` of the fit.
        least: The first threshold.
    """

    kind: ClassVar[str] = "recount"

    def __init__(
        self, table: CountMinTable | None, digest: str, kind: ValueKind, limits: Limits, least: int
    ) -> None:
        self.table = table
        self.digest = digest
        self.limits = limits
        self.threshold = least
        # Estimates are kept beside the counts, so that merging needs no table.
        self._tally = Tally(kind, estimated=True)

    def add(self, counted: pl.DataFrame) -> None:
        """Count distinct values (columns ``value``, ``count``), as far as they may be frequent."""
        if self.table is None:
            raise TokenizerError(
                "counts of a second pass that were read from bytes cannot be added to",
                why="they come without the table that says which values to count",
                next_step="add to the collector that recounting() gave, and merge these into it",
            )
        estimates = pl.Series(ESTIMATE, self.table.estimate(counted[VALUE]))
        frame = counted.select(VALUE, COUNT).with_columns(estimates)
        if self._tally.add(frame.filter(pl.col(ESTIMATE) >= self.threshold)):
            self._settle()

    def merge(self, other: Self) -> None:
        """Add the counts of another part of the same data."""
        if other.digest != self.digest:
            raise FingerprintError(
                "two second passes with different tables cannot be merged",
                next_step="start both from one recounting() after all first passes are merged",
            )
        self.threshold = max(self.threshold, other.threshold)
        self._tally.add(other.tally.unordered)
        self._settle()

    @property
    def tally(self) -> Tally:
        """All values whose estimate reaches the threshold, with exact counts."""
        self._settle()
        return self._tally

    def _settle(self) -> None:
        while True:
            estimates = self._tally.unordered[ESTIMATE].to_numpy()
            reached = estimates >= self.threshold
            if not reached.all():
                self._tally.keep(reached)
            if self._tally.size <= self.limits.most_distinct:
                return
            self.threshold += max(1, self.threshold // 8)

    def state(self) -> SketchState:
        """Threshold, values, counts, estimates, and the name of the table."""
        tally = self.tally
        meta = {"digest": self.digest, "values": tally.kind, "threshold": self.threshold}
        return SketchState(meta, tally.arrays())

    @classmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch, without its table, from what `state` gave."""
        meta = state.meta
        sketch = cls(None, meta["digest"], meta["values"], limits, int(meta["threshold"]))
        sketch._tally = Tally.of_arrays(meta["values"], state.arrays)
        return sketch
