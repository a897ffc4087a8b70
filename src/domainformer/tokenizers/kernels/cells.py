"""Bins of numbers by a table over their leading bits: one look-up and one comparison each.

The leading bits of a float64 (sign, exponent and the first bits of the mantissa) divide the number
line into cells, which are finer near zero. If no cell holds two edges, the cell tells how many
edges lie below it, and one comparison decides about its own::

    cells   ├──┼──┼──┼──┼────┼────┼────┼────┼────────┼────────┤
    edges      ↑        ↑         ↑                     ↑
    below   0  0  1  1  1    2    2    3    3        3        4      + (x ≥ edge of the cell)
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.kernels.compiling import frozen
from domainformer.tokenizers.kernels.sources import Binned, Float64Array, Int32Array

Words = npt.NDArray[np.uint64]

_EXPONENT_AND_SIGN, _MANTISSA = 12, 52
_SIGN = np.uint64(1 << 63)
# Bits of the mantissa that are tried; the table has 4,096 cells for the others.
_FEWEST_BITS, _MOST_BITS = 4, 8


class Cells(NamedTuple):
    """How many edges lie below each cell, and the edge within it (NaN: none).

    A cell is ``key >> shift``, where the key of a number is its bits, in an order that is that of
    the numbers: all flipped below zero, the sign alone from zero on.
    """

    shift: int
    below: Int32Array
    edge: Float64Array


def cells(edges: Float64Array) -> Cells | None:
    """The cells of increasing finite edges; None where two edges lie too close to each other.

    Example:
        >>> found = cells(np.array([0.0, 1.0, 1.5]))
        >>> found.shift, found.below.max()
        (48, np.int32(3))
        >>> cells(np.array([1.0, 1.0001])) is None
        True
    """
    return _cells(np.ascontiguousarray(edges, np.float64).tobytes())


@lru_cache(maxsize=32)
def _cells(data: bytes) -> Cells | None:
    edges = np.frombuffer(data, np.float64)
    keys = ordered_keys(edges)
    for bits in range(_FEWEST_BITS, _MOST_BITS + 1):
        shift = _MANTISSA - bits
        cell = (keys >> np.uint64(shift)).astype(np.int64)
        if len(np.unique(cell)) == len(cell):
            break
    else:
        return None
    n_cells = 1 << (_EXPONENT_AND_SIGN + bits)
    sizes = np.diff(np.concatenate([[0], cell + 1, [n_cells]]))
    below = np.repeat(np.arange(len(edges) + 1, dtype=np.int32), sizes)
    edge = np.full(n_cells, np.nan)
    edge[cell] = edges
    return Cells(shift, frozen(below), frozen(edge))


def united(*sources: Binned) -> tuple[Binned, list[Int32Array]]:
    """One binning of the numbers that several share, and the code of each for each of its bins.

    ::

        sign      ─────────── 0 ───────────       −8 │ −1 │ 0 │ 1 │ 8     bins of both
        |x|       ─ 8 ─── 1 ─────── 1 ─── 8 ─

    Args:
        sources: With the same numbers.

    Example:
        >>> x = np.array([-9.0, -8.0, 0.5])
        >>> sign, size = Binned(x, np.array([0.0]), False), Binned(x, np.array([1.0, 8.0]), True)
        >>> both, (of_sign, of_size) = united(sign, size)
        >>> codes = both.codes(0, 3)
        >>> of_sign[codes].tolist(), of_size[codes].tolist()
        ([1, 1, 2], [3, 3, 1])
    """
    # |x| ≥ e also where x ≤ −e: the bin above begins right behind −e.
    edges = [s.edges if not s.absolute else _both_sides(s.edges) for s in sources]
    every = np.unique(np.concatenate(edges) + 0.0)
    # A number of each bin: code 0 is NaN, the first bin reaches down to −∞, others begin at edges.
    typical = np.concatenate([[np.nan, -np.inf], every])
    codes = [Binned(typical, s.edges, s.absolute).codes(0, len(typical)) for s in sources]
    return Binned(sources[0].numbers, every, False), codes


def _both_sides(edges: Float64Array) -> Float64Array:
    return np.concatenate([np.nextafter(-edges[edges > 0], np.inf), edges])


def ordered_keys(numbers: Float64Array) -> Words:
    """Bits of numbers as integers in the same order; both zeros are equal.

    Example:
        >>> keys = ordered_keys(np.array([-np.inf, -2.0, -0.0, 0.0, 1e-310, 3.0]))
        >>> bool((np.diff(keys.astype(float)) >= 0).all()), bool(keys[2] == keys[3])
        (True, True)
    """
    bits = (np.asarray(numbers, np.float64) + 0.0).view(np.uint64)  # −0 + 0 is +0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)
