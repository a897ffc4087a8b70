"""Columns that are numbers still, and how they become codes: bins and steps of time.

A column of strings is coded by looking its values up. A number needs no look-up: its code is
computed, block by block, right where the ids are joined, so that no array of codes is ever held.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer[Any]]

# Numbers per block of the comparison loop: a block and its counters stay in the L2 cache.
_BLOCK = 1 << 14
# Above this many edges a binary search beats one comparison per edge.
MOST_COMPARED_EDGES = 48


class Binned(NamedTuple):
    """Numbers whose code is their bin: ``1 + (number of edges ≤ x)``, and 0 for NaN.

    Attributes:
        numbers: float64 [n_events].
        edges: Increasing float64.
        absolute: Whether the magnitude is binned.
    """

    numbers: Float64Array
    edges: Float64Array
    absolute: bool

    def codes(self, start: int, stop: int) -> Int32Array:
        """Codes of the events from ``start`` to ``stop``.

        Example:
            >>> Binned(np.array([-3.0, 1.0]), np.array([0.0, 2.0]), absolute=True).codes(0, 2)
            array([3, 2], dtype=int32)
        """
        numbers = self.numbers[start:stop]
        return bin_ids(np.abs(numbers) if self.absolute else numbers, self.edges)


class Stepped(NamedTuple):
    """Times whose code is the number of their step: ``times // unit - first + 1``, 0 if missing.

    Attributes:
        times: int64 [n_events].
        unit: Length of a step, in the units of the times.
        first: The step of code 1; no time lies before it.
        missing: Mask of nulls, or None where there are none.
    """

    times: Int64Array
    unit: int
    first: int
    missing: npt.NDArray[np.bool_] | None

    def codes(self, start: int, stop: int) -> Int32Array:
        """Codes of the events from ``start`` to ``stop``.

        Example:
            >>> Stepped(np.array([7_200, 3_599]), 3_600, 0, None).codes(0, 2)
            array([3, 1], dtype=int32)
        """
        times = self.times[start:stop]
        steps = times if self.unit == 1 else times // self.unit
        codes = np.subtract(steps, self.first - 1).astype(np.int32)
        if self.missing is not None:
            codes[self.missing[start:stop]] = 0
        return codes


def codes_of(source: Codes | Binned | Stepped, start: int, stop: int) -> Codes:
    """Codes of some consecutive events."""
    if isinstance(source, (Binned, Stepped)):
        return source.codes(start, stop)
    return source[start:stop]


def bin_ids(x: Float64Array, edges: Float64Array) -> Int32Array:
    """``1 + (number of edges ≤ x)``, and 0 where ``x`` is NaN.

    With few edges one comparison per edge is faster than a binary search, whose branches are
    mispredicted; comparisons with NaN are false, which gives the 0.

    Example:
        >>> bin_ids(np.array([-1.0, 0.0, 5.0, np.nan]), np.array([0.0, 2.0]))
        array([1, 2, 3, 0], dtype=int32)
    """
    if len(edges) > MOST_COMPARED_EDGES:
        ids = np.searchsorted(edges, x, side="right").astype(np.int32)
        ids += 1
        ids[np.isnan(x)] = 0
        return ids
    ids = np.empty(len(x), dtype=np.int32)
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        count = (block == block).view(np.uint8)
        for edge in edges:
            count += (block >= edge).view(np.uint8)
        ids[start : start + _BLOCK] = count
    return ids
