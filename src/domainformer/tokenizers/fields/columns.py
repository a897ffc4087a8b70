"""Columns of a table as plain arrays: numbers, distinct values, and text for any scalar type.

Each conversion has a scalar twin, used by the single-event path and proven equal to it.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from domainformer.errors import TokenizerError
from domainformer.tokenizers.base import Float64Array, Int32Array


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
    if kind.is_nested() or kind in (pl.Object, pl.Binary):
        raise wrong_type(column, field=field, wanted="text, numbers, dates or booleans")
    if len(column) == column.null_count():
        return Dictionary(np.zeros(len(column), np.int32), [None])
    array = column.to_arrow(compat_level=pl.CompatLevel.newest())
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    indices = array.indices
    codes = indices.fill_null(-1) if indices.null_count else indices
    # A fresh array: what Arrow and polars hand out is read-only.
    shifted = np.add(codes.to_numpy(zero_copy_only=False), 1, dtype=np.int32, casting="unsafe")
    return Dictionary(shifted, [None, *array.dictionary.to_pylist()])


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
