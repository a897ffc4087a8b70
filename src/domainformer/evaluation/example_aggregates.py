"""The aggregates themselves, as polars expressions over one example's events in order of time.

They read a working frame (:mod:`~domainformer.evaluation.task_features` makes it): ``row`` of the
example, ``age`` of the event at the cut, ``visit`` (first event of its time: the lines of a basket
are one visit), numbers as ``n.<column>``, categories as ``c.<column>``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from domainformer.errors import DataError, nearest

ROW, AGE, VISIT = "row", "age", "visit"
# What describes a whole record, and drifts as records get longer: by timing, and by column.
TOTALS: Mapping[str, Sequence[str]] = {
    "timing": ("events", "visits", "age", "tenure", "age.mean", "age.median"),
    "column": ("count", "sum", "negative_sum", "first", "distinct", "entropy", "usual"),
}
_SMALL = 1e-9


def timing_aggregates(windows: Sequence[float]) -> list[pl.Expr]:
    """Counts, recency, tenure, rhythm of visits, and counts in windows and between them."""
    age, visits = pl.col(AGE), pl.col(AGE).filter(pl.col(VISIT))
    gap = -visits.diff()
    recency, tenure = age.min(), age.max() - age.min()
    expressions = {
        "events": pl.len(),
        "visits": pl.col(VISIT).sum(),
        "recency": recency,
        "age": age.max(),
        "tenure": tenure,
        "events.per_visit": pl.len() / pl.col(VISIT).sum(),
        "visits.rate": pl.col(VISIT).sum() / (age.max() + 1.0),
        "gap.mean": gap.mean(),
        "gap.std": gap.std(),
        "gap.variation": gap.std() / (gap.mean() + _SMALL),
        "gap.max": gap.max(),
        "gap.median": gap.median(),
        "gap.q90": gap.quantile(0.9),
        "gap.last": gap.last(),
        "gap.mean_of_last_3": gap.tail(3).mean(),
        "gap.trend": gap.tail(3).mean() / (gap.mean() + _SMALL),
        "recency.in_mean_gaps": recency / (gap.mean() + _SMALL),
        "recency.in_median_gaps": recency / (gap.median() + _SMALL),
        "recency.in_longest_gaps": recency / (gap.max() + _SMALL),
        "recency.share_of_gaps_longer": (gap > recency).mean(),
        "recency.visit_2": visits.get(-2, null_on_oob=True),
        "recency.visit_3": visits.get(-3, null_on_oob=True),
        "recency.visit_5": visits.get(-5, null_on_oob=True),
        "age.mean": age.mean(),
        "age.median": age.median(),
    }
    previous = 0.0
    for window in windows:
        inside, name = age <= window, _length(window)
        expressions |= {
            f"events.last_{name}": inside.sum(),
            f"visits.last_{name}": (inside & pl.col(VISIT)).sum(),
            f"events.last_{name}.share": inside.mean(),
            f"events.before_{_length(previous)}_in_{name}": (inside & (age > previous)).sum(),
            f"days.last_{name}": age.filter(inside).floor().n_unique(),
        }
        previous = window
    return [one.alias(name) for name, one in expressions.items()]


def number_aggregates(name: str, windows: Sequence[float], lags: int) -> list[pl.Expr]:
    """Moments, quantiles, ends, slope, windows with their trends, and the last values."""
    value, age = pl.col(f"n.{name}"), pl.col(AGE)
    present = value.drop_nulls()
    time = (-age).filter(value.is_not_null())
    expressions = {
        "count": value.count(),
        "sum": value.sum(),
        "mean": value.mean(),
        "std": value.std(),
        "min": value.min(),
        "q10": value.quantile(0.1),
        "median": value.median(),
        "q90": value.quantile(0.9),
        "max": value.max(),
        "magnitude": value.abs().mean(),
        "negative": (value < 0).mean(),
        "zero": (value == 0).mean(),
        "negative_sum": value.filter(value < 0).sum(),
        "distinct": present.n_unique(),
        "first": present.first(),
        "last": present.last(),
        "last_to_mean": present.last() - value.mean(),
        "last_in_deviations": (present.last() - value.mean()) / (value.std() + _SMALL),
        "change": value.diff().abs().mean(),
        "rises": (value.diff() > 0).mean(),
        "slope": pl.cov(present, time) / time.var(),
        "mean_of_last_3": value.tail(3).mean(),
        "mean_of_last_10": value.tail(10).mean(),
    }
    for window in windows:
        recent, length = value.filter(age <= window), _length(window)
        expressions |= {
            f"sum_last_{length}": recent.sum(),
            f"mean_last_{length}": recent.mean(),
            f"max_last_{length}": recent.max(),
            f"trend_{length}": recent.mean() - value.mean(),
            f"share_last_{length}": recent.abs().sum() / (value.abs().sum() + _SMALL),
        }
    for lag in range(1, lags + 1):
        expressions[f"lag_{lag}"] = value.get(-lag, null_on_oob=True)
    return [one.alias(f"{name}.{key}") for key, one in expressions.items()]


def label_aggregates(
    name: str, frequent: Sequence[str], windows: Sequence[float], top: int, *, shown: str
) -> list[pl.Expr]:
    """Variety, habit, the last and the usual value, shares and recency of frequent values."""
    value, age = pl.col(f"c.{name}"), pl.col(AGE)
    counts = value.value_counts().struct.field("count")
    rank = {one: place for place, one in enumerate(frequent)}

    def ranked(one: pl.Expr) -> pl.Expr:
        return one.replace_strict(list(rank), list(rank.values()), default=None)

    expressions = {
        "distinct": value.n_unique(),
        "missing": value.is_null().mean(),
        "last_is_missing": value.is_null().last(),
        "entropy": counts.entropy(base=2),
        "largest_share": counts.max() / pl.len(),
        "per_event": value.n_unique() / pl.len(),
        "repeats": (value == value.shift()).mean(),
        "last": ranked(value.last()) if rank else pl.lit(None, pl.Int64),
        "usual": ranked(value.drop_nulls().mode().sort().first())
        if rank
        else pl.lit(None, pl.Int64),
        "share_of_last": (value == value.last()).mean(),
    }
    for window in windows:
        expressions[f"distinct_last_{_length(window)}"] = value.filter(age <= window).n_unique()
    for place, one in enumerate(frequent[:top]):
        same = value == one
        expressions[f"share_{place:02d}.{one[:40]}"] = same.mean()
        expressions[f"recency_{place:02d}.{one[:40]}"] = age.filter(same).min()
    return [one.alias(f"{shown}.{key}") for key, one in expressions.items()]


def code_aggregates(
    working: pl.DataFrame, codes: Sequence[str], windows: Sequence[float]
) -> pl.DataFrame:
    """Statistics of ``value`` per ``code``: one row per example, ``<code>.<statistic>`` columns.

    A heart rate is no temperature: in a table of measurements each code is a variable of its own.
    """
    value, age = pl.col("value"), pl.col(AGE)
    statistics = {
        "count": value.count(),
        "mean": value.mean(),
        "std": value.std(),
        "min": value.min(),
        "max": value.max(),
        "median": value.median(),
        "first": value.first(),
        "last": value.last(),
        "change": value.last() - value.first(),
        "range": value.max() - value.min(),
        "slope": pl.cov(value, -age) / age.var(),
        "last_age": age.min(),
        "first_age": age.max(),
        "age_of_min": age.gather(value.arg_min()).first(),
        "age_of_max": age.gather(value.arg_max()).first(),
    }
    for window in windows:
        recent, length = value.filter(age <= window), _length(window)
        statistics |= {
            f"mean_last_{length}": recent.mean(),
            f"min_last_{length}": recent.min(),
            f"max_last_{length}": recent.max(),
        }
    known = working.filter(pl.col("code").is_in(codes) & value.is_not_null())
    long = known.group_by(ROW, "code", maintain_order=True).agg(
        one.alias(name) for name, one in statistics.items()
    )
    wide = known.select(ROW).unique(maintain_order=True)
    for code in codes:
        one = long.filter(pl.col("code") == code).drop("code")
        renamed = one.rename({name: f"{code}.{name}" for name in one.columns if name != ROW})
        wide = wide.join(renamed, on=ROW, how="left", maintain_order="left")
    return wide


def code_ratios(wide: pl.DataFrame, pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Add ratios of two codes' statistics, such as oxygen in the blood to oxygen breathed in.

    Low over high and high over low bound the ratio where both were not measured at one time.

    Raises:
        DataError: A pair names a code that has no statistics.
    """
    kinds = {"last": ("last", "last"), "mean": ("mean", "mean"), "median": ("median", "median")}
    kinds |= {"lowest": ("min", "max"), "highest": ("max", "min")}
    known = {name.rsplit(".", 1)[0] for name in wide.columns if "." in name}
    for code in (one for pair in pairs for one in pair):
        if code not in known:
            raise DataError(
                f"a ratio names a code without statistics: {code!r}",
                next_step=nearest(code, known),
            )
    return wide.with_columns(
        (pl.col(f"{above}.{one}") / pl.col(f"{below}.{other}")).alias(f"{above}/{below}.{kind}")
        for above, below in pairs
        for kind, (one, other) in kinds.items()
    )


def _length(window: float) -> str:
    """A window's length as a column name tells it.

    Example:
        >>> _length(30.0), _length(0.5)
        ('30', '0.5')
    """
    return f"{window:g}"
