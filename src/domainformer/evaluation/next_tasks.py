"""Tasks of the next event: a column of it, or the next item (constructors, see task_building)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME
from domainformer.data.splits import Cut
from domainformer.errors import DataError, nearest
from domainformer.evaluation.task_parts import (
    class_indices,
    encode_labels,
    examples_by_position,
    moment,
)
from domainformer.evaluation.tasks import FOLD, PART, TRAIN_ONLY, Task


def next_value_task(
    name: str,
    table: EventTable,
    column: str,
    *,
    test_from: Cut,
    validation_from: Cut | None = None,
    kind: Literal["multiclass", "regression"] = "multiclass",
) -> Task:
    """A column of the next event, from all events before it in the entity's order.

    Every event with a value is an example; those before ``test_from`` train. Where times tie, the
    order of the source tells what comes before, so the ``cut`` is null and ``position`` counts the
    events shown; ``time`` is the target's own. A first event has an empty history.

    Args:
        name: Name of the task.
        table: A table with times.
        column: The column to foretell; it stays in the table, as past values are shown.
        test_from: First time of the tested events.
        validation_from: Events from here to ``test_from`` are the validation part; None: it is cut
            from the training part when a model is run.
        kind: Multiclass (any values) or regression (numbers).

    Raises:
        DataError: The column is missing, a part is empty, or there is a single class.
    """
    if column not in table.frame.columns:
        raise DataError(
            f"there is no column {column!r}", next_step=nearest(column, table.frame.columns)
        )
    test = moment(table, test_from)
    times, column_values = table.time_values, table.frame[column]
    keep = (times != NULL_TIME) & column_values.is_not_null().to_numpy()
    raw = column_values.filter(pl.Series(keep))
    classes, values = encode_labels(raw, kind, name, folds=1)
    times = times[keep]
    rows = examples_by_position(table, keep, values, np.where(times >= test, 0, TRAIN_ONLY))
    rows = rows.with_columns(table.frame[str(table.time)].filter(pl.Series(keep)).alias("time"))
    if validation_from is not None:
        begin = moment(table, validation_from)
        later = np.select([times >= test, times >= begin], ["test", "valid"], "train")
        rows = rows.with_columns(pl.Series(PART, later))
    _refuse_empty(rows, name)
    record = {"column": column, "test_from": str(test_from), "validation_from": validation_from}
    record["left_out_without_value"] = int(table.n_events - keep.sum())
    return Task(name, table, rows, kind, classes=classes, split="time", record=record)


def next_item_task(
    name: str, table: EventTable, item: str, *, catalogue: Sequence[Any] | None = None
) -> Task:
    """The next item, leave-last-out: last item tested, the one before it for validation.

    Training examples are all earlier items that have something before them. The history of the
    test example holds the validation item, as is usual.

    Args:
        name: Name of the task.
        table: The events in order.
        item: The column of item ids, without nulls.
        catalogue: All items that are ranked; None: those of the table.

    Raises:
        DataError: Items are null, missing from the catalogue, or no entity has three events.

    Example:
        >>> clicks = pl.DataFrame({"user": [1] * 4, "n": range(4), "item": [7, 5, 7, 9]})
        >>> task = next_item_task("clicks", EventTable.of(clicks, entity="user", time="n"), "item")
        >>> task.examples.select("position", "label", "part").rows(), task.classes
        ([(1, 0, 'train'), (2, 1, 'valid'), (3, 2, 'test')], [5, 7, 9])
    """
    if item not in table.frame.columns:
        raise DataError(
            f"there is no column {item!r}", next_step=nearest(item, table.frame.columns)
        )
    items = table.frame[item]
    if nulls := items.null_count():
        raise DataError(f"{nulls} events have no item", next_step="leave them out of the table")
    classes = (
        items.unique().sort() if catalogue is None else pl.Series(catalogue, dtype=items.dtype)
    )
    values = class_indices(items, classes)
    if values.null_count():
        raise DataError(
            f"{values.null_count()} events have items outside of the catalogue",
            why=f"for example {items.filter(values.is_null())[0]!r}",
        )
    after = np.repeat(table.offsets[1:], table.lengths) - np.arange(table.n_events)
    owners_start = np.repeat(table.offsets[:-1], table.lengths)
    long_enough = np.repeat(table.lengths >= 3, table.lengths)
    keep = long_enough & (np.arange(table.n_events) > owners_start)
    if not keep.any():
        raise DataError("no entity has three events", next_step="leave-last-out needs three")
    part = np.select([after == 1, after == 2], ["test", "valid"], "train")[keep]
    fold = np.where(part == "test", 0, TRAIN_ONLY)
    rows = examples_by_position(table, keep, values.filter(pl.Series(keep)), fold)
    record = {"item": item, "protocol": "leave-last-out", "items": len(classes)}
    return Task(
        name,
        table,
        rows.with_columns(pl.Series(PART, part)),
        "next_item",
        classes=classes.to_list(),
        split="time",
        record=record,
    )


def _refuse_empty(rows: pl.DataFrame, name: str) -> None:
    tested = int((rows[FOLD] == 0).sum())
    if not tested or tested == rows.height:
        part = "training" if tested else "test"
        raise DataError(f"the {part} part is empty", where=f"task {name!r}")
