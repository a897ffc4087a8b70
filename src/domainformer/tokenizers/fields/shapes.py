"""The two shapes that almost all field tokenizers have: bins of a number, and a table of values.

Both expose what a fused kernel needs, so that one pass over all fields gives the same ids as
`encode` field by field: `BinTokenizer` its ``values`` and ``edges``, `LookupTokenizer` its
``codes`` with their ``table``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl

from domainformer.tokenizers.base import MISSING, FieldTokenizer, Float64Array, Int32Array
from domainformer.tokenizers.fields.columns import as_float64

# Numbers per block of the comparison loop: a block and its counters stay in the L2 cache.
_BLOCK = 1 << 14
# Above this many edges a binary search beats one comparison per edge.
_MOST_COMPARED_EDGES = 48


class Codes(NamedTuple):
    """A column as codes into a small table of its distinct values' ids.

    ``table[codes]`` are the local ids, ``[n, width]``. Missing values have a code of their own.
    """

    codes: Int32Array
    table: Int32Array


class BinTokenizer(FieldTokenizer):
    """A number becomes the bin it falls in: ``id = 1 + (number of edges ≤ x)``, NaN becomes 0.

    ::

        id      1      2       3           len(edges) + 1
            ───────┼───────┼───────┼─ … ┼──────────▶ x
                 edges[0] edges[1]    edges[-1]

    ``x`` is what `values` gives: the column as float64, absolute where ``absolute`` is set.
    """

    absolute: ClassVar[bool] = False

    edges: Float64Array
    """Increasing, finite lower ends of the bins from id 2 on."""

    def values(self, column: pl.Series) -> Float64Array:
        """The column as the float64 numbers that are binned; NaN where missing."""
        numbers = as_float64(column, field=self.spec.name)
        return np.abs(numbers) if self.absolute else numbers

    def encode(self, column: pl.Series) -> Int32Array:
        """Local ids of a numeric column, int32 ``[n, 1]``."""
        self._require_fitted()
        return bin_ids(self.values(column), self.edges)[:, None]


class LookupTokenizer(FieldTokenizer):
    """A value becomes the row of a table: ``ids = table[codes]``."""

    @abstractmethod
    def codes(self, column: pl.Series) -> Codes:
        """The column as codes into a table of local ids (see `Codes`)."""

    def encode(self, column: pl.Series) -> Int32Array:
        """Local ids of a column, int32 ``[n, width]``."""
        self._require_fitted()
        codes, table = self.codes(column)
        return np.take(table, codes, axis=0)


def bin_ids(x: Float64Array, edges: Float64Array) -> Int32Array:
    """``1 + (number of edges ≤ x)``, and 0 where ``x`` is NaN.

    With few edges one comparison per edge is faster than a binary search, whose branches are
    mispredicted; comparisons with NaN are false, which gives the 0.

    Example:
        >>> bin_ids(np.array([-1.0, 0.0, 5.0, np.nan]), np.array([0.0, 2.0]))
        array([1, 2, 3, 0], dtype=int32)
    """
    if len(edges) > _MOST_COMPARED_EDGES:
        ids = np.searchsorted(edges, x, side="right").astype(np.int32)
        ids += 1
        ids[np.isnan(x)] = MISSING
        return ids
    ids = np.empty(len(x), dtype=np.int32)
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        count = (block == block).view(np.uint8)
        for edge in edges:
            count += (block >= edge).view(np.uint8)
        ids[start : start + _BLOCK] = count
    return ids
