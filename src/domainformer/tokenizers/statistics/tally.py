"""Exact counts of distinct values: a sorted column and its counts, added to in batches."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.tokenizers.statistics.base import Int64Array, pack_texts, unpack_texts

VALUE, COUNT, ESTIMATE = "value", "count", "estimate"
ValueKind = Literal["text", "integer"]
DTYPES: dict[str, type[pl.String] | type[pl.Int64]] = {"text": pl.String, "integer": pl.Int64}

# Batches are added up once they hold this many rows together.
_MOST_PENDING = 1 << 18
_BYTES_PER_VALUE = 64


class Tally:
    """Distinct strings or 64-bit integers in increasing order, and how often each occurs.

    Strings are in the order of their UTF-8 bytes, which is the order of their code points.

    Args:
        kind: ``"text"`` or ``"integer"``.
        estimated: Whether each value has an estimate of its count beside it.

    Example:
        >>> tally = Tally("text")
        >>> _ = tally.add(pl.DataFrame({"value": ["b", "a"], "count": [2, 1]}))
        >>> _ = tally.add(pl.DataFrame({"value": ["b"], "count": [1]}))
        >>> tally.values.to_list(), tally.counts.tolist()
        (['a', 'b'], [1, 3])
    """

    def __init__(self, kind: ValueKind, *, estimated: bool = False) -> None:
        self.kind: ValueKind = kind
        numbers = (COUNT, ESTIMATE) if estimated else (COUNT,)
        self._kept = pl.DataFrame(
            schema={VALUE: DTYPES[kind], **dict.fromkeys(numbers, pl.Int64())}
        )
        self._pending: list[pl.DataFrame] = []
        self._rows = 0

    def add(self, counted: pl.DataFrame) -> bool:
        """Add distinct values with counts; whether enough has come together to check the size."""
        self._pending.append(counted)
        self._rows += counted.height
        return self._rows > max(_MOST_PENDING, self._kept.height)

    @property
    def frame(self) -> pl.DataFrame:
        """Columns ``value`` (increasing), ``count`` and, where asked for, ``estimate``."""
        if self._pending:
            parts = pl.concat([self._kept, *self._pending])
            numbers = [pl.col(COUNT).sum()]
            if ESTIMATE in parts.columns:
                numbers.append(pl.col(ESTIMATE).max())  # all are equal
            self._kept = parts.group_by(VALUE).agg(numbers).sort(VALUE)
            self._pending, self._rows = [], 0
        return self._kept

    @property
    def values(self) -> pl.Series:
        """The distinct values in increasing order."""
        return self.frame[VALUE]

    @property
    def counts(self) -> Int64Array:
        """How often each occurs."""
        return self.frame[COUNT].to_numpy()

    @property
    def size(self) -> int:
        """Number of values, or of times 64 bytes that their texts fill, whichever is larger.

        Example:
            >>> tally = Tally("text")
            >>> _ = tally.add(pl.DataFrame({"value": ["a", "b" * 640], "count": [1, 1]}))
            >>> tally.size
            10
        """
        values = self.values
        if self.kind == "integer" or not len(values):
            return len(values)
        return max(len(values), int(values.str.len_bytes().sum()) // _BYTES_PER_VALUE)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forget the values where ``mask`` is false."""
        self._kept = self.frame.filter(pl.Series(mask))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Values, counts and estimates as arrays."""
        values, *numbers = self.frame.get_columns()
        packed = pack_texts(values) if self.kind == "text" else {"numbers": values.to_numpy()}
        return packed | {column.name: column.to_numpy() for column in numbers}

    @classmethod
    def of_arrays(cls, kind: ValueKind, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """The tally that `arrays` was made of."""
        tally = cls(kind)
        values = unpack_texts(arrays) if kind == "text" else pl.Series(arrays["numbers"])
        numbers = {name: arrays[name] for name in (COUNT, ESTIMATE) if name in arrays}
        tally._kept = pl.DataFrame({VALUE: values, **numbers})
        return tally
