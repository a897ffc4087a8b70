"""Validation examples where a model is given none."""

from __future__ import annotations

import polars as pl

from domainformer.errors import DataError
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.tasks import Task, TaskSplit


def with_validation(
    task: Task, train: pl.DataFrame, valid: pl.DataFrame, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The parts as they are, or a fifth of the training examples held out as the protocol does.

    Args:
        task: The task.
        train: Training examples.
        valid: Validation examples; empty where nothing may be learned from them.
        seed: Of the part that is held out.

    Raises:
        DataError: There are no training examples, or too few to hold some out.
    """
    if not train.height:
        raise DataError("there are no training examples", where=f"task {task.name!r}")
    if valid.height:
        return train, valid
    return inner_split(task, TaskSplit(0, train, None, train.clear()), seed=seed)
