"""Constructors of tasks: labels of entities, labels after a cut, next values, next items.

==========================  ===========================================================
:func:`task_from_labels`    a label per entity (default, death); stratified, seeded folds
:func:`task_at_cuts`        what happens after a cut (churn, spend); trained on earlier cuts
:func:`next_value_task`     a column of the next event (expense kind); split at a date
:func:`next_item_task`      the next item; leave-last-out
==========================  ===========================================================

No label is shown: a label column is taken out of the table, and what computes a label from events
reads only events from the cut on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME
from domainformer.data.splits import Cut
from domainformer.errors import DataError
from domainformer.evaluation.labels import read_labels
from domainformer.evaluation.next_tasks import next_item_task, next_value_task
from domainformer.evaluation.probe import stratified_folds
from domainformer.evaluation.task_parts import (
    DAY_US,
    Duration,
    duration,
    encode_labels,
    make_examples,
    moment,
    refuse_one_class,
    without_label,
)
from domainformer.evaluation.tasks import CUT, ENTITY, LABEL, TRAIN_ONLY, Task

__all__ = ["task_from_labels", "task_at_cuts", "next_value_task", "next_item_task"]


def task_from_labels(
    name: str,
    table: EventTable,
    labels: pl.DataFrame | None = None,
    *,
    label: str,
    kind: Literal["binary", "multiclass", "regression"] = "binary",
    static: pl.DataFrame | None = None,
    folds: int = 5,
    seed: int = 0,
    cut: Cut | None = None,
) -> Task:
    """One label per entity; folds by entity, stratified by label.

    Entities without a label are left out; entities without events stay, with an empty history (a
    patient without measurements also lives or dies). Both are counted in the record. Folds depend
    on the seed and the sorted entities alone.

    Args:
        name: Name of the task.
        table: The events; a column named like the label is taken out of it.
        labels: Entity column first, and the label; None: a column that the table repeats.
        label: Name of the label column.
        kind: Binary takes any two values (the later in sorted order is 1).
        static: Entity column first, then static columns (the label is refused among them).
        folds: Number of folds.
        seed: Seed of the folds.
        cut: Show events before it only; None shows all.

    Raises:
        DataError: One class, a class with fewer entities than folds, a label that varies within an
            entity, NaN or infinite labels, a static table that contains the label, or labels of
            entities that the events do not name.

    Example:
        >>> events = pl.DataFrame({"id": [1, 2, 3, 4], "x": [1, 2, 3, 4], "died": [0, 1, 0, 1]})
        >>> task_from_labels("death", EventTable.of(events, entity="id"), label="died", folds=2)
        Task('death', binary, 4 examples of 4 entities, 4 tested in 2 folds by entity, ...)
    """
    found = read_labels(table if labels is None else labels, _first(labels, table), label)
    found = found.rename({found.columns[0]: ENTITY, label: LABEL})
    found = _as_entities(found, table, "labels")
    unlabelled = found[LABEL].null_count()
    found = found.drop_nulls(LABEL).sort(ENTITY)
    classes, values = encode_labels(found[LABEL], kind, name, folds)
    fold = stratified_folds(values.to_numpy(), folds, seed=seed, continuous=kind == "regression")
    at = None if cut is None else moment(table, cut)
    examples = make_examples(
        table, found[ENTITY], pl.Series([at] * found.height, dtype=pl.Int64), values, fold
    )
    without = int((~found[ENTITY].is_in(table.entity_ids.implode())).sum())
    return Task(
        name,
        without_label(table, label),
        examples,
        kind,
        static=_static(static, label, table, name),
        classes=classes,
        split="entity",
        record={
            "label": label,
            "folds": folds,
            "seed": seed,
            "cut": None if cut is None else str(cut),
            "left_out_without_label": unlabelled,
            "entities_without_events": without,
        },
    )


def task_at_cuts(
    name: str,
    table: EventTable,
    train_cuts: Sequence[Cut],
    test_cut: Cut,
    *,
    horizon: Duration,
    observed: Duration | None = None,
    label: Literal["no_event", "any_event"] | pl.Expr = "no_event",
    kind: Literal["binary", "regression"] = "binary",
    empty: float = 0,
    static: pl.DataFrame | None = None,
    known_until: Cut | None = None,
) -> Task:
    """What happens in ``[cut, cut + horizon)``, trained on earlier cuts, tested on the last.

    ::

        seen ──e──e─────e──│train cut──horizon──│     │test cut──horizon──│ known_until
                           label looks here      ≤ test cut   label looks here

    An entity is an example at each cut where it was seen (within ``observed``, if given). Training
    labels must be complete before the test cut, as they would have to be in use.

    Args:
        name: Name of the task.
        table: A table with times.
        train_cuts: Cuts to learn from: ISO strings, dates, or whole numbers of an integer time.
        test_cut: The cut to be judged at.
        horizon: Length of the label's window: days (int or timedelta), or units of an integer time.
        observed: An entity counts only if its last event is at most this long before the cut.
        label: "no_event" (churn, dormancy), "any_event", or an aggregation over the entity's
            events in the window, such as ``pl.col("amount").sum()``.
        kind: Binary or regression.
        empty: What an aggregation gives where the window has no events.
        static: Entity column first, then static columns known before every cut.
        known_until: Up to when the table is complete; None: its last event. Later events are an
            error: timestamps in the future hide that a window is not over.

    Raises:
        DataError: A training window reaches past the test cut, the test window past what is known,
            events lie after ``known_until``, a cut has no examples, or all labels are equal.

    Example:
        >>> days = pl.DataFrame({"id": [1, 1, 2, 2, 3], "day": [1, 12, 2, 9, 3], "x": range(5)})
        >>> task = task_at_cuts("churn", EventTable.of(days, entity="id", time="day"), [5], 10,
        ...                     horizon=5, known_until=15)
        >>> task.examples.select("entity", "cut", "label", "fold").rows()[-3:]
        [(1, 10, 0, 0), (2, 10, 1, 0), (3, 10, 1, 0)]
    """
    if isinstance(label, str) and label not in ("no_event", "any_event"):
        raise DataError(
            f"there is no label {label!r}",
            where=f"task {name!r}",
            next_step="pass no_event, any_event, or a polars aggregation of the window's events",
        )
    window = duration(table, horizon)
    test = moment(table, test_cut)
    train_cuts = sorted(train_cuts, key=lambda cut: moment(table, cut))
    trains = [moment(table, cut) for cut in train_cuts]
    _check_cuts(name, table, trains, test, window, known_until)
    reach = None if observed is None else duration(table, observed)
    parts = [_at_cut(table, cut, window, reach, label, empty) for cut in [*trains, test]]
    for part, cut in zip(parts, [*train_cuts, test_cut], strict=True):
        if not part.height:
            raise DataError(f"no entity was seen before the cut {cut}", where=f"task {name!r}")
    rows = pl.concat(parts)
    fold = np.where(rows[CUT].to_numpy() == test, 0, TRAIN_ONLY)
    values = rows[LABEL].cast(pl.Int64 if kind == "binary" else pl.Float64)
    for role, chosen in (("training", fold < 0), ("test", fold == 0)):
        refuse_one_class(values.filter(pl.Series(chosen)), f"task {name!r}, {role} cuts")
    return Task(
        name,
        table,
        make_examples(table, rows[ENTITY], rows[CUT], values, fold),
        kind,
        static=_static(static, None, table, name),
        split="time",
        record={
            "train_cuts": [str(cut) for cut in train_cuts],
            "test_cut": str(test_cut),
            "horizon": str(horizon),
            "observed": None if observed is None else str(observed),
            "label": str(label),
        },
    )


def _at_cut(
    table: EventTable,
    cut: int,
    window: int,
    reach: int | None,
    label: Literal["no_event", "any_event"] | pl.Expr,
    empty: float,
) -> pl.DataFrame:
    """Entities seen before one cut, and their labels from the events in its window."""
    times, entity = table.time_values, table.entity
    before = (times < cut) & (times != NULL_TIME)
    seen = before if reach is None else before & (times >= cut - reach)
    entities = table.frame[entity].filter(pl.Series(seen)).unique().sort().alias(ENTITY)
    after = table.frame.filter(pl.Series((times >= cut) & (times < cut + window)))
    rule: pl.Expr = pl.len() if isinstance(label, str) else label
    found = after.group_by(entity).agg(rule.alias(LABEL)).rename({entity: ENTITY})
    rows = entities.to_frame().join(found, on=ENTITY, how="left", maintain_order="left")
    if isinstance(label, str) and label == "no_event":
        value = pl.col(LABEL).is_null().cast(pl.Float64)
    elif isinstance(label, str):
        value = pl.col(LABEL).is_not_null().cast(pl.Float64)
    else:
        value = pl.col(LABEL).cast(pl.Float64).fill_null(empty)
    return rows.select(ENTITY, pl.lit(cut, pl.Int64).alias(CUT), value.alias(LABEL))


def _check_cuts(
    name: str,
    table: EventTable,
    trains: list[int],
    test: int,
    window: int,
    known_until: Cut | None,
) -> None:
    where = f"task {name!r}"
    if not trains or window <= 0:
        raise DataError("a training cut and a horizon above zero are needed", where=where)
    if trains[-1] + window > test:
        raise DataError(
            "a training label looks past the test cut",
            where=where,
            why="the last training cut and the horizon end after the test cut",
            next_step="take earlier training cuts, or a shorter horizon",
        )
    last = int(table.time_values.max())
    # A table of dates is known to the end of its last day.
    end = last + (DAY_US if table.time_kind == "date" else 1)
    if known_until is not None:
        known = moment(table, known_until)
        later = int((table.time_values > known).sum())
        if later:
            raise DataError(
                f"{later} events lie after {known_until}",
                where=where,
                why="timestamps in the future cannot have been observed",
                next_step="repair or remove them",
            )
        end = max(end, known)
    if test + window > end:
        raise DataError(
            "the test window is not over",
            where=where,
            why="the table ends before the test cut and the horizon do",
            next_step="take an earlier test cut, a shorter horizon, or pass known_until",
        )


def _static(
    static: pl.DataFrame | None, label: str | None, table: EventTable, name: str
) -> pl.DataFrame | None:
    if static is None:
        return None
    if label is not None and label in static.columns:
        raise DataError(
            f"the static columns contain the label {label!r}",
            where=f"task {name!r}",
            next_step="drop the column: a model would read the answer",
        )
    named = static.rename({static.columns[0]: ENTITY})
    return _as_entities(named, table, "static columns")


def _as_entities(rows: pl.DataFrame, table: EventTable, what: str) -> pl.DataFrame:
    """Rows whose entities have the type that the events give them, some of which have events."""
    ids, named = table.entity_ids, rows[ENTITY].drop_nulls()
    try:
        rows = rows.with_columns(pl.col(ENTITY).cast(ids.dtype))
        known = bool(rows[ENTITY].is_in(ids.implode()).any())
    except pl.exceptions.PolarsError:
        known = False
    if not known:
        raise DataError(
            f"the {what} name no entity of the events",
            where=f"column {table.entity!r}",
            why=f"they have {named.head(3).to_list()} ({named.dtype}), the events "
            f"{ids.head(3).to_list()} ({ids.dtype})",
            next_step="name entities alike in both tables",
        )
    return rows


def _first(labels: pl.DataFrame | None, table: EventTable) -> str:
    return table.entity if labels is None else labels.columns[0]
