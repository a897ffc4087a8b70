"""The two shapes that almost all field tokenizers have: bins of a number, and a table of values.

Both expose what a fused kernel needs, so that one pass over all fields gives the same ids as
`encode` field by field: `BinTokenizer` its numbers and edges (``binned``), `LookupTokenizer` its
``codes`` with their ``table``.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.tokenizers.base import MISSING, FieldTokenizer, Float64Array, Int32Array
from domainformer.tokenizers.fields.columns import as_float, as_float64
from domainformer.tokenizers.kernels.sources import Binned, bin_ids
from domainformer.tokenizers.statistics import Weighted

SMALLEST = float(np.finfo(np.float64).tiny)
"""The lower end of the first bin above zero: smaller magnitudes are subnormal numbers, which some
processor modes read as zero."""


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

    Attributes:
        edges: Increasing, finite lower ends of the bins from id 2 on.
        representatives: A typical value per local id; NaN where there is none.
    """

    absolute: ClassVar[bool] = False
    edges: Float64Array
    representatives: Float64Array

    def _learn(
        self, vocab: list[str], edges: npt.ArrayLike, representatives: npt.ArrayLike
    ) -> None:
        self._vocab = vocab
        self.edges = np.asarray(edges, dtype=np.float64)
        self.representatives = np.asarray(representatives, dtype=np.float64)
        self._edge_list: list[float] = self.edges.tolist()

    def values(self, column: pl.Series) -> Float64Array:
        """The column as the float64 numbers that are binned; NaN where missing."""
        numbers = as_float64(column, field=self.spec.name)
        return np.abs(numbers) if self.absolute else numbers

    def binned(self, column: pl.Series) -> Binned:
        """The column as numbers whose bins are computed later, without a copy where possible."""
        self._require_fitted()
        if self.absolute:
            return Binned(as_float64(column, field=self.spec.name), self.edges, True)
        return Binned(self.values(column), self.edges, False)

    def encode(self, column: pl.Series) -> Int32Array:
        """Local ids of a numeric column, int32 ``[n, 1]``."""
        self._require_fitted()
        return bin_ids(self.values(column), self.edges)[:, None]

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local id of one number; None and NaN are missing."""
        self._require_fitted()
        number = value if type(value) is float else as_float(value, field=self.spec.name)
        if number != number:
            return (MISSING,)
        return (bisect_right(self._edge_list, abs(number) if self.absolute else number) + 1,)

    def decode(self, ids: Any) -> pl.Series:
        """The representative value of each bin; null for missing."""
        chosen = self._checked(ids)[:, 0]
        typical = self.representatives[chosen]
        return pl.Series(self.spec.name, typical, dtype=pl.Float64, nan_to_null=True)

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind, interval and representative of a local id.

        ``low`` is None for −∞ and ``high`` for +∞; the interval holds ``low`` and not ``high``.
        """
        token = self._token(local_id)
        if local_id == MISSING:
            return {"token": token, "kind": "missing"}
        low = self._edge_list[local_id - 2] if local_id >= 2 else None
        high = self._edge_list[local_id - 1] if local_id <= len(self._edge_list) else None
        return {"token": token, "kind": "bin", **interval(low, high), **self._typical(local_id)}

    def _typical(self, local_id: int) -> dict[str, Any]:
        value = float(self.representatives[local_id])
        return {"representative": None if value != value else value}

    def state(self) -> dict[str, Any]:
        """Edges and representatives."""
        self._require_fitted()
        typical = [None if value != value else value for value in self.representatives.tolist()]
        return {"kind": self.kind, "edges": self._edge_list, "representatives": typical}


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


def bin_medians(numbers: Weighted, edges: Float64Array) -> Float64Array:
    """The lower median of the values in each bin, one more than edges; NaN where empty.

    Example:
        >>> numbers = Weighted(np.array([1.0, 2.0, 3.0, 9.0]), np.ones(4, np.int64))
        >>> bin_medians(numbers, np.array([5.0, 10.0]))
        array([ 2.,  9., nan])
    """
    below = np.concatenate([[0], np.cumsum(numbers.counts)])
    at = np.searchsorted(numbers.values, edges, side="left")
    ends = np.concatenate([[0], below[at], below[-1:]])
    start, stop = ends[:-1], ends[1:]
    medians = np.full(len(start), np.nan)
    filled = stop > start
    medians[filled] = numbers.at((start[filled] + stop[filled] - 1) // 2)
    return medians


def interval(low: float | None, high: float | None) -> dict[str, Any]:
    """The half-open interval ``[low, high)`` as plain data with a readable form.

    Example:
        >>> interval(0.0, 12.5)["interval"], interval(None, 3.0)["interval"]
        ('[0, 12.5)', '(-∞, 3)')
    """
    left = "(-∞" if low is None else f"[{low:.6g}"
    right = "∞" if high is None else f"{high:.6g}"
    return {"low": low, "high": high, "interval": f"{left}, {right})"}


def restored_floats(values: Sequence[float | None]) -> Float64Array:
    """Floats from JSON data, where null stands for NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def room_for(vocab_size: int | None, known: int, most: int | None) -> int | None:
    """How many values an extension may add: ``most``, or what the spec's limit leaves.

    Example:
        >>> room_for(10, 8, None), room_for(10, 12, None), room_for(10, 10, 3)
        (2, 0, 3)
    """
    if most is not None or vocab_size is None:
        return most
    return max(0, vocab_size - known)
