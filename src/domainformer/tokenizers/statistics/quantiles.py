"""How positive numbers are distributed: exact counts of few values, fine buckets of many.

A float64 is a sign bit, 11 bits of exponent and 52 of mantissa. A bucket is all numbers whose
exponent and first 10 bits of mantissa are the same, 1,024 to each power of two; it is named by its
lower end::

    sign exponent    mantissa
       0 10000000011 1001000000|110011…      25.6…  ─▶  bucket [25.6…, 25.6… · (1 + 2⁻¹⁰))
                               ╰─ set to zero
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.statistics.base import (
    Float64Array,
    Int64Array,
    Limits,
    Sketch,
    SketchState,
)

_MANTISSA_BITS = 10
_DROPPED = 52 - _MANTISSA_BITS
# Buckets are counted by position while they span no more than this; else they are sorted.
_WIDEST_COUNT = 1 << 21
# Parts are added up when there are so many, however small.
_MOST_PARTS = 256


class Weighted(NamedTuple):
    """Increasing distinct values, and how often each occurs: a sorted column in short.

    Example:
        >>> numbers = Weighted(np.array([0.5, 2.0, 7.0]), np.array([1, 3, 1]))
        >>> numbers.total, numbers.at(np.array([0, 1, 3, 4]))
        (5, array([0.5, 2. , 2. , 7. ]))
    """

    values: Float64Array
    counts: Int64Array

    @property
    def total(self) -> int:
        """Number of values, each as often as it occurs."""
        return int(self.counts.sum())

    def at(self, ranks: npt.NDArray[np.integer[Any]]) -> Float64Array:
        """The values at some ranks, from 0 on, of the sorted column."""
        return self.values[np.searchsorted(np.cumsum(self.counts), ranks, side="right")]

    def at_least(self, low: float) -> Weighted:
        """The values from ``low`` on."""
        start = int(np.searchsorted(self.values, low))
        return Weighted(self.values[start:], self.counts[start:])


class QuantileSketch(Sketch):
    """Counts of positive numbers, from which quantiles are read.

    Up to ``limits.most_numbers`` distinct values are counted exactly. Where there are more, every
    value is replaced by the lower end of its bucket: a quantile read from it is then at most, and
    less than a factor of 1 + 2⁻¹⁰ below, the exact quantile of the same rank. Whether values are
    replaced depends on the number of distinct values of *all* data, thus not on its order. There
    are at most 2²¹ buckets (a column that spans a factor of a million fills some 20,000).

    Args:
        limits: `Limits` of the fit.

    Example:
        >>> sketch = QuantileSketch(Limits(most_numbers=3))
        >>> sketch.add(np.array([2.0, 0.5, 2.0, np.nan, -1.0, np.inf]))
        >>> sketch.counted()
        Weighted(values=array([0.5, 2. ]), counts=array([1, 2]))
        >>> sketch.add(np.array([1.0, 1.0001, 7.0]))
        >>> sketch.counted()  # four and more distinct values: 1.0001 falls in the bucket of 1
        Weighted(values=array([0.5, 1. , 2. , 7. ]), counts=array([1, 2, 2, 1]))
    """

    kind: ClassVar[str] = "quantiles"

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.collapsed = False
        self._kept = Weighted(np.empty(0), np.empty(0, np.int64))
        self._pending: list[Weighted] = []
        self._rows = 0

    def add(self, numbers: Float64Array) -> None:
        """Count the positive finite numbers of an array; the others are left out."""
        # NaN and infinity fail the comparison.
        wanted = (numbers > 0.0) & (numbers < np.inf)
        chosen = numbers if wanted.all() else numbers[wanted]
        if not self.collapsed and len(chosen) > 2 * self.limits.most_numbers:
            # Continuous numbers show it in their first values, without sorting all of them.
            head = np.unique(chosen[: 2 * self.limits.most_numbers])
            self.collapsed = len(head) > self.limits.most_numbers
        self._append(_count_buckets(chosen) if self.collapsed else _count(chosen))

    def merge(self, other: Self) -> None:
        """Add all that ``other`` has counted."""
        counted = other.counted()  # settles whether it has collapsed
        self.collapsed |= other.collapsed
        self._append(counted)

    def counted(self) -> Weighted:
        """Distinct values with their counts; the lower ends of buckets once collapsed."""
        self._settle()
        return self._kept

    def _append(self, part: Weighted) -> None:
        self._pending.append(part)
        self._rows += len(part.values)
        if self._rows > self.limits.most_numbers or len(self._pending) >= _MOST_PARTS:
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        parts = [self._kept, *self._pending]
        self._pending, self._rows = [], 0
        if not self.collapsed:
            self._kept = _add_up(parts)
            if len(self._kept.values) <= self.limits.most_numbers:
                return
            self.collapsed = True
            parts = [self._kept]
        floors = [part._replace(values=bucket_floor(part.values)) for part in parts]
        self._kept = _add_up(floors)

    def state(self) -> SketchState:
        """Values, counts and whether they are buckets."""
        values, counts = self.counted()
        return SketchState({"collapsed": self.collapsed}, {"values": values, "counts": counts})

    @classmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch from what `state` gave."""
        sketch = cls(limits)
        sketch.collapsed = bool(state.meta["collapsed"])
        sketch._kept = Weighted(state.arrays["values"], state.arrays["counts"])
        return sketch


def bucket_floor(numbers: Float64Array) -> Float64Array:
    """The lower end of each positive number's bucket.

    Example:
        >>> bucket_floor(np.array([1.0, 1.0009, 1.001, 3.1]))
        array([1.        , 1.        , 1.00097656, 3.09960938])
    """
    bits = np.ascontiguousarray(numbers, dtype=np.float64).view(np.int64)
    return ((bits >> _DROPPED) << _DROPPED).view(np.float64)


def _count(numbers: Float64Array) -> Weighted:
    values, counts = np.unique(numbers, return_counts=True)
    return Weighted(values, counts.astype(np.int64))


def _count_buckets(numbers: Float64Array) -> Weighted:
    """The buckets of some numbers; where they lie close, counted without sorting."""
    if not len(numbers):
        return Weighted(np.empty(0), np.empty(0, np.int64))
    names = np.ascontiguousarray(numbers).view(np.int64) >> _DROPPED
    first, last = int(names.min()), int(names.max())
    if last - first >= _WIDEST_COUNT:
        return _count(bucket_floor(numbers))
    counts = np.bincount(names - first).astype(np.int64)
    found = np.flatnonzero(counts)
    values: npt.NDArray[np.int64] = (found + first) << _DROPPED
    return Weighted(values.view(np.float64), counts[found])


def _add_up(parts: list[Weighted]) -> Weighted:
    values, rows = np.unique(np.concatenate([p.values for p in parts]), return_inverse=True)
    counts = np.zeros(len(values), dtype=np.int64)
    np.add.at(counts, rows, np.concatenate([p.counts for p in parts]))
    return Weighted(values, counts)
