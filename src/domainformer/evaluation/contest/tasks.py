"""The task that a configuration describes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from domainformer.artifacts import fingerprint
from domainformer.data import EventTable
from domainformer.data.frames import check_columns
from domainformer.data.readers import scan
from domainformer.errors import DataError, nearest
from domainformer.evaluation.contest.config import LabelConfig, TaskConfig
from domainformer.evaluation.next_tasks import next_item_task, next_value_task
from domainformer.evaluation.public_tasks import public_task, simulated_order
from domainformer.evaluation.task_building import task_at_cuts, task_from_labels
from domainformer.evaluation.tasks import Task


def make_task(config: TaskConfig) -> Task:
    """Read the table and build the task.

    Raises:
        DataError: The table, the label or the cuts cannot be used.
        ArtifactError: The folder of the public tables was not found.
    """
    if config.public is not None:
        return public_task(config.public, config.folder)
    if config.simulated is not None:
        values = config.simulated
        return simulated_order(
            values.entities,
            events_per_entity=values.events_per_entity,
            folds=values.folds,
            seed=values.seed,
        )
    table = EventTable.read(
        str(config.table), entity=config.entity, time=config.time, columns=_columns(config)
    )
    name = config.name or Path(str(config.table)).stem
    if config.label is not None:
        return _labelled(name, table, config.label)
    if config.next_value is not None:
        asked = config.next_value
        return next_value_task(
            name,
            table,
            asked.column,
            test_from=asked.test_from,
            validation_from=asked.validation_from,
            kind=asked.kind,
        )
    if config.next_item is not None:
        return next_item_task(name, table, config.next_item)
    return _at_cuts(name, table, config)


def _columns(config: TaskConfig) -> list[str] | None:
    if config.columns is None:
        return None
    label = config.label
    own = [label.column] if label is not None and label.table is None else []
    return [*config.columns, *(name for name in own if name not in config.columns)]


def _labelled(name: str, table: EventTable, asked: LabelConfig) -> Task:
    labels = static = None
    if asked.table is not None:
        rows = _one_per_entity(asked.table, table)
        if asked.column not in rows.columns:
            raise DataError(
                f"there is no column {asked.column!r}",
                where=asked.table,
                next_step=nearest(asked.column, rows.columns),
            )
        others = [one for one in rows.columns if one not in (table.entity, asked.column)]
        kept = others if asked.static is None else list(asked.static)
        for one in kept:
            if one not in others:
                raise DataError(
                    f"there is no static column {one!r}",
                    where=asked.table,
                    why="it is the label" if one == asked.column else None,
                    next_step=nearest(one, others),
                )
        labels = rows.select(table.entity, asked.column)
        static = rows.select(table.entity, *kept) if kept else None
    return task_from_labels(
        name,
        table,
        labels,
        label=asked.column,
        kind=asked.kind,
        static=static,
        folds=asked.folds,
        seed=asked.seed,
        cut=asked.cut,
    )


def _at_cuts(name: str, table: EventTable, config: TaskConfig) -> Task:
    asked = config.cuts
    assert asked is not None
    label: pl.Expr | str = asked.label
    if asked.column is not None:
        if asked.column not in table.frame.columns:
            raise DataError(
                f"there is no column {asked.column!r}",
                next_step=nearest(asked.column, table.frame.columns),
            )
        dtype = table.frame[asked.column].dtype
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            raise DataError(
                f"there is no {asked.label} of {asked.column!r}",
                where="task.cuts.column",
                why=f"it is {dtype}, and not a number",
                next_step="name a column of numbers, or take the label any_event or no_event",
            )
        label = getattr(pl.col(asked.column), asked.label)()
    static = None if asked.static is None else _one_per_entity(asked.static, table)
    return task_at_cuts(
        name,
        table,
        asked.train,
        asked.test,
        horizon=asked.horizon,
        observed=asked.observed,
        label=label,  # type: ignore[arg-type]
        kind="binary" if asked.column is None else "regression",
        static=static,
        known_until=asked.known_until,
    )


def _one_per_entity(path: str, table: EventTable) -> pl.DataFrame:
    """A file with one row per entity, the entity first; rows without an entity are left out."""
    source = scan(path)
    entity = table.entity
    check_columns((entity,), source.schema(), where=path)
    # Where events name entities by text, 007 is no number here either.
    as_text = (entity,) if source.format == "CSV" and table.entity_ids.dtype == pl.String else ()
    rows, _ = source.collect(text=as_text)
    rows = rows.select(entity, pl.exclude(entity)).drop_nulls(entity)
    if rows[entity].is_duplicated().any():
        twice = rows.filter(pl.col(entity).is_duplicated())[entity][0]
        raise DataError(
            "an entity has two rows",
            where=f"{path}, {entity} {twice!r}",
            next_step="keep one row per entity: a label and static columns are of the entity",
        )
    return rows


def task_fingerprint(task: Task) -> str:
    """A short name of table, examples, labels, folds and static columns.

    Example:
        >>> task = simulated_order(40, events_per_entity=16)
        >>> task_fingerprint(task) == task_fingerprint(simulated_order(40, events_per_entity=16))
        True
        >>> task_fingerprint(task) == task_fingerprint(simulated_order(40, events_per_entity=17))
        False
    """
    frames = [task.examples, *([] if task.static is None else [task.static])]
    return fingerprint([task.name, task.kind, task.table.fingerprint(), *map(_digest, frames)])


def _digest(frame: pl.DataFrame) -> str:
    return fingerprint(
        [(name, str(frame[name].dtype), frame[name].to_list()) for name in frame.columns]
    )
