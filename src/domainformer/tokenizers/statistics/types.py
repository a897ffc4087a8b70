"""Which types of column mean the same in different parts of the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

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


@dataclass(frozen=True)
class PartTypes:
    """The types that the columns of some events have.

    Args:
        families: By column, what `type_family` says of its parts; nothing for parts of nulls.
        times: Kinds of time (`EventTable.time_kind`).

    Example:
        >>> types = PartTypes().joined(PartTypes.of({"code": pl.Series([1])}.items(), "none"))
        >>> types.to_json()
        {'columns': {'code': ['integer']}, 'times': []}
    """

    families: dict[str, set[str]] = field(default_factory=dict)
    times: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, columns: Iterable[tuple[str, pl.Series]], time_kind: str) -> Self:
        """The types of some columns by name; a kind of time of ``"none"`` does not count."""
        families: dict[str, set[str]] = {}
        for name, column in columns:
            family = type_family(column)
            if family is not None:
                families.setdefault(name, set()).add(family)
        return cls(families, {time_kind} - {"none"})

    def joined(self, other: PartTypes) -> PartTypes:
        """The types of both."""
        families = {
            name: self.families.get(name, set()) | other.families.get(name, set())
            for name in self.families.keys() | other.families.keys()
        }
        return PartTypes(families, self.times | other.times)

    def check_times(self, column: str) -> None:
        """Make sure that elapsed time has one resolution.

        Raises:
            DataError: The times are of several kinds.
        """
        if len(self.times) > 1:
            raise DataError(
                f"the times are {' and '.join(sorted(self.times))} in different parts of the data",
                where=f"column {column!r}",
                why="elapsed time keeps the resolution of the times",
                next_step="write the time column of all parts with one type",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        columns = {name: sorted(self.families[name]) for name in sorted(self.families)}
        return {"columns": columns, "times": sorted(self.times)}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        columns = {name: set(families) for name, families in plain["columns"].items()}
        return cls(columns, set(plain["times"]))
