"""A task: who is judged, what they look like just before a cut, and what happened after it.

::

    entity  ──e──e──e──e──│──e────e──▶ time         example 7: entity, cut, label, fold
            history       cut  label
            (shown)            (computed, never shown)

An *example* is an entity seen from just before a cut; an entity with two cuts is two examples.
:meth:`Task.history` gives the events strictly before each example's cut, with the example as the
entity, so that no model can look further by accident. Constructors are in
:mod:`~domainformer.evaluation.task_building`, the public tables in
:mod:`~domainformer.evaluation.public_tasks`, running models in
:mod:`~domainformer.evaluation.protocols`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME, integer_times
from domainformer.errors import DataError

Kind = Literal["binary", "multiclass", "regression", "next_item"]
KINDS: tuple[Kind, ...] = ("binary", "multiclass", "regression", "next_item")
Ints = npt.NDArray[np.int64]

EXAMPLE, ENTITY, CUT, POSITION = "example", "entity", "cut", "position"
LABEL, FOLD, PART = "label", "fold", "part"
TRAIN_ONLY = -1
"""Fold of examples that are never tested (the training cuts of a task by time)."""
PARTS = ("train", "valid", "test")
_LABEL_TYPES = {"binary": pl.Int64, "multiclass": pl.Int64, "next_item": pl.Int64}


class Fitted(Protocol):
    """A model that has been fitted to a task's training examples."""

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[Any]:
        """What it expects, one row per example in their order.

        Returns:
            float64 ``[n]``: the probability of 1 (binary) or the number (regression); float64
            ``[n, classes]``: probabilities (multiclass) or scores of all items (next_item);
            for next_item also int64 ``[n, k]``: the k best items, best first.
        """


class Model(Protocol):
    """What can be fitted to a task; choices are made on the validation examples alone."""

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> Fitted:
        """Fit on the training examples, stop or choose by the validation examples."""


@dataclass(frozen=True)
class TaskSplit:
    """Examples of one fold.

    Args:
        fold: Number of the fold.
        train: Examples to learn from.
        valid: Examples to choose by, where the task fixes them; None: cut them from ``train``
            (:func:`~domainformer.evaluation.protocols.inner_split` does).
        test: Examples to be judged on.
    """

    fold: int
    train: pl.DataFrame
    valid: pl.DataFrame | None
    test: pl.DataFrame


