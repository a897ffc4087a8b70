"""What constructors of tasks share: labels as indices, rows of examples, cuts as numbers."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.data.splits import Cut, cut_value
from domainformer.errors import DataError
from domainformer.evaluation.tasks import (
    CUT,
    ENTITY,
    EXAMPLE,
    FOLD,
    LABEL,
    POSITION,
    Kind,
)

Duration = int | dt.timedelta
DAY_US = 86_400_000_000


def examples_by_position(
    table: EventTable, keep: np.ndarray, values: pl.Series, fold: np.ndarray
) -> pl.DataFrame:
    """Examples that show the events before a row of the table."""
    position = np.arange(table.n_events) - np.repeat(table.offsets[:-1], table.lengths)
    owners = table.frame[table.entity].filter(pl.Series(keep))
    nothing = pl.Series([None] * len(owners), dtype=pl.Int64)
    return make_examples(table, owners, nothing, values, fold).with_columns(
        pl.Series(POSITION, position[keep], pl.Int64)
    )


def make_examples(
    table: EventTable, entities: pl.Series, cuts: pl.Series, labels: pl.Series, fold: np.ndarray
) -> pl.DataFrame:
    """Rows of a task; cuts are int64 as in ``EventTable.time_values``, here in the table's type."""
    if table.time is not None:
        dtype = table.frame[table.time].dtype
        if dtype.is_temporal():
            cuts = cuts.cast(pl.Datetime("us"))
            midnight = bool((cuts.drop_nulls().dt.truncate("1d") == cuts.drop_nulls()).all())
            # A cut inside a day is kept exact, though dates have no time of day.
            cuts = cuts.cast(dtype) if dtype != pl.Date or midnight else cuts
    return pl.DataFrame(
        {
            EXAMPLE: np.arange(len(entities), dtype=np.int64),
            ENTITY: entities,
            CUT: cuts,
            LABEL: labels,
            FOLD: pl.Series(fold, dtype=pl.Int64),
        }
    )


def encode_labels(raw: pl.Series, kind: Kind, name: str, folds: int) -> tuple[list[Any], pl.Series]:
    """Class values and labels as int64 indices, or the numbers of a regression."""
    where = f"task {name!r}, column {raw.name!r}"
    if kind == "regression":
        if not raw.dtype.is_numeric():
            raise DataError("a regression needs numbers", where=where, why=f"found {raw.dtype}")
        values = raw.cast(pl.Float64)
        bad = int((~values.is_finite()).sum())
        if bad:
            raise DataError(f"{bad} labels are NaN or infinite", where=where)
        refuse_one_class(values, where)
        return [], values
    if raw.dtype.is_float() and bool((~raw.is_finite()).any()):
        raise DataError("labels are NaN or infinite", where=where)
    classes = raw.unique().sort()
    refuse_one_class(raw, where)
    if kind == "binary" and len(classes) != 2:
        raise DataError(
            f"a binary label has {len(classes)} values",
            where=where,
            next_step="pass kind='multiclass' or 'regression'",
        )
    values = class_indices(raw, classes)
    counts = np.bincount(values.to_numpy())
    if counts.min() < folds:
        raise DataError(
            f"a class has {counts.min()} entities, fewer than the {folds} folds",
            where=f"{where}, class {classes[int(counts.argmin())]!r}",
            next_step="use fewer folds, or group rare classes",
        )
    return classes.to_list(), values


def refuse_one_class(values: pl.Series, where: str) -> None:
    """Raise where no model could learn anything because every label is the same."""
    if values.n_unique() < 2:
        raise DataError(
            "the label has one class",
            where=where,
            why=f"all {len(values)} labels are {values[0] if len(values) else 'missing'!r}",
            next_step="choose a label that varies, other cuts, or more entities",
        )


def class_indices(values: pl.Series, classes: pl.Series) -> pl.Series:
    """Each value's place among the classes, Int64; null where it is none of them."""
    index = classes.alias("value").to_frame().with_row_index("index")
    found = (
        values.alias("value").to_frame().join(index, on="value", how="left", maintain_order="left")
    )
    return found["index"].cast(pl.Int64)


def without_label(table: EventTable, label: str) -> EventTable:
    """The table without its label column, so that no history shows the answer."""
    if label not in table.frame.columns:
        return table
    return EventTable(
        table.frame.drop(label), table.entity, table.time, table.offsets, table.time_kind
    )


def moment(table: EventTable, cut: Cut) -> int:
    """A cut as the table's times are: µs since 1970, or the whole number of an integer time."""
    if table.time is None:
        raise DataError("a table without times has no cuts", next_step="name the time column")
    return cut_value(cut, time=table.time, integer=table.time_kind == "integer")


def duration(table: EventTable, length: Duration) -> int:
    """A length in the table's units: days become µs, an integer time keeps its own."""
    if table.time_kind == "integer":
        if isinstance(length, dt.timedelta):
            raise DataError("an integer time needs lengths in its own units", why=f"got {length}")
        return length
    days = length if isinstance(length, dt.timedelta) else dt.timedelta(days=length)
    return days // dt.timedelta(microseconds=1)


def time_unit(table: EventTable) -> float:
    """What times are divided by to be told in days; 1 where they are whole numbers."""
    return float(DAY_US) if table.time_kind in ("date", "datetime") else 1.0
