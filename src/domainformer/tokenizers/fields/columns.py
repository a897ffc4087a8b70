"""Columns of a table as plain arrays: numbers, distinct values, and text for any scalar type.

Each conversion has a scalar twin, used by the single-event path and proven equal to it.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from domainformer.errors import TokenizerError
from domainformer.tokenizers.base import Float64Array, Int32Array, Int64Array

_NO_SUMMER_TIME = 2100
_LAST_YEAR = 9999


def as_float64(column: pl.Series, *, field: str) -> Float64Array:
    """A numeric or boolean column as float64, NaN where null.

    Args:
        column: Any integer, float, decimal or boolean type; a column of nulls alone.
        field: The field's name, for the error.

    Raises:
        TokenizerError: The column holds something else.

    Example:
        >>> as_float64(pl.Series("x", [1, None, -3]), field="x")
        array([ 1., nan, -3.])
    """
    kind = column.dtype
    if not (kind.is_numeric() or kind in (pl.Boolean, pl.Null)):
        raise wrong_type(column, field=field, wanted="numbers")
    if kind != pl.Float64:
        column = column.cast(pl.Float64)
    if column.null_count():
        column = column.fill_null(float("nan"))
    return column.to_numpy()


def as_float(value: Any, *, field: str) -> float:
    """One number as `as_float64` reads it; NaN for None.

    Example:
        >>> as_float(Decimal("1.5"), field="x"), as_float(None, field="x")
        (1.5, nan)
    """
    if value is None:
        return math.nan
    try:
        # str has a float() too, but a column of strings is no numeric column.
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise wrong_value(value, field=field, wanted="a number") from None


class WholeNumbers(NamedTuple):
    """A column as int64, with masks of what is null or NaN, and of what is no 64-bit integer.

    ``numbers`` is 0 wherever one of the masks is set.
    """

    numbers: Int64Array
    missing: npt.NDArray[np.bool_]
    odd: npt.NDArray[np.bool_]


def as_whole_numbers(column: pl.Series, *, field: str) -> WholeNumbers:
    """A numeric or boolean column as whole numbers.

    Raises:
        TokenizerError: The column holds something else.

    Example:
        >>> numbers, missing, odd = as_whole_numbers(pl.Series([1.0, None, 2.5]), field="x")
        >>> numbers.tolist(), missing.tolist(), odd.tolist()
        ([1, 0, 0], [False, True, False], [False, False, True])
    """
    kind = column.dtype
    if kind.is_integer() or kind == pl.Boolean:
        whole = column.cast(pl.Int64, strict=False)  # beyond 64 bits becomes null
        missing = column.is_null().to_numpy()
        odd = whole.is_null().to_numpy() & ~missing
        return WholeNumbers(whole.fill_null(0).to_numpy(), missing, odd)
    numbers = as_float64(column, field=field)
    missing = np.isnan(numbers)
    # -2^63 is a 64-bit integer, 2^63 is not.
    fits = (numbers >= -(2.0**63)) & (numbers < 2.0**63) & (np.floor(numbers) == numbers)
    return WholeNumbers(np.where(fits, numbers, 0.0).astype(np.int64), missing, ~fits & ~missing)


class Dictionary(NamedTuple):
    """A column as codes into its distinct values; code 0 is null, ``values[0]`` is None."""

    codes: Int32Array
    values: list[Any]


def dictionary(column: pl.Series, *, field: str) -> Dictionary:
    """Encode a column of scalars once by its distinct values, in order of appearance.

    Raises:
        TokenizerError: The column holds lists, structs or other compound values.

    Example:
        >>> dictionary(pl.Series("x", ["b", None, "b", "a"]), field="x")
        Dictionary(codes=array([1, 0, 1, 2], dtype=int32), values=[None, 'b', 'a'])
    """
    kind = column.dtype
    simple = kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime)
    if not (simple or kind.is_numeric() or kind == pl.Null):
        raise wrong_type(column, field=field, wanted="text, numbers, dates or booleans")
    if len(column) == column.null_count():
        return Dictionary(np.zeros(len(column), np.int32), [None])
    if kind == pl.Int128 or kind == pl.UInt128:
        column = column.cast(pl.String)  # Arrow has no such integers
    elif kind == pl.Datetime:
        column = column.dt.cast_time_unit("us")  # Python's datetimes have no nanoseconds
    array = column.to_arrow(compat_level=pl.CompatLevel.newest())
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    codes = _index_numbers(array.indices) + np.int32(1)
    if array.indices.null_count:
        codes[column.is_null().to_numpy()] = 0
    values = array.dictionary.to_pylist()
    if kind == pl.Float32:
        # The shortest decimal of the 32-bit number: 0.1, not 0.10000000149011612.
        values = [float(str(np.float32(value))) for value in values]
    return Dictionary(codes, [None, *values])


def _index_numbers(indices: pa.Array) -> Int32Array:
    """An integer array of Arrow as int32, anything where null (Arrow's own way loads pandas)."""
    width = indices.type.bit_width // 8
    numbers = np.frombuffer(indices.buffers()[1], dtype=f"u{width}")
    return numbers[indices.offset : indices.offset + len(indices)].astype(np.int32)


def canonical_text(value: Any) -> str | None:
    """One spelling per value, whatever type its column has; None for null and NaN.

    Whole numbers are written without a decimal point, because the same code is often an integer
    in one file and, next to a null, a float in another.

    Example:
        >>> [canonical_text(v) for v in (True, 3, 3.0, Decimal("3.50"), 3.5, "3.0", None)]
        ['true', '3', '3', '3.5', '3.5', '3.0', None]
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if math.isnan(number):
            return None
        return str(int(number)) if number.is_integer() and abs(number) < 2**63 else repr(number)
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    return str(value)


def wall_clock(column: pl.Series) -> pl.Series:
    """What the clocks of a datetime column's own zone show, without the zone.

    polars knows no summer time from the year 2100 on, Python does. The few times that lie there
    (a "31 December 9999" that stands for never) are read as Python reads a single one.

    Example:
        >>> late = pl.Series(["2023-07-01T12:00", "2120-07-01T12:00"]).str.to_datetime()
        >>> wall_clock(late.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/London"))[1]
        datetime.datetime(2120, 7, 1, 13, 0)
    """
    local = column.dt.replace_time_zone(None)
    # A column of nanoseconds cannot be compared with a year that these do not reach.
    late = (local.dt.year() >= _NO_SUMMER_TIME).fill_null(value=False).arg_true()
    if len(late):
        # An hour after the last of the calendar lies a year that Python's datetimes have not.
        later = local.gather(late).dt.offset_by("1h").dt.year()
        late = late.filter(later <= _LAST_YEAR)
    if not len(late):
        return local
    shown = pl.Series([time.replace(tzinfo=None) for time in column.gather(late).to_list()])
    return local.scatter(late, shown.cast(local.dtype))


def wrong_type(column: pl.Series, *, field: str, wanted: str) -> TokenizerError:
    """The error of a column whose type a field cannot read."""
    return TokenizerError(
        f"field {field!r} needs {wanted}, and the column holds {column.dtype}",
        where=f"column {column.name!r}" if column.name else None,
        next_step="cast the column before, or give the field another type in the schema",
    )


def wrong_value(value: Any, *, field: str, wanted: str) -> TokenizerError:
    """The error of one value that a field cannot read."""
    return TokenizerError(
        f"field {field!r} needs {wanted}, and got {value!r} ({type(value).__name__})",
        next_step="convert the value as the training table had it",
    )
