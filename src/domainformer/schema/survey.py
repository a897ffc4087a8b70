"""The first look at a table: its roles, its events in order, the profile of every column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from domainformer.errors import SchemaError
from domainformer.schema.profile import ColumnProfile, kind_of, normalised, profile_column
from domainformer.schema.roles import (
    guess_entity,
    guess_label,
    guess_time,
    required,
    time_is_text,
)


@dataclass
class Survey:
    """What is known so far about a table under inference."""

    frame: pl.DataFrame
    entity: str
    time: str | None
    label: str | None
    profiles: dict[str, ColumnProfile]
    dropped: dict[str, str] = field(default_factory=dict)
    partners: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def open_columns(self) -> list[str]:
        """The columns whose fate is not decided yet."""
        roles = {self.entity, self.time, self.label}
        return [c for c in self.frame.columns if c not in roles and c not in self.dropped]


def survey_table(table: Any, entity: str | None, time: str | None, label: str | None) -> Survey:
    """Roles, events in order, and the profile of every column."""
    frame = _frame(table)
    ordered = hasattr(table, "frame")
    if ordered:
        entity = entity or table.entity
        time = time or table.time
    entity = guess_entity(frame) if entity is None else required(frame, entity, "entity")
    if time is not None:
        time = required(frame, time, "time")
    elif not ordered:
        time = guess_time(frame, entity)
    if time == entity:
        raise SchemaError(f"the column {entity!r} cannot be both entity and time")
    if time is not None and kind_of(frame[time].dtype) == "string":
        raise time_is_text(time)
    notes: list[str] = []
    if nulls := frame[entity].null_count():
        frame = frame.filter(pl.col(entity).is_not_null())
        notes.append(f"{nulls:,} rows without {entity} were left out")
        if not frame.height:
            raise SchemaError(f"the entity column {entity!r} has no value")
    if not ordered or nulls:
        frame = frame.sort(entity, *([time] if time else []), maintain_order=True)
    frame = frame.with_columns(normalised(frame[c]) for c in frame.columns)
    follows = follows_of(frame[entity])
    profiles = {c: profile_column(frame[c], follows) for c in frame.columns}
    static = [c for c, p in profiles.items() if p.is_static and c not in (entity, time)]
    label = guess_label(frame, static) if label is None else required(frame, label, "label")
    if profiles[entity].distinct == frame.height:
        notes.append(f"every row has its own {entity}: there are no histories to learn from")
    return Survey(frame, entity, time, label, profiles, notes=notes)


def _frame(table: Any) -> pl.DataFrame:
    frame = getattr(table, "frame", table)
    if isinstance(frame, pl.LazyFrame):
        try:
            frame = frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SchemaError("the table cannot be read", why=str(error)) from error
    if not isinstance(frame, pl.DataFrame):
        raise SchemaError(
            f"a table is expected (given: {type(table).__name__})",
            next_step="EventTable.of(…) takes polars, pandas and Arrow tables",
        )
    if not frame.height:
        raise SchemaError(
            "the table is empty",
            why=f"it has {frame.width} columns and no row",
            next_step="check the path or the filter that made it",
        )
    if frame.width < 2:
        raise SchemaError(
            "the table has only one column",
            where=f"column {frame.columns[0]!r}",
            why="an event needs an entity and at least one thing that is said about it",
        )
    if all(frame[c].null_count() == frame.height for c in frame.columns):
        raise SchemaError("every value of the table is null", next_step="check how it was read")
    return frame


def follows_of(entity: pl.Series) -> pl.Series:
    """For each event, whether the one before it belongs to the same entity."""
    return (entity == entity.shift(1)).fill_null(value=False)
