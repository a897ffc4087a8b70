"""A next-value task as arrays: the value, the time and the context of every event, in order.

::

    task ─▶ ValueEvents    values   2  0  0  1 │ 3  3        context(“unit”)  ·  7  7  9 │ ·  4
                           offsets  0             4     6    (what the event before showed)

The events without a value are left out of the sequence: they are no targets, and tell no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.evaluation.sequence_counts import CategorySequences
from domainformer.evaluation.task_parts import class_indices, time_unit
from domainformer.evaluation.tasks import POSITION, Task

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ValueEvents:
    """The events of a next-value task that have a value.

    Args:
        table: These events.
        values: Class of each, int64 ``[events]``.
        n_values: Number of classes.
        kept: For each event of the task's table, how many events with a value come before it.
    """

    table: EventTable
    values: Ints
    n_values: int
    kept: Ints

    @classmethod
    def of(cls, task: Task) -> Self:
        """Read a task made by :func:`~domainformer.evaluation.next_tasks.next_value_task`.

        Raises:
            DataError: The task is no multiclass next-value task.
        """
        column = task.record.get("column")
        if task.kind != "multiclass" or POSITION not in task.examples.columns or column is None:
            raise DataError(
                "this baseline foretells the next value of a column",
                where=f"task {task.name!r}, {task.kind}",
                next_step="make the task with next_value_task, or choose another baseline",
            )
        classes = pl.Series(task.classes, dtype=task.table.frame[column].dtype)
        values = class_indices(task.table.frame[column], classes)
        known = values.is_not_null()
        kept = np.concatenate([[0], np.cumsum(known.to_numpy())])
        table = task.table.filter(known)
        return cls(table, values.drop_nulls().to_numpy(), task.n_classes, kept.astype(np.int64))

    def places(self, task: Task, examples: pl.DataFrame) -> Ints:
        """The event that each example asks for, ``[n]``; what lies before it may be read.

        Raises:
            DataError: An example is not an event of the task.
        """
        _, ends = task.bounds(examples)
        if len(ends) and (ends >= len(self.kept) - 1).any():
            raise DataError(
                "an example lies behind the last event",
                where=f"task {task.name!r}",
                next_step="ask for events that the table has",
            )
        return self.kept[ends]

    def trained(self, task: Task, examples: pl.DataFrame) -> Mask:
        """Which events are the targets of some examples, ``[events]``."""
        mask = np.zeros(len(self.values), np.bool_)
        mask[self.places(task, examples)] = True
        return mask

    def sequences(self, train: Mask) -> CategorySequences:
        """As count models read them."""
        return CategorySequences(self.values, self.table.offsets, self.n_values, train)

    @cached_property
    def entity(self) -> Ints:
        """Number of each event's entity."""
        return np.repeat(np.arange(self.table.n_entities), self.table.lengths)

    @cached_property
    def position(self) -> Ints:
        """How many events of the entity come before each."""
        return np.arange(len(self.values)) - np.repeat(self.table.offsets[:-1], self.table.lengths)

    @cached_property
    def days(self) -> Floats:
        """Time of each event, in days (or in the units of an integer time)."""
        scale = time_unit(self.table)
        return self.table.time_values / scale

    def before(self, values: npt.NDArray[Any], steps: int = 1) -> npt.NDArray[Any]:
        """What stood ``steps`` events earlier in the entity; −1 (NaN for floats) where nothing."""
        nothing = np.nan if values.dtype.kind == "f" else -1
        earlier = np.full(len(values), nothing, values.dtype)
        if steps < len(values):
            earlier[steps:] = values[:-steps]
        earlier[self.position < steps] = nothing
        return earlier

    def codes(self, column: str) -> Ints:
        """A column as numbers by first appearance; −1 where it is null."""
        codes = self.table.frame[column].rank("dense").cast(pl.Int64) - 1
        return codes.fill_null(-1).to_numpy()
