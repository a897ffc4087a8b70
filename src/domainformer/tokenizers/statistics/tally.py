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

# Batches are added up once they hold so many rows, or so many bytes of text, or are so many.
_MOST_ROWS, _MOST_BYTES, _MOST_PARTS = 1 << 18, 1 << 25, 256
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
        self._ordered = True
        self._pending: list[pl.DataFrame] = []
        self._rows = self._bytes = 0

    def add(self, counted: pl.DataFrame) -> bool:
        """Add distinct values with counts; whether enough has come together to check the size."""
        counted = self._compacted(counted)
        if self.kind == "text":
            self._bytes += int(counted[VALUE].str.len_bytes().sum())
        self._pending.append(counted)
        self._rows += counted.height
        enough = max(_MOST_ROWS, self._kept.height)
        return self._rows > enough or self._bytes > _MOST_BYTES or len(self._pending) >= _MOST_PARTS

    @property
    def unordered(self) -> pl.DataFrame:
        """Columns ``value``, ``count`` and, where asked for, ``estimate``, in any order."""
        if self._pending:
            parts = [part for part in (self._kept, *self._pending) if part.height]
            self._pending, self._rows, self._bytes = [], 0, 0
            if len(parts) > 1:
                joined = pl.concat(parts)
                numbers = [pl.col(COUNT).sum()]
                if ESTIMATE in joined.columns:
                    numbers.append(pl.col(ESTIMATE).max())  # all are equal
                parts = [self._compacted(joined.group_by(VALUE).agg(numbers))]
            if parts:
                self._kept, self._ordered = parts[0], False
        return self._kept

    @property
    def frame(self) -> pl.DataFrame:
        """The same, by increasing values."""
        counted = self.unordered
        if not self._ordered:
            self._kept, self._ordered = counted.sort(VALUE), True
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
        values = self.unordered[VALUE]
        if self.kind == "integer" or not len(values):
            return len(values)
        return max(len(values), int(values.str.len_bytes().sum()) // _BYTES_PER_VALUE)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forget the values where ``mask``, by the rows of `unordered`, is false."""
        self._kept = self._compacted(self.unordered.filter(pl.Series(mask)))

    def _compacted(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(compact(frame[VALUE])) if self.kind == "text" else frame

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


def compact(texts: pl.Series) -> pl.Series:
    """The same strings, in memory of their own.

    A string of a polars column is a place in a buffer that it shares with the column it was taken
    from, so that a single one can keep a whole file in memory.

    Example:
        >>> many = pl.Series(["a long merchant name", "another long name"] * 1000)
        >>> compact(many[:1]).to_arrow().buffers()[-1].size
        20
    """
    copied = texts.to_arrow(compat_level=pl.CompatLevel.oldest())  # not views, but one run of bytes
    return pl.Series(texts.name, copied, dtype=pl.String)
