"""Stacking the tables of several sources into one: a row per event, a column that names its source.

::

    cards      client  day  amount  shop           source  client  day  amount  shop    screen
    app        client  day  screen          ─▶     cards   7       1    9.5     bakery  null
                                                   app     7       1    null    null    home

What one table does not have is null in its rows. Which fields an event has is decided by the
schema's sources, so these nulls make no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from domainformer.data.frames import to_polars
from domainformer.data.table import EventTable
from domainformer.errors import DataError, nearest
from domainformer.schema import DomainSchema
from domainformer.schema.sources import SOURCE_FIELD

# Whole numbers beyond this are not all floats, so that turning them into floats would change them.
_EXACT = 1 << 53


def combine_sources(
    tables: Mapping[str, Any],
    *,
    entity: str,
    time: str | None,
    schema: DomainSchema | None = None,
    source_column: str = SOURCE_FIELD,
) -> EventTable:
    """One table of the events of several tables.

    Columns of one name become one column, if their types can be told in one (whole numbers and
    floats become floats; strings, categories and enums strings). Otherwise, or where a field of
    the schema reads ``column="cards.amount"``, each stays apart as ``source.column``. Two sources
    whose amounts mean different things need no columns of their own: two *fields* read the one
    column, and each is fitted on the events of its sources.

    Args:
        tables: For each source its table: an EventTable, or a table of polars, pandas or pyarrow.
        entity: The entity column, in all tables.
        time: The time column, in all tables; None where only the order is known: then all events
            of the first table come before those of the second.
        schema: Check each table against its source, and take the name of the source column.
        source_column: The column that is to name the source; of no effect where a schema is given.

    Returns:
        Events by entity and time; of events at the same time, those of the first table come first.

    Raises:
        DataError: There is no table, a column is missing, entity or time have types that cannot
            be compared, or a table has the source column itself.
        SchemaError: A table is of no source of the schema, or does not fit it.

    Example:
        >>> table = combine_sources(
        ...     {"cards": pl.DataFrame({"who": [1, 1], "day": [2, 5], "amount": [9.5, 3.0]}),
        ...      "app": pl.DataFrame({"who": [1], "day": [3], "screen": ["home"]})},
        ...     entity="who", time="day")
        >>> table.frame.select("source", "amount", "screen").rows()
        [('cards', 9.5, None), ('app', None, 'home'), ('cards', 3.0, None)]
    """
    if schema is not None:
        source_column = schema.source_column
    frames = {name: _frame(name, table) for name, table in tables.items()}
    if not frames:
        raise DataError("there are no tables to combine", next_step="give at least one source")
    for name, frame in frames.items():
        _check(name, frame, (entity, *([time] if time else [])), source_column)
    keys = tuple(name for name in (entity, time) if name is not None)
    apart = _columns_apart(frames)
    if clash := apart & set(keys):
        raise _mixed_keys(frames, min(clash))
    if schema is not None:
        # A schema that reads "cards.amount" wants it apart, whatever the types.
        apart |= {
            c for name, f in frames.items() for c in f.columns if f"{name}.{c}" in schema.columns
        }
        apart -= set(keys)
    stacked = []
    for name, frame in frames.items():
        own = frame.rename(
            {column: f"{name}.{column}" for column in frame.columns if column in apart}
        )
        own = own.with_columns(pl.lit(name, pl.String).alias(source_column))
        if schema is not None:
            schema.check(own, source=name)
        stacked.append(own)
    together = pl.concat(_alike(stacked), how="diagonal")
    if schema is not None:
        together = together.with_columns(
            pl.lit(None).alias(column)
            for column in schema.columns
            if column not in together.columns
        )
    first = [source_column, *(name for name in together.columns if name != source_column)]
    return EventTable.of(together.select(first), entity=entity, time=time)


def _frame(name: str, table: Any) -> pl.DataFrame:
    if isinstance(table, EventTable):
        return table.frame
    return to_polars(table, columns=None, where=f"the table of source {name!r}")


def _check(name: str, frame: pl.DataFrame, keys: tuple[str, ...], source_column: str) -> None:
    where = f"the table of source {name!r}"
    for key in keys:
        if key not in frame.columns:
            raise DataError(
                f"there is no column {key!r}",
                where=where,
                why="the entity and the time have the same name in all tables",
                next_step=nearest(key, frame.columns),
            )
    if source_column in frame.columns:
        raise DataError(
            f"there is a column {source_column!r} already",
            where=where,
            why="this is the column that is to name the source",
            next_step="rename it, or give another source_column",
        )


def _columns_apart(frames: Mapping[str, pl.DataFrame]) -> set[str]:
    """The names of columns whose types cannot be told in one."""
    kinds: dict[str, set[Any]] = {}
    for frame in frames.values():
        for column, dtype in frame.schema.items():
            if dtype != pl.Null:
                kinds.setdefault(column, set()).add(_family(dtype))
    return {column for column, found in kinds.items() if len(found) > 1}


def _family(dtype: pl.DataType) -> Any:
    if dtype.is_numeric():
        return "decimal" if dtype.is_decimal() else "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "string"
    if isinstance(dtype, pl.Datetime):
        return "datetime", dtype.time_zone
    return dtype


def _mixed_keys(frames: Mapping[str, pl.DataFrame], key: str) -> DataError:
    types = ", ".join(f"{frame.schema[key]} in {name!r}" for name, frame in frames.items())
    return DataError(
        f"the column {key!r} has types that cannot be compared",
        why=f"it is {types}",
        next_step="cast it to one type in all tables",
    )


def _alike(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """The same frames with one type for each column, none of whose values changes."""
    types: dict[str, list[pl.DataType]] = {}
    for frame in frames:
        for column, dtype in frame.schema.items():
            types.setdefault(column, []).append(dtype)
    casts = {column: _common(found) for column, found in types.items() if len(set(found)) > 1}
    return [_cast(frame, casts) for frame in frames]


def _common(found: list[pl.DataType]) -> Any:
    known = [dtype for dtype in found if dtype != pl.Null]
    if not known:
        return pl.Null
    if _family(known[0]) == "string":
        return pl.String
    if isinstance(known[0], pl.Datetime):
        return pl.Datetime("us", known[0].time_zone)
    if not all(dtype.is_numeric() for dtype in known) or len(set(known)) == 1:
        return known[0]
    return pl.Int64 if all(dtype.is_integer() for dtype in known) else pl.Float64


def _cast(frame: pl.DataFrame, casts: Mapping[str, Any]) -> pl.DataFrame:
    wanted: dict[Any, Any] = {name: dtype for name, dtype in casts.items() if name in frame.columns}
    for name, dtype in wanted.items():
        column = frame[name]
        too_large = (
            dtype == pl.Float64
            and column.dtype.is_integer()
            and not bool(column.is_between(-_EXACT, _EXACT).all())
        )
        if too_large or (dtype == pl.Int64 and column.dtype == pl.UInt64 and _beyond(column)):
            raise DataError(
                f"the column {name!r} has whole numbers that {dtype} cannot hold",
                why="in another source it is of another type, and one column has one type",
                next_step="rename the column in one table, or cast both to strings",
            )
    return frame.cast(wanted)


def _beyond(column: pl.Series) -> bool:
    return bool((column > (1 << 63) - 1).any())
