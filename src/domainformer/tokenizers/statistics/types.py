"""Which types of column mean the same in different parts of the data."""

from __future__ import annotations

import polars as pl

from domainformer.errors import DataError

_NUMBERS = frozenset({"integer", "float32", "float64", "decimal", "boolean"})
_MOMENTS = frozenset({"date", "datetime"})
# Pairs that give the same canonical texts apart as they would in one column.
_SAME_TEXT = frozenset(
    map(frozenset, (("text", "integer"), ("text", "boolean"), ("integer", "float64")))
)


def type_family(column: pl.Series) -> str | None:
    """The types that a column is like; None where it holds nulls alone.

    Example:
        >>> [type_family(pl.Series(values)) for values in ([1], ["a"], [None], [0.5])]
        ['integer', 'text', None, 'float64']
    """
    kind = column.dtype
    if column.null_count() == len(column):
        return None
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if kind.is_integer():
        return "integer"
    if isinstance(kind, pl.Datetime):
        return f"datetime in {kind.time_zone}" if kind.time_zone else "datetime"
    if isinstance(kind, pl.Decimal):
        return "decimal"
    return str(kind).lower()


def check_families(families: set[str], *, as_text: bool, column: str) -> None:
    """Make sure that a column means the same in all parts of the data.

    Args:
        families: What `type_family` gave for its parts.
        as_text: Whether its values are told apart by their canonical text.
        column: Its name, for the error.

    Raises:
        DataError: It does not.

    Example:
        >>> check_families({"integer", "float64"}, as_text=True, column="code")
        >>> check_families({"text", "float64"}, as_text=True, column="code")
        Traceback (most recent call last):
        ...
        domainformer.errors.DataError: the column 'code' is float64 in some data and text in other
          why:   the same value would not always be recognised
          next:  write all parts with one type, or cast the column before
    """
    ordered = sorted(families)
    for index, first in enumerate(ordered):
        for second in ordered[index + 1 :]:
            pair = frozenset((first, second))
            fine = pair in _SAME_TEXT if as_text else pair <= _NUMBERS or pair == _MOMENTS
            if not fine:
                raise DataError(
                    f"the column {column!r} is {first} in some data and {second} in other",
                    why="the same value would not always be recognised",
                    next_step="write all parts with one type, or cast the column before",
                )
