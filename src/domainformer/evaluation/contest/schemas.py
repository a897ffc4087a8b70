"""The schema of a task: from a file, a preset, or inferred from the training histories alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from domainformer.config import dump_yaml
from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError, nearest
from domainformer.evaluation.tasks import EXAMPLE, Task
from domainformer.schema import PRESETS, DomainSchema
from domainformer.schema.infer import infer_schema

GivenSchema = str | dict[str, Any] | None
"""A file or a preset by name, a schema as a mapping (as its YAML has it), or None: inferred."""


def schema_of(task: Task, examples: pl.DataFrame, named: GivenSchema = None) -> DomainSchema:
    """The schema that models of a task read events by.

    Args:
        task: The task.
        examples: Training examples; nothing else is looked at.
        named: A schema file (YAML), a preset's name, or a mapping with ``fields``; None: inferred.

    Raises:
        ConfigError: The name is neither a file nor a preset, or the schema reads a column that
            the events do not have (the label is taken out of them).
        DataError: No training example has any event.
    """
    if named is None:
        return infer_schema(training_events(task, examples), label=None, name=task.name).schema
    if isinstance(named, Mapping):
        schema = DomainSchema.from_yaml(dump_yaml({"name": task.name, **named}))
    elif Path(named).is_file():
        schema = DomainSchema.from_yaml(named)
    elif named in PRESETS:
        schema = PRESETS[named]
    else:
        raise ConfigError(
            f"there is no schema {named!r}",
            where="schema",
            why="it is neither a file nor a preset",
            next_step=nearest(named, PRESETS),
        )
    known = set(task.table.frame.columns) - {task.table.entity}
    for field in schema.fields:
        if field.source not in known:
            raise ConfigError(
                f"the schema reads a column that the task lacks: {field.source!r}",
                where=f"task {task.name!r}",
                why="a label column is taken out of the events, the entity is no feature",
                next_step=nearest(field.source, known),
            )
    return schema


def training_events(task: Task, examples: pl.DataFrame) -> EventTable:
    """Events that some training example may see, those of an entity once.

    An entity with several cuts would else be counted several times: of its examples the one that
    sees most is taken. The entity is the example; the column of entities is left out, for a name is
    no feature.

    Raises:
        DataError: No example has any event.
    """
    starts, ends = task.bounds(examples)
    seen = (
        examples.select(EXAMPLE, pl.Series("owner", starts), pl.Series("seen", ends - starts))
        .filter(pl.col("seen") > 0)
        .sort("seen", EXAMPLE, descending=[True, False])
        .unique("owner", keep="first", maintain_order=True)
    )
    if not seen.height:
        raise DataError(
            "no training example has any event",
            where=f"task {task.name!r}",
            next_step="check the cuts, and whether labels and events name entities alike",
        )
    chosen = examples.filter(pl.col(EXAMPLE).is_in(seen[EXAMPLE].implode()))
    seen_by = task.history(chosen)
    return EventTable(
        seen_by.frame.drop(task.table.entity),
        EXAMPLE,
        seen_by.time,
        seen_by.offsets,
        seen_by.time_kind,
    )
