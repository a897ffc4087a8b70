"""How columns depend on each other: codes and their names, levels of a hierarchy, identifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import polars as pl

from domainformer.schema.decide import decide
from domainformer.schema.fields import FieldType
from domainformer.schema.profile import ColumnProfile, number, share

#: Larger tables are thinned evenly to about this many rows before columns are compared.
SAMPLE_ROWS = 500_000
#: From this strength on, one column (almost) wholly determines another.
DETERMINES = 0.97
#: From this strength on, the dependence is worth telling.
WORTH_TELLING = 0.90
#: Vocabularies up to this size keep the readable name of a code, larger ones the code.
READABLE_LIMIT = 2_000


@dataclass(frozen=True)
class Relation:
    """How well each of two columns tells the other, from 0 (no better than chance) to 1."""

    a: str
    b: str
    a_tells_b: float
    b_tells_a: float

    @property
    def one_to_one(self) -> bool:
        """Whether each (almost) determines the other."""
        return min(self.a_tells_b, self.b_tells_a) >= DETERMINES


def thin(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame itself, or evenly spaced rows of a large one."""
    return frame.gather_every(max(1, -(-frame.height // SAMPLE_ROWS)))


def coded(series: pl.Series) -> pl.Series:
    """A column as cheap keys: strings become 64-bit hashes, nulls stay null."""
    if series.dtype != pl.String:
        return series
    return series.hash().zip_with(series.is_not_null(), pl.Series([None], dtype=pl.UInt64))


def relate(a: pl.Series, b: pl.Series) -> Relation:
    """Measure the dependence between two columns, on rows where neither is null.

    The strength of a → b is Goodman and Kruskal's lambda: with the most frequent b for each a,
    the share of mistakes that remain out of those of the most frequent b alone, taken from one.

    Source: Goodman and Kruskal, "Measures of association for cross classifications", 1954, §5.

    Example:
        >>> city = pl.Series("city", ["Rome", "Milan", "Paris", "Rome"])
        >>> country = pl.Series("country", ["it", "it", "fr", "it"])
        >>> relation = relate(city, country)
        >>> relation.a_tells_b, relation.b_tells_a
        (1.0, 0.5)
    """
    pairs = (
        pl.DataFrame({"a": coded(a), "b": coded(b)})
        .drop_nulls()
        .group_by("a", "b")
        .agg(pl.len().alias("n"))
    )
    return Relation(a.name, b.name, _lambda(pairs, "a", "b"), _lambda(pairs, "b", "a"))


def _lambda(pairs: pl.DataFrame, given: str, told: str) -> float:
    total = number(pairs["n"].sum())
    right = number(pairs.group_by(given).agg(pl.col("n").max())["n"].sum())
    base = number(pairs.group_by(told).agg(pl.col("n").sum())["n"].max())
    return (right - base) / (total - base) if total > base else 0.0


def relations(frame: pl.DataFrame, columns: Sequence[str]) -> list[Relation]:
    """The dependences worth telling among label-like columns, each pair once."""
    found = [relate(frame[a], frame[b]) for a, b in combinations(columns, 2)]
    return [r for r in found if max(r.a_tells_b, r.b_tells_a) >= WORTH_TELLING]


def redundant(relation: Relation, profiles: Mapping[str, ColumnProfile]) -> tuple[str, str] | None:
    """Which of two columns can go (dropped, kept), or None where both say something.

    A code and its name are one thing. A coarser level of a hierarchy (at most half as many
    values) stays: it comes first in the event and helps to predict the finer one.
    """
    a, b = profiles[relation.a], profiles[relation.b]
    if relation.one_to_one:
        kept = _preferred(a, b)
    elif relation.a_tells_b >= DETERMINES and 2 * b.distinct > a.distinct:
        kept = a
    elif relation.b_tells_a >= DETERMINES and 2 * a.distinct > b.distinct:
        kept = b
    else:
        return None
    dropped = b if kept is a else a
    # A column with gaps cannot stand in for one without.
    if kept.null_share > dropped.null_share + 0.01:
        return (kept.column, dropped.column) if relation.one_to_one else None
    return dropped.column, kept.column


def _preferred(a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    """The readable one of a small vocabulary, the shorter one of a large vocabulary.

    A name that would be read as text, where its code is a category, gives way to the code.
    """
    text = [decide(p).fields[-1].field_type is FieldType.TEXT for p in (a, b)]
    if text[0] != text[1]:
        return b if text[0] else a
    if max(a.distinct, b.distinct) <= READABLE_LIMIT:
        return b if b.letters > a.letters else a
    if a.kind != b.kind and "string" in (a.kind, b.kind):
        return a if a.kind != "string" else b
    return b if b.length < a.length else a


def never_returns(frame: pl.DataFrame, column: str, keys: Sequence[str]) -> bool:
    """Whether (almost) no value occurs at more than one (entity, time): it numbers the events.

    Example:
        >>> table = pl.DataFrame({"who": [1, 1, 2], "when": [1, 2, 1], "invoice": [7, 8, 9]})
        >>> never_returns(table, "invoice", ["who", "when"])
        True
    """
    keyed = frame.select(coded(frame[name]) for name in (column, *keys)).drop_nulls(column)
    values = keyed[column].n_unique()
    return values > 1 and keyed.n_unique() <= 1.05 * values


def same_values(a: pl.Series, b: pl.Series) -> float:
    """Share of the rows, where both have a value, in which two columns of one kind are equal.

    A date equals a datetime of the same day.
    """
    if pl.Date in (a.dtype, b.dtype):
        a, b = a.cast(pl.Date), b.cast(pl.Date)
    return share(a == b)


def explained_scale(numbers: pl.Series, labels: pl.Series) -> float:
    """How much of the variance of log(1 + |x|) the labels explain (η², from 0 to 1).

    Near one where the label tells the unit: heart rates and temperatures in one column.
    """
    frame = pl.DataFrame({"x": numbers.cast(pl.Float64).abs().log1p(), "g": coded(labels)})
    frame = frame.filter(pl.col("x").is_finite())
    total = number(frame["x"].var(ddof=0))
    if not total:
        return 0.0
    groups = frame.group_by("g").agg(n=pl.len(), v=pl.col("x").var(ddof=0))
    within = (groups["n"] * groups["v"]).sum() / frame.height
    return max(0.0, 1 - number(within) / total)
