"""What can be measured about one column: the facts behind every proposed field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

Kind = Literal["boolean", "integer", "float", "string", "date", "datetime", "other"]

#: A share of rows with a time other than midnight from which a datetime has times of day.
TIME_OF_DAY_SHARE = 0.01


@dataclass(frozen=True)
class ColumnProfile:
    """Facts about one column of ``rows`` events; shares are of the rows that are not null.

    Attributes:
        column: The column's name.
        dtype: Its polars type, as text.
        kind: Its family of types.
        rows: Number of events.
        null_share: Share of events without a value (NaN counts as none).
        distinct: Number of different values.
        minimum: The smallest value (numbers and times).
        maximum: The largest value (numbers and times).
        negative_share: Share of values below zero (numbers).
        zero_share: Share of values that are exactly zero (numbers).
        skew: Sample skewness of the finite values (numbers).
        whole: Whether every value is a whole number.
        top: The most frequent value (strings and booleans).
        top_share: Its share.
        stability: Share of events whose value equals the one of the entity's previous event
            (None: no entity has two events).
        words: Share of the different strings that contain a blank between two words.
        letters: Mean number of letters in the different strings.
        length: Mean number of characters in the different strings.
        length_95: Their 95 % quantile, weighted by how often each occurs.
        looks_like: ``"numbers"`` or ``"dates"`` where nearly all strings are spelt like these.
    """

    column: str
    dtype: str
    kind: Kind
    rows: int
    null_share: float
    distinct: int
    minimum: Any = None
    maximum: Any = None
    negative_share: float = 0.0
    zero_share: float = 0.0
    skew: float | None = None
    whole: bool = False
    top: str | None = None
    top_share: float = 0.0
    stability: float | None = None
    words: float = 0.0
    letters: float = 0.0
    length: float = 0.0
    length_95: int = 0
    looks_like: str | None = None

    @property
    def repeats(self) -> float:
        """Mean number of events that share one value."""
        return self.rows * (1 - self.null_share) / self.distinct if self.distinct else 0.0

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return self.kind in ("integer", "float")

    @property
    def is_static(self) -> bool:
        """Whether the value never changes within an entity."""
        return self.stability == 1.0


@dataclass(frozen=True)
class TimeProfile:
    """Facts about the times of the events.

    Attributes:
        kind: ``"date"``, ``"datetime"`` or ``"integer"``.
        span_days: Days from the first to the last time (calendar times).
        latest: The last time (raw units).
        parts: Number of different values of each calendar part that occur.
        monthly: All dates fall on one day of the month, or on ends of months.
        time_of_day: Times other than midnight occur, at more than one hour.
        step_low: 1 % quantile of the time since the entity's previous event (raw units).
        step_high: Its 99 % quantile.
        tie_share: Share of events at the same time as the entity's previous one.
    """

    kind: Literal["date", "datetime", "integer"]
    span_days: float
    latest: float
    parts: dict[str, int]
    monthly: bool
    time_of_day: bool
    step_low: float | None
    step_high: float | None
    tie_share: float

    @property
    def regular(self) -> bool:
        """Whether events follow each other at (nearly) one step, so that elapsed time is noise."""
        if self.step_low is None or self.step_high is None:
            return True
        return self.step_high <= 1.2 * self.step_low or self.step_high == 0


def kind_of(dtype: pl.DataType) -> Kind:
    """The family of types that a column belongs to."""
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "string"
    if dtype == pl.Date:
        return "date"
    return "datetime" if dtype == pl.Datetime else "other"


def words_of(name: str) -> list[str]:
    """The words of a column name, in lower case.

    Example:
        >>> words_of("CustomerID"), words_of("unit price (£)")
        (['customer', 'id'], ['unit', 'price'])
    """
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W_]+", split.lower())


def _type_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return f"Datetime({dtype.time_unit}{', ' + dtype.time_zone if dtype.time_zone else ''})"
    return str(dtype)


def profile_column(series: pl.Series, follows: pl.Series | None = None) -> ColumnProfile:
    """Measure one column.

    Args:
        series: The column, in the order of the events.
        follows: For each event, whether the one before it belongs to the same entity.

    Example:
        >>> profile_column(pl.Series("amount", [1.0, -2.5, None, 4.0])).negative_share
        0.3333333333333333
    """
    series = normalised(series)
    kind = kind_of(series.dtype)
    values = series.drop_nulls()
    facts: dict[str, Any] = {}
    if kind in ("string", "boolean"):
        facts = _label_facts(values.cast(pl.String))
    elif kind in ("integer", "float"):
        facts = _number_facts(values)
    elif kind in ("date", "datetime"):
        facts = {"minimum": values.min(), "maximum": values.max(), "distinct": values.n_unique()}
    elif len(values):
        facts = {"distinct": 1}
    return ColumnProfile(
        column=series.name,
        dtype=_type_name(series.dtype),
        kind=kind,
        rows=len(series),
        null_share=1 - len(values) / len(series) if len(series) else 1.0,
        stability=None if kind == "other" else _stability(series, follows),
        **{"distinct": 0, **facts},
    )


def normalised(series: pl.Series) -> pl.Series:
    """NaN becomes null, decimals become floats, dictionary types become strings."""
    if series.dtype.is_decimal():
        series = series.cast(pl.Float64)
    if series.dtype.is_float():
        return series.fill_nan(None)
    return series.cast(pl.String) if series.dtype in (pl.Categorical, pl.Enum) else series


def percent(part: float) -> str:
    """A share as a percentage that never rounds something to nothing.

    Example:
        >>> percent(0.5), percent(0.00001), percent(1.0)
        ('50.0%', '0.001%', '100%')
    """
    if part in (0.0, 1.0):
        return f"{100 * part:.0f}%"
    digits = 1 if 0.0005 <= part <= 0.9995 else 3
    return f"{100 * part:.{digits}f}%"


def number(value: Any) -> float:
    """What polars computed, as a float (nothing: zero)."""
    return float(value) if value is not None else 0.0


def share(values: pl.Series) -> float:
    """The mean of numbers, or the share of true values (nothing: zero)."""
    return number(values.mean())


def _stability(series: pl.Series, follows: pl.Series | None) -> float | None:
    if follows is None or not follows.any():
        return None
    return share(series.eq_missing(series.shift(1)).filter(follows))


def _label_facts(values: pl.Series) -> dict[str, Any]:
    """Facts about strings, computed on the different ones and their counts."""
    if not len(values):
        return {}
    counted = values.alias("value").value_counts(name="count").sort("count", "value")
    distinct = counted["value"]
    lengths = distinct.str.len_chars()
    by_length = (
        pl.DataFrame({"length": lengths, "count": counted["count"]})
        .sort("length")
        .with_columns(pl.col("count").cum_sum())
    )
    reached = by_length.filter(pl.col("count") >= 0.95 * len(values))
    means = pl.DataFrame({"value": distinct}).select(
        words=pl.col("value").str.contains(r"\S\s+\S").mean(),
        letters=pl.col("value").str.count_matches(r"\p{L}").mean(),
        numbers=pl.col("value").str.contains(r"^\s*-?\d+[.,]\d+\s*$").mean(),
        dates=pl.col("value").str.contains(r"^\d{4}-\d\d?-\d\d?|^\d\d?[./]\d\d?[./]\d{4}").mean(),
    )
    spelt = [kind for kind in ("numbers", "dates") if means[kind][0] >= 0.95]
    return {
        "distinct": len(distinct),
        "top": distinct[-1],
        "top_share": counted["count"][-1] / len(values),
        "words": float(means["words"][0]),
        "letters": float(means["letters"][0]),
        "length": share(lengths),
        "length_95": int(reached["length"][0]),
        "looks_like": spelt[0] if spelt else None,
    }


def _number_facts(values: pl.Series) -> dict[str, Any]:
    if not len(values):
        return {}
    finite = values.filter(values.is_finite()) if values.dtype.is_float() else values
    x = pl.col("x")
    told = pl.DataFrame({"x": finite}).select(
        negative_share=(x < 0).mean(),
        zero_share=(x == 0).mean(),
        skew=x.cast(pl.Float64).skew(),
        whole=(x == x.floor()).all() if values.dtype.is_float() else pl.lit(value=True),
        minimum=x.min(),
        maximum=x.max(),
        distinct=x.n_unique(),
    )
    facts: dict[str, Any] = told.row(0, named=True) if len(finite) else {"distinct": 1}
    if facts.get("skew") is not None and facts["skew"] != facts["skew"]:  # NaN: one value only
        facts["skew"] = None
    return facts


def profile_time(series: pl.Series, follows: pl.Series) -> TimeProfile | None:
    """Measure the column of times (None: it has no value).

    Args:
        series: Dates, datetimes or whole numbers, sorted within each entity.
        follows: For each event, whether the one before it belongs to the same entity.
    """
    values = series.drop_nulls()
    if not len(values):
        return None
    kind: Any = kind_of(series.dtype)
    parts: dict[str, int] = {}
    span, monthly, time_of_day = 0.0, False, False
    if kind != "integer":
        parts, monthly = _calendar(values.cast(pl.Date))
        days = values.cast(pl.Date).to_physical()
        span = number(days.max()) - number(days.min())
    if kind == "datetime":
        parts["hour"] = values.dt.hour().n_unique()
        late = share(values != values.dt.truncate("1d"))
        time_of_day = parts["hour"] > 1 and late >= TIME_OF_DAY_SHARE
    steps = series.to_physical().cast(pl.Int64).diff().filter(follows).drop_nulls()
    return TimeProfile(
        kind=kind,
        span_days=span,
        latest=number(values.to_physical().max()),
        parts=parts,
        monthly=monthly,
        time_of_day=time_of_day,
        step_low=steps.quantile(0.01) if len(steps) else None,
        step_high=steps.quantile(0.99) if len(steps) else None,
        tie_share=share(steps == 0),
    )


def _calendar(dates: pl.Series) -> tuple[dict[str, int], bool]:
    """How many values of each calendar part occur, and whether the dates are monthly."""
    days = dates.unique()
    dom = days.dt.day()
    ends = bool((days == days.dt.month_end()).all())
    parts = {
        "month": days.dt.month().n_unique(),
        "dow": days.dt.weekday().n_unique(),
        "dom": dom.n_unique(),
        "year": days.dt.year().n_unique(),
    }
    return parts, len(days) > 2 and (parts["dom"] == 1 or ends)
