"""Making the entity and the time column of any table comparable.

Whatever a source calls an entity becomes integers, strings or bytes; whatever it calls a time
becomes a date, a timestamp in microseconds, or whole numbers::

    categorical, enum ─▶ string         timestamp[s|ms|µs|ns] ─▶ datetime[µs]
    7.0 (pandas)      ─▶ 7              "2024-05-01T10:00"    ─▶ datetime[µs]
    true, 7, "a", b"a" stay             2024-05-01+02:00      ─▶ datetime[µs] in UTC

Units are converted here and nowhere else, so that no later part has to ask for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import polars as pl

from domainformer.errors import DataError

TimeKind = Literal["date", "datetime", "integer", "none"]
NULL_TIME = int(np.iinfo(np.int64).min)
"""Stands for "no time" in arrays of integer times; it sorts before every real time."""

_DAY_US = 86_400_000_000
_PLAIN_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
)
_ZONED_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
)
_ISO_ADVICE = (
    "write times as 2024-05-31 or 2024-05-31T23:59:00, or parse the column before, "
    "for example with polars' str.to_datetime(format)"
)


Locate = Callable[[int], str]
"""Names the place of a row (counted from 0) for an error."""


def normalise_entity(
    column: pl.Series, *, where: str, locate: Locate = "row {}".format
) -> pl.Series:
    """Entity ids as integers, strings, bytes or booleans; null stays null.

    Args:
        column: Ids of any usable type.
        where: Names the table in errors.
        locate: Names a row in errors.

    Raises:
        DataError: All ids are null, or they are fractions, times, lists or other nested values.

    Example:
        >>> normalise_entity(pl.Series("card", [7.0, None]), where="cards.csv").to_list()
        [7, None]
    """
    if column.null_count() == len(column):
        raise DataError(
            f"the entity column {column.name!r} is empty in every row",
            where=where,
            next_step="name the column that tells whose event each row is",
        )
    dtype = column.dtype
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    if dtype.is_integer() or dtype in (pl.String, pl.Binary, pl.Boolean):
        return column
    if dtype.is_float() or dtype.is_decimal():
        whole = _whole_numbers(column)
        if isinstance(whole, pl.Series):
            return whole
        row, value = whole
        where, why = locate(row), f"it holds {value}"
    else:
        why = f"its type is {dtype}"
    raise DataError(
        f"the column {column.name!r} cannot name entities",
        where=where,
        why=why,
        next_step="use an integer or string column, or cast this one to strings before",
    )


def normalise_time(
    column: pl.Series, *, where: str, locate: Locate = "row {}".format
) -> tuple[pl.Series, TimeKind, list[str]]:
    """Times as dates, microsecond timestamps or whole numbers, with their kind and notes.

    Args:
        column: Dates, timestamps of any unit or zone, whole numbers, or ISO 8601 strings.
        where: Names the table in errors.
        locate: Names a row in errors.

    Returns:
        The column (``Date``, ``Datetime("us")`` without zone, or ``Int64``), its kind
        (timestamps that all fall on midnight count as dates), and remarks for the reader.

    Raises:
        DataError: All times are null, a string is not ISO 8601, numbers have fractions or do not
            fit, or the type is no time.

    Example:
        >>> column, kind, _ = normalise_time(pl.Series("t", ["2024-05-01 10:30"]), where="t.csv")
        >>> column.to_list(), kind
        ([datetime.datetime(2024, 5, 1, 10, 30)], 'datetime')
    """
    notes: list[str] = []
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        column = parse_iso(column.cast(pl.String), locate)
    if column.null_count() == len(column):
        raise DataError(
            f"the time column {column.name!r} is empty in every row",
            where=where,
            next_step="name another time column, or none (time=None) to keep the order of the rows",
        )
    dtype = column.dtype
    if dtype == pl.Date:
        return column, "date", notes
    if isinstance(dtype, pl.Datetime):
        column = _to_naive_microseconds(column, notes, where=where)
        return column, _kind_of_timestamps(column, notes), notes
    if dtype.is_integer() or dtype.is_float() or dtype.is_decimal():
        return _to_integers(column, notes, where, locate), "integer", notes
    raise DataError(
        f"the column {column.name!r} is not a time",
        where=where,
        why=f"its type is {dtype}",
        next_step="use a date, a timestamp, whole numbers, or ISO 8601 strings",
    )


def integer_times(column: pl.Series) -> np.ndarray:
    """Normalised times as int64: µs since 1970 or the whole numbers; null is ``NULL_TIME``.

    Example:
        >>> import datetime
        >>> integer_times(pl.Series([datetime.date(1970, 1, 2), None])).tolist()
        [86400000000, -9223372036854775808]
    """
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    values: np.ndarray = column.to_physical().cast(pl.Int64).fill_null(NULL_TIME).to_numpy()
    return values


def parse_iso(column: pl.Series, locate: Locate) -> pl.Series:
    """ISO 8601 strings as dates (if none has a time of day) or timestamps in UTC.

    Blanks around a time are forgiven and empty strings are null; nothing else is guessed, because
    05/04/2024 is a day in April for one half of the world and in May for the other.

    Raises:
        DataError: Some string is not an ISO 8601 date or time; its row is named.

    Example:
        >>> parse_iso(pl.Series("day", ["2024-05-31", ""]), "row {}".format).to_list()
        [datetime.date(2024, 5, 31), None]
    """
    text = column.str.strip_chars()
    text = text.set(text == "", None)
    parsed: pl.Series | None = None
    only_dates = True
    for pattern in (*_PLAIN_FORMATS, *_ZONED_FORMATS):
        missing = text.is_not_null() if parsed is None else text.is_not_null() & parsed.is_null()
        if not missing.any():
            break
        found = text.str.to_datetime(pattern, time_unit="us", strict=False)
        found = found.dt.replace_time_zone(None)
        only_dates = only_dates and (pattern == "%Y-%m-%d" or found.null_count() == len(found))
        parsed = found if parsed is None else parsed.zip_with(parsed.is_not_null(), found)
    if parsed is None:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Date)
    wrong = text.is_not_null() & parsed.is_null()
    if wrong.any():
        row = wrong.arg_max() or 0
        raise DataError(
            f"the column {column.name!r} holds text that is not an ISO 8601 time",
            where=locate(row),
            why=f"it holds {column[row]!r} ({wrong.sum():,} such rows)",
            next_step=_ISO_ADVICE,
        )
    parsed = parsed.alias(column.name)
    return parsed.cast(pl.Date) if only_dates else parsed


def _whole_numbers(column: pl.Series) -> pl.Series | tuple[int, object]:
    """Floats or decimals as Int64 (NaN becomes null), or the first row that does not fit."""
    values = column.cast(pl.Float64).fill_nan(None)
    usable = (values == values.floor()) & (values.abs() < 2.0**63)
    bad = (~usable).fill_null(value=False).arg_max() if not usable.all() else None
    if bad is not None:
        return bad, column[bad]
    return values.cast(pl.Int64)


def _to_integers(column: pl.Series, notes: list[str], where: str, locate: Locate) -> pl.Series:
    if not column.dtype.is_integer():
        whole = _whole_numbers(column)
        if not isinstance(whole, pl.Series):
            row, value = whole
            raise DataError(
                f"the time column {column.name!r} holds numbers that are not whole",
                where=locate(row),
                why=f"it holds {value}",
                next_step="multiply to a finer unit (hours to seconds, say) and round",
            )
        column = whole
    largest = column.max()
    if isinstance(largest, int) and largest > np.iinfo(np.int64).max:
        raise DataError(
            f"the time column {column.name!r} holds numbers too large for 64 bits",
            where=where,
            why=f"the largest is {largest}",
            next_step="subtract the start, or use a coarser unit",
        )
    column = column.cast(pl.Int64)
    smallest, largest = column.drop_nulls().quantile(0.01), column.drop_nulls().quantile(0.99)
    if smallest is not None and largest is not None and _looks_like_epoch(smallest, largest):
        notes.append(
            f"{column.name} looks like seconds, milliseconds or microseconds since 1970; it is "
            "used as plain numbers without a calendar (polars' from_epoch makes timestamps of it)"
        )
    return column


def _looks_like_epoch(smallest: float, largest: float) -> bool:
    """Whether numbers read as times between 1990 and 2100 in one of the three common units."""
    return any(6.3e8 * unit <= smallest and largest <= 4.1e9 * unit for unit in (1, 1e3, 1e6))


def _to_naive_microseconds(column: pl.Series, notes: list[str], *, where: str) -> pl.Series:
    dtype = column.dtype
    assert isinstance(dtype, pl.Datetime)
    if dtype.time_zone is not None:
        if dtype.time_zone != "UTC":
            notes.append(f"{column.name} was converted from {dtype.time_zone} to UTC")
        # The instant orders events; local clocks repeat an hour every autumn.
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if dtype.time_unit == "ms":
        physical = column.to_physical()
        limit = np.iinfo(np.int64).max // 1000
        if ((physical > limit) | (physical < -limit)).any():
            raise DataError(
                f"the time column {column.name!r} holds times that no calendar reaches",
                where=where,
                next_step="check the unit it was written in: this looks like milliseconds "
                "that were microseconds or nanoseconds",
            )
    return column.cast(pl.Datetime("us"))


def _kind_of_timestamps(column: pl.Series, notes: list[str]) -> TimeKind:
    values = column.drop_nulls().to_physical()
    # A wrong unit shows as a wrong century: seconds read as ms fall in January 1970.
    low, high = (int(values.quantile(q, "nearest") or 0) for q in (0.01, 0.99))
    if low > 0 and high < 32 * _DAY_US:
        notes.append(f"{column.name}: nearly all times fall in January 1970; check the unit")
    elif low > 400 * 365 * _DAY_US:
        notes.append(f"{column.name}: nearly all times lie after the year 2369; check the unit")
    return "date" if bool((values % _DAY_US == 0).all()) else "datetime"