@dataclass(frozen=True, eq=False)
class Task:
    """Examples over an event table, with labels and a split. Build one with a constructor.

    Args:
        name: What tables of results call it.
        table: All events; models read it through :meth:`history` or :meth:`bounds` only.
        examples: One row per example: ``example`` (int64 key, ascending), ``entity`` (as in the
            table), ``cut`` (in the table's time type; null hides nothing), ``label``, ``fold``
            (-1: trained on, never tested), optional ``position`` (how many of the entity's events
            are shown; null hides nothing), optional ``part`` ("train", "valid", "test", where the
            task fixes its validation part), and what else a constructor adds.
        kind: Binary (labels 0 and 1), multiclass and next_item (labels are indices into
            ``classes``), or regression (float64).
        static: One row per entity, first column ``entity``; None where nothing is known of it.
        classes: The values that labels stand for (multiclass, next_item; binary where they are
            not 0 and 1).
        split: "entity" (no entity on both sides) or "time" (no training label later than the cut).
        record: How it was made (JSON-able).

    Raises:
        DataError: A column is missing, keys repeat, or a label is null, not finite or no class.
    """

    name: str
    table: EventTable
    examples: pl.DataFrame
    kind: Kind
    static: pl.DataFrame | None = None
    classes: list[Any] = field(default_factory=list)
    split: Literal["entity", "time"] = "entity"
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_examples(self)

    def splits(self) -> Iterator[TaskSplit]:
        """Train, validation and test examples of each fold, in the order of folds."""
        rows = self.examples
        for fold in self.folds:
            test = rows.filter(pl.col(FOLD) == fold)
            rest = rows.filter(pl.col(FOLD) != fold)
            if PART in rows.columns:
                train = rest.filter(pl.col(PART) == "train")
                yield TaskSplit(fold, train, rest.filter(pl.col(PART) == "valid"), test)
            else:
                yield TaskSplit(fold, rest, None, test)

    @property
    def folds(self) -> list[int]:
        """Numbers of the folds that are tested."""
        return [int(fold) for fold in self.examples[FOLD].unique().sort() if fold != TRAIN_ONLY]

    @property
    def n_classes(self) -> int:
        """Number of classes or items; 2 for a binary task, 0 for a regression."""
        if self.kind == "binary":
            return 2
        return len(self.classes)

    def bounds(self, examples: pl.DataFrame) -> tuple[Ints, Ints]:
        """First and one past the last row of ``table.frame`` that each example may see.

        For models that read long tables without copying them; equal bounds mean no events.

        Args:
            examples: Rows of :attr:`examples`, in any order.

        Returns:
            int64 ``[n]`` and int64 ``[n]``.

        Raises:
            DataError: The examples lack a column.
        """
        _need(examples, (ENTITY, CUT), "the examples")
        entities = self._entity_index(examples[ENTITY])
        known = np.maximum(entities, 0)
        starts, ends = self.table.offsets[:-1][known], self.table.offsets[1:][known]
        if self.table.time is not None and examples[CUT].null_count() < examples.height:
            cuts = integer_times(examples[CUT])
            # One sorted number per event, (entity, rank of its time), makes this one search.
            rank = np.searchsorted(self._distinct_times, cuts, side="left")
            before = np.searchsorted(self._keys, known * self._stride + rank, side="left")
            ends = np.where(cuts == NULL_TIME, ends, before)
        if POSITION in examples.columns:
            shown = examples[POSITION].cast(pl.Int64).fill_null(np.iinfo(np.int32).max).to_numpy()
            ends = np.minimum(ends, starts + np.maximum(shown, 0))
        ends = np.where(entities < 0, starts, ends)
        return starts.astype(np.int64), ends.astype(np.int64)

    def history(self, examples: pl.DataFrame, *, last: int | None = None) -> EventTable:
        """The events that each example may see: strictly before its cut.

        Args:
            examples: Rows of :attr:`examples`.
            last: Keep the most recent events of each example only.

        Returns:
            A table whose entity is ``example``, sorted by it. An example without any event before
            its cut has no rows: join features from the left, and treat null as "no history".

        Raises:
            DataError: The examples lack a column, or name one example twice.
        """
        _need(examples, (EXAMPLE, ENTITY, CUT), "the examples")
        examples = examples.sort(EXAMPLE)
        if examples[EXAMPLE].is_duplicated().any():
            raise DataError("an example is named twice", next_step="pass each row once")
        starts, ends = self.bounds(examples)
        if last is not None:
            starts = np.maximum(starts, ends - last)
        lengths = ends - starts
        rows = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        keys = np.repeat(examples[EXAMPLE].to_numpy(), lengths)
        frame = self.table.frame[rows].insert_column(0, pl.Series(EXAMPLE, keys, pl.Int64))
        offsets = np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64)
        return EventTable(frame, EXAMPLE, self.table.time, offsets, self.table.time_kind)

    def labels(self, examples: pl.DataFrame) -> npt.NDArray[Any]:
        """Labels of the examples: int64 ``[n]``, or float64 ``[n]`` for a regression."""
        return examples[LABEL].to_numpy()

    def static_features(self, examples: pl.DataFrame) -> pl.DataFrame:
        """Static columns, one row per example in their order; ``example`` is the key.

        An entity that ``static`` does not name has nulls.
        """
        keys = examples.select(EXAMPLE, ENTITY)
        if self.static is None:
            return keys.select(EXAMPLE)
        return keys.join(self.static, on=ENTITY, how="left", maintain_order="left").drop(ENTITY)

    def with_table(self, table: EventTable) -> Task:
        """The same examples over other events (the leak check alters what lies after the cuts)."""
        return replace(self, table=table)

    def _entity_index(self, entities: pl.Series) -> Ints:
        """Positions in ``table.entity_ids``; -1 for an entity without events."""
        ids = self.table.entity_ids
        if entities.dtype != ids.dtype:
            raise DataError(
                "entities of the examples and of the table have different types",
                why=f"{entities.dtype} against {ids.dtype}",
                next_step="cast one of the columns",
            )
        places = pl.DataFrame({ENTITY: ids}).with_row_index("place")
        found = (
            entities.alias(ENTITY)
            .to_frame()
            .join(places, on=ENTITY, how="left", maintain_order="left")
        )
        return found["place"].cast(pl.Int64).fill_null(-1).to_numpy()

    @cached_property
    def _distinct_times(self) -> Ints:
        return np.unique(self.table.time_values)

    @cached_property
    def _stride(self) -> int:
        return len(self._distinct_times) + 1

    @cached_property
    def _keys(self) -> Ints:
        owner = np.repeat(np.arange(self.table.n_entities), self.table.lengths)
        ranks = np.searchsorted(self._distinct_times, self.table.time_values)
        return owner * self._stride + ranks

    def __repr__(self) -> str:
        rows = self.examples
        tested = rows.filter(pl.col(FOLD) != TRAIN_ONLY)
        shown = f", {self.labels(tested).mean():.1%} positive" if self.kind == "binary" else ""
        return (
            f"Task({self.name!r}, {self.kind}, {rows.height:,} examples of "
            f"{rows[ENTITY].n_unique():,} entities, {tested.height:,} tested in "
            f"{len(self.folds)} folds by {self.split}{shown})"
        )


