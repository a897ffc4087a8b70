"""Hand-made aggregates: the features an analyst would write before trying a Transformer.

One row per entity, a few hundred columns, made from the columns that the schema names and from
nothing else: how many events, how recent, how regular, how large, of which kinds, and how the last
part of the history differs from the whole. They are the honest opponent of learned embeddings.

No look-ahead: an aggregate is a function of the events in the table that is given. For a task with
a cut-off date, give the events before it (``table.filter(...)``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.errors import SchemaError
from domainformer.schema import DomainSchema, FieldType

# Names inside the working frame; a source column is prefixed by its role, so they cannot clash.
_ENTITY, _TIME, _GAP, _AGE, _BACK = "entity", "time", "gap", "age", "back"
_TAILS = (3, 10)
_WINDOWS = (2, 4, 8, 32)
_NUMERIC = (FieldType.NUMERICAL_CONTINUOUS, FieldType.NUMERICAL_DISCRETE, FieldType.SIGN)


def aggregate_features(
    table: EventTable, schema: DomainSchema, *, top: int = 20, crossed: int = 600
) -> pl.DataFrame:
    """Aggregates per entity, as float32 columns for a gradient-boosted tree.

    - counts, recency (to the table's last time), tenure, gaps, events in trailing windows of 1/2,
      1/4, 1/8 and 1/32 of the table's time span;
    - per numeric column: moments, quantiles, first, last, slope over the position, mean of the
      last 3 and 10 events, sums and counts in the windows;
    - per categorical or text column: distinct values, entropy, share of repeats, last value, and
      the shares of the ``top`` most frequent values;
    - per pair of a categorical and a numeric column: mean, min, max, last and count of the number
      for each frequent category;
    - shares per calendar part that the schema shows.

    Args:
        table: The events that may be seen.
        schema: Which columns count, and as what.
        top: Frequent values of a categorical column that get a share of their own.
        crossed: At most about this many columns in all for pairs of columns.

    Returns:
        One row per entity in table order: the entity column, then float32 features. What cannot
        be computed (the mean of no value) is null, which trees handle.

    Raises:
        SchemaError: The schema names a column that the table lacks.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> events = pl.DataFrame({"card": [1, 1, 2], "day": [1, 3, 2], "amount": [5.0, 7.0, 1.0]})
        >>> table = EventTable.of(events, entity="card", time="day")
        >>> schema = DomainSchema("cards", [FieldSpec("amount", "numerical_continuous")])
        >>> features = aggregate_features(table, schema)
        >>> features.select("card", "events", "amount.mean", "recency").rows()
        [(1, 2.0, 6.0, 0.0), (2, 1.0, 1.0, 1.0)]
    """
    numeric, labels = _columns(table, schema)
    frame = _working_frame(table, numeric, labels)
    grouped = frame.group_by(_ENTITY, maintain_order=True)
    span = _window_lengths(frame)
    expressions = [pl.len().alias("events"), *_timing(span)]
    for name in numeric:
        expressions += _numeric(name, span)
    for name in labels:
        expressions += _labels(frame, name, top)
    expressions += _calendar_shares(schema)
    parts = [grouped.agg(expressions)]
    parts += _crossed(frame, numeric, labels, crossed)
    features = parts[0]
    for part in parts[1:]:
        features = features.join(part, on=_ENTITY, how="left", maintain_order="left")
    names = [name for name in features.columns if name != _ENTITY]
    clean = [_finite(name) for name in names]
    return features.select(clean).insert_column(0, table.entity_ids.rename(table.entity))


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float32)
    return pl.when(value.is_finite()).then(value).alias(name)


def _columns(table: EventTable, schema: DomainSchema) -> tuple[list[str], list[str]]:
    """Numeric and label-like source columns, each once (a sign and an amount share one)."""
    numeric: dict[str, None] = {}
    labels: dict[str, None] = {}
    for spec in schema.fields:
        if spec.source not in table.frame.columns:
            raise SchemaError(
                f"the schema reads a column that the table lacks: {spec.source!r}",
                where=f"field {spec.name!r}",
                next_step=f"the table has: {', '.join(table.frame.columns)}",
            )
        if spec.field_type in _NUMERIC:
            numeric[spec.source] = None
        elif spec.field_type is not FieldType.TEMPORAL:
            labels[spec.source] = None
    return list(numeric), list(labels)


def _working_frame(
    table: EventTable, numeric: Sequence[str], labels: Sequence[str]
) -> pl.DataFrame:
    """Entity number, time, gap, age and position from the end, then ``n.`` and ``c.`` columns."""
    lengths = np.diff(table.offsets)
    entity = np.repeat(np.arange(table.n_entities), lengths)
    position = np.arange(table.n_events) - np.repeat(table.offsets[:-1], lengths)
    times = table.time_values.astype(np.float64)
    known = table.time_values != np.iinfo(np.int64).min
    times = position.astype(np.float64) if not known.any() else np.where(known, times, np.nan)
    scale = 1e6 if table.time_kind in ("date", "datetime") else 1.0
    columns: dict[str, pl.Series] = {
        _ENTITY: pl.Series(entity, dtype=pl.Int64),
        "position": pl.Series(position, dtype=pl.Int32),
        _BACK: pl.Series(np.repeat(lengths, lengths) - 1 - position, dtype=pl.Int32),
        _TIME: pl.Series(times / scale, dtype=pl.Float64).fill_nan(None),
        _GAP: table.elapsed().cast(pl.Float64),
    }
    for name in numeric:
        columns[f"n.{name}"] = table.frame[name].cast(pl.Float64, strict=False).fill_nan(None)
    for name in labels:
        columns[f"c.{name}"] = table.frame[name].cast(pl.String, strict=False)
    frame = pl.DataFrame(columns)
    return frame.with_columns((pl.col(_TIME).max() - pl.col(_TIME)).alias(_AGE))


def _window_lengths(frame: pl.DataFrame) -> list[float]:
    span = frame[_AGE].max()
    return [float(span) / part for part in _WINDOWS] if isinstance(span, float) and span > 0 else []


def _timing(windows: Iterable[float]) -> list[pl.Expr]:
    gap, age = pl.col(_GAP), pl.col(_AGE)
    expressions = [
        age.min().alias("recency"),
        (age.max() - age.min()).alias("tenure"),
        (pl.len() / (age.max() - age.min() + 1.0)).alias("rate"),
        gap.mean().alias("gap.mean"),
        gap.std().alias("gap.std"),
        gap.max().alias("gap.max"),
        gap.median().alias("gap.median"),
        gap.last().alias("gap.last"),
        (gap == 0).mean().alias("gap.zero"),
        (age.min() / gap.mean()).alias("recency.in_gaps"),
    ]
    for part, window in zip(_WINDOWS, windows, strict=False):
        inside = age <= window
        expressions += [
            inside.sum().alias(f"events.last_1/{part}"),
            inside.mean().alias(f"events.last_1/{part}.share"),
        ]
    return expressions


def _numeric(name: str, windows: Sequence[float]) -> list[pl.Expr]:
    value, position = pl.col(f"n.{name}"), pl.col("position").cast(pl.Float64)
    present = value.drop_nulls()
    shape = {
        "count": value.count(),
        "missing": value.is_null().mean(),
        "sum": value.sum(),
        "mean": value.mean(),
        "std": value.std(),
        "min": value.min(),
        "q10": value.quantile(0.1),
        "median": value.median(),
        "q90": value.quantile(0.9),
        "max": value.max(),
        "skew": value.skew(),
        "magnitude": value.abs().mean(),
        "zero": (value == 0).mean(),
        "negative": (value < 0).mean(),
        "distinct": present.n_unique(),
        "first": present.first(),
        "last": present.last(),
        "last_to_mean": present.last() - value.mean(),
        "change": value.diff().abs().mean(),
        "slope": pl.cov(value, position) / position.filter(value.is_not_null()).var(),
    }
    expressions = [one.alias(f"{name}.{key}") for key, one in shape.items()]
    for tail in _TAILS:
        recent = value.filter(pl.col(_BACK) < tail)
        expressions.append(recent.mean().alias(f"{name}.mean_of_last_{tail}"))
    for part, window in zip(_WINDOWS, windows, strict=False):
        recent = value.filter(pl.col(_AGE) <= window)
        expressions += [
            recent.sum().alias(f"{name}.sum_last_1/{part}"),
            (recent.mean() - value.mean()).alias(f"{name}.trend_1/{part}"),
        ]
    return expressions


def _labels(frame: pl.DataFrame, name: str, top: int) -> list[pl.Expr]:
    value = pl.col(f"c.{name}")
    counts = value.value_counts().struct.field("count")
    known = _most_frequent(frame[f"c.{name}"], top)
    rank = frame[f"c.{name}"].drop_nulls().value_counts(sort=True)[f"c.{name}"].to_list()
    expressions = [
        value.n_unique().alias(f"{name}.distinct"),
        value.is_null().mean().alias(f"{name}.missing"),
        counts.entropy(base=2).alias(f"{name}.entropy"),
        (counts.max() / pl.len()).alias(f"{name}.largest_share"),
        (value == value.shift()).mean().alias(f"{name}.repeats"),
        value.last().replace_strict(rank, range(len(rank)), default=None).alias(f"{name}.last"),
    ]
    for index, category in enumerate(known):
        same = value == category
        expressions.append(same.mean().alias(f"{name}.share_{index:02d}.{category[:40]}"))
    return expressions


def _most_frequent(values: pl.Series, top: int) -> list[str]:
    """The most frequent values; ties in alphabetical order, so that columns are stable."""
    counts = values.drop_nulls().rename("value").value_counts(name="count")
    return counts.sort(["count", "value"], descending=[True, False])["value"].head(top).to_list()


def _calendar_shares(schema: DomainSchema) -> list[pl.Expr]:
    """Shares of weekdays, months and quarters of the day, from the table's own time."""
    parts = {
        part
        for spec in schema.fields
        if spec.field_type is FieldType.TEMPORAL
        for part in spec.calendar_fields
    }
    days = (pl.col(_TIME) / 86400.0).floor()
    shares: list[pl.Expr] = []
    if "dow" in parts:  # 1970-01-01 was a Thursday
        dow = (days + 3) % 7
        shares += [(dow == day).mean().alias(f"time.dow_{day + 1}") for day in range(7)]
    if "hour" in parts:
        hour = (pl.col(_TIME) - days * 86400.0) / 3600.0
        shares += [
            hour.is_between(6 * q, 6 * q + 6, closed="left").mean().alias(f"time.hour_{6 * q:02d}")
            for q in range(4)
        ]
        shares.append(hour.mean().alias("time.hour_mean"))
    if "dom" in parts:
        dom = pl.from_epoch(pl.col(_TIME).cast(pl.Int64), time_unit="s").dt.day()
        shares += [dom.mean().alias("time.dom_mean"), (dom <= 5).mean().alias("time.dom_early")]
    return shares


def _crossed(
    frame: pl.DataFrame, numeric: Sequence[str], labels: Sequence[str], limit: int
) -> list[pl.DataFrame]:
    """Statistics of a number within each frequent category: a heart rate is not a temperature."""
    pairs = [(label, number) for label in labels for number in numeric]
    if not pairs:
        return []
    per_pair = max(1, limit // (6 * len(pairs)))
    parts = []
    for label, number in pairs:
        known = _most_frequent(frame[f"c.{label}"], per_pair)
        value = pl.col(f"n.{number}")
        present = value.drop_nulls()
        long = (
            frame.filter(pl.col(f"c.{label}").is_in(known))
            .group_by(_ENTITY, f"c.{label}", maintain_order=True)
            .agg(
                value.mean().alias("mean"),
                value.std().alias("std"),
                value.min().alias("min"),
                value.max().alias("max"),
                present.first().alias("first"),
                present.last().alias("last"),
            )
        )
        for index, category in enumerate(known):
            one = long.filter(pl.col(f"c.{label}") == category).drop(f"c.{label}")
            stem = f"{number}.where_{label}_{index:02d}.{category[:40]}"
            parts.append(one.rename({c: f"{stem}.{c}" for c in one.columns if c != _ENTITY}))
    return parts
