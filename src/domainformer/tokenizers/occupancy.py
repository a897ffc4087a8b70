"""How often each token of a field was met in training data: what drift is measured against.

Bins and vocabularies are not known while the data is read, so counts come from two sides that meet
after the fit::

    counts_before_fit   nulls, signs, zeros, calendar parts: known without a fit    ╮
    the field's sketch  magnitudes, gaps, categories, whole numbers (its own fit)   ┴▶ Occupancy

`Occupancy.of_column` counts the same by encoding a column: the oracle of the other way, and what
a table is compared by later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.schema.fields import hash_token, unknown_token
from domainformer.tokenizers.base import MISSING, FieldTokenizer, Float64Array, Int64Array
from domainformer.tokenizers.fields import (
    BinTokenizer,
    CalendarTokenizer,
    CategoricalTokenizer,
    DiscreteTokenizer,
    ElapsedTimeTokenizer,
    MagnitudeBucketTokenizer,
    SignTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.fields.calendar import _YEARS
from domainformer.tokenizers.fields.columns import as_whole_numbers
from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.fields.elapsed import FIRST
from domainformer.tokenizers.fields.numeric import UNKNOWN
from domainformer.tokenizers.fields.shapes import SMALLEST
from domainformer.tokenizers.fields.source import SourceTokenizer
from domainformer.tokenizers.fields.text import MARKER
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer
from domainformer.tokenizers.statistics import CountSketch, QuantileSketch, Sketch, Weighted

ROWS, NULLS = "rows", "missing"
_NEGATIVE, _ZERO, _INFINITE, _FIRST = "negative", "zero", "infinite", "first"
# What a collapsed sketch knows of a value is less than this factor below it.
_BUCKET = 1 + 2.0**-10


@dataclass(frozen=True)
class Occupancy:
    """How often each local id of a field occurs.

    Args:
        counts: int64 by local id; hash buckets are counted as UNK, a text by its head alone.
        low: Smallest positive magnitude, gap, or calendar year that was seen; None where the
            field has no such range, or nothing was seen.
        high: The largest.
    """

    counts: Int64Array
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_column(cls, tokenizer: FieldTokenizer, column: pl.Series) -> Occupancy:
        """Count a column by encoding it."""
        if isinstance(tokenizer, TextTokenizer):
            rows = len(column)
            known = int(count_texts(column, field=tokenizer.spec.name)["count"].sum())
            return cls(np.array([rows - known, known]))
        local = np.asarray(tokenizer.encode(column)).reshape(-1)
        counts = np.bincount(local, minlength=len(tokenizer.vocab)).astype(np.int64)
        return cls(_folded(tokenizer, counts), *_ends(tokenizer, column))

    @classmethod
    def of_statistics(
        cls, tokenizer: FieldTokenizer, named: Mapping[str, int], sketch: Sketch
    ) -> Occupancy | None:
        """Count what a fit has seen; None for a kind of field whose sketch does not tell.

        Args:
            tokenizer: The fitted field.
            named: The sum of `counts_before_fit` over all of the data.
            sketch: What it was fitted from.
        """
        counts = np.zeros(len(tokenizer.vocab), np.int64)
        counts[MISSING] = named[NULLS]
        if isinstance(tokenizer, TextTokenizer):
            counts[MARKER] = named[ROWS] - named[NULLS]
        elif isinstance(tokenizer, SignTokenizer):
            counts[1:] = named[_NEGATIVE], named[ROWS] - named[NULLS] - named[_NEGATIVE]
        elif isinstance(tokenizer, CalendarTokenizer):
            return _calendar(tokenizer, named)
        elif isinstance(tokenizer, SourceTokenizer):
            counts[1:] = [named.get(f"source:{name}", 0) for name in tokenizer.names]
        elif isinstance(sketch, QuantileSketch) and isinstance(tokenizer, BinTokenizer):
            return _bins(tokenizer, named, sketch, counts)
        elif isinstance(sketch, CountSketch) and isinstance(
            tokenizer, (CategoricalTokenizer, DiscreteTokenizer)
        ):
            values, found, _ = sketch.frequent()
            known = tokenizer.encode(values)[:, 0]
            np.add.at(counts, known, found)
            counts = _folded(tokenizer, counts)
            counts[UNKNOWN] = 0
            counts[UNKNOWN] = named[ROWS] - counts.sum()
        else:
            return None
        return cls(counts)


def counts_before_fit(tokenizer: FieldTokenizer, column: pl.Series) -> dict[str, int]:
    """What can be counted in a column by a tokenizer that is not fitted yet.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> sign = SignTokenizer(FieldSpec("amount", "sign"))
        >>> counts_before_fit(sign, pl.Series([1.0, None, -2.0]))
        {'rows': 3, 'missing': 1, 'negative': 1}
    """
    counts = {ROWS: len(column), NULLS: column.null_count()}
    if isinstance(tokenizer, BinTokenizer):
        values = tokenizer.values(column)
        counts[NULLS] = int(np.isnan(values).sum())
        if isinstance(tokenizer, ElapsedTimeTokenizer):
            counts[_FIRST] = int((values == -np.inf).sum())
        elif isinstance(tokenizer, SignTokenizer):
            counts[_NEGATIVE] = int((values < 0).sum())
        if not isinstance(tokenizer, SignTokenizer):
            counts[_INFINITE] = int((values == np.inf).sum())
            counts[_ZERO] = int((values < SMALLEST).sum()) - counts.get(_FIRST, 0)
    elif isinstance(tokenizer, CalendarTokenizer):
        counts |= _calendar_counts(tokenizer, column)
    elif isinstance(tokenizer, SourceTokenizer):
        found = count_texts(column, field=tokenizer.spec.name)
        counts |= {f"source:{name}": count for name, count in found.select("value", "count").rows()}
    elif isinstance(tokenizer, DiscreteTokenizer):
        counts[NULLS] = int(as_whole_numbers(column, field=tokenizer.spec.name).missing.sum())
    elif column.dtype.is_float():
        counts[NULLS] += int(column.is_nan().sum())
    return counts


def _folded(tokenizer: FieldTokenizer, counts: Int64Array) -> Int64Array:
    """Counts in which hash buckets are UNK: both say that a value is outside the vocabulary."""
    if tokenizer.spec.hash_buckets and isinstance(tokenizer, CategoricalTokenizer):
        first = UNKNOWN + 1 + len(tokenizer.values)
        buckets = slice(first, first + tokenizer.spec.hash_buckets)
        counts[UNKNOWN] += counts[buckets].sum()
        counts[buckets] = 0
    return counts


def unknown_ids(tokenizer: FieldTokenizer) -> Int64Array:
    """Local ids that stand for a value without telling which: UNK and hash buckets."""
    if isinstance(tokenizer, SemanticIdTokenizer):
        # Each position has its own UNK, behind its MISSING.
        return np.array([slot.start + 1 for slot in tokenizer.slots])
    name = tokenizer.spec.name
    buckets = range(tokenizer.spec.hash_buckets)
    unknown = {unknown_token(name), *(hash_token(name, bucket) for bucket in buckets)}
    return np.flatnonzero([token in unknown for token in tokenizer.vocab])


def _bins(
    tokenizer: BinTokenizer, named: Mapping[str, int], sketch: QuantileSketch, counts: Int64Array
) -> Occupancy:
    # Subnormal magnitudes are zero to the bins, and were counted as such.
    positive = sketch.counted().at_least(SMALLEST)
    values = positive.values
    if isinstance(tokenizer, ElapsedTimeTokenizer):
        counts[FIRST] = named[_FIRST]
        counts[FIRST + 1] = named[_ZERO]
        # No gap lies between zero and the shortest, though the end of its bucket may.
        values = np.maximum(values, tokenizer.edges[1])
    else:
        counts[1] = named[_ZERO]
    np.add.at(counts, 1 + np.searchsorted(tokenizer.edges, values, side="right"), positive.counts)
    counts[len(tokenizer.edges) + 1] += named[_INFINITE]
    low, high = _range(positive)
    if high is not None and sketch.collapsed:
        high *= _BUCKET
    return Occupancy(counts, low, high)


def _range(positive: Weighted) -> tuple[float | None, float | None]:
    if not positive.total:
        return None, None
    return float(positive.values[0]), float(positive.values[-1])


def _ends(tokenizer: FieldTokenizer, column: pl.Series) -> tuple[float | None, float | None]:
    """Smallest and largest of a column, where the field has a range."""
    if isinstance(tokenizer, (MagnitudeBucketTokenizer, ElapsedTimeTokenizer)):
        values = positive_values(tokenizer, column)
        return (float(values.min()), float(values.max())) if len(values) else (None, None)
    dated = isinstance(tokenizer, CalendarTokenizer) and "year" in tokenizer.parts
    if dated and len(column) > column.null_count():
        years = column.dt.year()
        return float(years.min()), float(years.max())  # type: ignore[arg-type]
    return None, None


def outside_range(
    tokenizer: FieldTokenizer, part: str, column: pl.Series, ends: tuple[float, float] | None
) -> tuple[int, int] | None:
    """How many of a column's values lie outside of a range, and of how many; None without one.

    Args:
        tokenizer: The fitted field.
        part: The position; a year is compared with the ten years that have tokens.
        column: What it reads.
        ends: Smallest and largest value of the fit.
    """
    if isinstance(tokenizer, CalendarTokenizer):
        if part != "year":
            return None
        years = column.drop_nulls().dt.year().to_numpy()
        first = tokenizer.anchor
        return int(((years < first) | (years > first + _YEARS - 1)).sum()), len(years)
    if ends is None or not isinstance(tokenizer, (MagnitudeBucketTokenizer, ElapsedTimeTokenizer)):
        return None
    values = tokenizer.values(column)
    known = values[values >= SMALLEST]
    return int(((known < ends[0]) | (known > ends[1])).sum()), len(known)


def positive_values(tokenizer: BinTokenizer, column: pl.Series) -> Float64Array:
    """The finite magnitudes or gaps above zero."""
    values = tokenizer.values(column)
    return values[(values >= SMALLEST) & (values < np.inf)]


def _calendar_counts(tokenizer: CalendarTokenizer, column: pl.Series) -> dict[str, int]:
    """Counts of every part's values; of years as they are, since the anchor is not known yet."""
    scratch = CalendarTokenizer(tokenizer.spec)._built(0)
    codes, table = scratch.codes(column)
    weights = np.bincount(codes, minlength=len(table))
    counts: dict[str, int] = {}
    for position, slot in enumerate(scratch.slots):
        if slot.part == "year":
            continue
        found = np.zeros(slot.stop - slot.start, np.int64)
        np.add.at(found, table[:, position] - slot.start, weights)
        counts |= {f"{slot.part}:{i}": n for i, n in enumerate(found.tolist()) if n}
    if "year" in tokenizer.parts and len(column) > column.null_count():
        years = column.drop_nulls().dt.year().value_counts(name="n")
        counts |= {f"year:{year}": n for year, n in years.rows()}
    return counts


def _calendar(tokenizer: CalendarTokenizer, named: Mapping[str, int]) -> Occupancy:
    counts = np.zeros(len(tokenizer.vocab), np.int64)
    first: npt.NDArray[Any] = np.array([slot.start for slot in tokenizer.slots])
    starts = dict(zip(tokenizer.parts, first.tolist(), strict=True))
    years = []
    for name, count in named.items():
        part, _, value = name.partition(":")
        if part == "year":
            years.append(int(value))
            value = str(min(max(int(value) - tokenizer.anchor, 0), _YEARS - 1) + 1)
        if value and part in starts:
            counts[starts[part] + int(value)] += count
    if "year" in starts:
        counts[starts["year"]] = named[NULLS]
    if not years:
        return Occupancy(counts)
    return Occupancy(counts, float(min(years)), float(max(years)))