def _check_examples(task: Task) -> None:
    rows, where = task.examples, f"task {task.name!r}"
    _need(rows, (EXAMPLE, ENTITY, CUT, LABEL, FOLD), where)
    if task.kind not in KINDS:
        raise DataError(f"there is no task kind {task.kind!r}", where=where)
    if not rows.height:
        raise DataError("the task has no examples", where=where, next_step="check the cuts")
    if rows[EXAMPLE].dtype != pl.Int64 or not rows[EXAMPLE].is_sorted():
        raise DataError("examples must be numbered by ascending int64 keys", where=where)
    if rows[EXAMPLE].is_duplicated().any():
        raise DataError("two examples have one key", where=where)
    if nulls := rows[LABEL].null_count():
        raise DataError(
            f"{nulls} examples have no label", where=where, next_step="leave them out of the task"
        )
    wanted = _LABEL_TYPES.get(task.kind, pl.Float64)
    if rows[LABEL].dtype != wanted:
        raise DataError(f"labels are {rows[LABEL].dtype}, not {wanted()}", where=where)
    if task.kind == "regression":
        bad = int((~rows[LABEL].is_finite()).sum())
        if bad:
            raise DataError(
                f"{bad} labels are NaN or infinite",
                where=where,
                next_step="leave these examples out, or repair the column",
            )
    else:
        low, high = int(task.labels(rows).min()), int(task.labels(rows).max())
        if low < 0 or high >= task.n_classes:
            raise DataError(
                "a label is no class",
                where=where,
                why=f"labels run from {low} to {high}, there are {task.n_classes} classes",
            )
    if EXAMPLE in task.table.frame.columns:
        raise DataError(
            f"the table has a column named {EXAMPLE!r}",
            where=where,
            next_step="rename it: histories use this name for their key",
        )
    if task.static is not None and task.static[ENTITY].is_duplicated().any():
        raise DataError("an entity has two rows of static columns", where=where)
    task._entity_index(rows[ENTITY].head(1))
    if not task.folds:
        raise DataError("no example is tested: every fold is -1", where=where)


def _need(frame: pl.DataFrame, names: tuple[str, ...], where: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataError(f"there is no column {missing[0]!r}", where=where)
