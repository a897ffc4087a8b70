"""``lightgbm``: what a team runs today, with a plan of its own for tables that have none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from domainformer.errors import DataError
from domainformer.evaluation.contest.schemas import schema_of
from domainformer.evaluation.gbdt import GradientBoosting
from domainformer.evaluation.tabular_baseline import (
    FittedTabular,
    TabularBaseline,
    public_plan,
)
from domainformer.evaluation.task_features import FeaturePlan, check_plan
from domainformer.evaluation.task_parts import time_unit
from domainformer.evaluation.tasks import Task
from domainformer.schema import FieldType

_NUMBERS = (FieldType.NUMERICAL_CONTINUOUS, FieldType.NUMERICAL_DISCRETE, FieldType.SIGN)
_NAMES = (FieldType.CATEGORICAL_FIXED, FieldType.CATEGORICAL_ENTITY, FieldType.TEXT)


@dataclass(frozen=True)
class LightGBM:
    """Aggregates at the cut into tuned LightGBM.

    Args:
        plan: Which columns become which aggregates: a
            :class:`~domainformer.evaluation.task_features.FeaturePlan`, or the name of a public
            task whose plan is taken; None: the plan of the task's own name where there is one, else
            one inferred from the training histories (:func:`infer_plan`).
        boosting: How LightGBM is tuned.
    """

    learns_from_validation: ClassVar[bool] = True

    plan: FeaturePlan | str | None = None
    boosting: GradientBoosting = field(default_factory=GradientBoosting)

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedTabular:
        """Learn from training and validation examples together; the search has its own folds."""
        plan = find_plan(self.plan, task, examples_train)
        return TabularBaseline(plan, self.boosting).fit(task, examples_train, examples_valid, seed)


def find_plan(given: FeaturePlan | str | None, task: Task, examples: pl.DataFrame) -> FeaturePlan:
    """The plan that is given or named, the one of the task's name, or an inferred one.

    Args:
        given: A plan, the name of a public task, or None.
        task: The task.
        examples: Training examples, whose histories are looked at where a plan is inferred.

    Raises:
        DataError: There is no plan of that name.
    """
    if isinstance(given, FeaturePlan):
        return given
    if given is not None:
        return public_plan(given)
    try:
        plan = public_plan(task.name)
        check_plan(task, plan)
    except DataError:  # no public task, or a table of one's own that is called like one
        return infer_plan(task, examples)
    return plan


def infer_plan(task: Task, examples: pl.DataFrame) -> FeaturePlan:
    """A plan from what the columns of the training histories are.

    Numbers get moments, trends, windows and three lags; categories and texts their frequent values;
    windows are an eighth, a quarter and a half of the usual (90th percentile) length of a history.
    Where the question is whether anything happens within a horizon, the plan has it, too.

    Example:
        >>> from domainformer.evaluation.public_tasks import simulated_order
        >>> task = simulated_order(60, events_per_entity=20)
        >>> plan = infer_plan(task, task.examples)
        >>> plan.numeric, plan.labels, len(plan.windows)
        (('amount',), ('category', 'channel', 'description'), 3)
    """
    columns: dict[Literal["numbers", "names"], list[str]] = {"numbers": [], "names": []}
    taken = {task.table.time}
    for spec in schema_of(task, examples).fields:
        if spec.source in taken:
            continue
        taken.add(spec.source)
        if spec.field_type in _NUMBERS:
            columns["numbers"].append(spec.source)
        elif spec.field_type in _NAMES:
            columns["names"].append(spec.source)
    return FeaturePlan(
        numeric=tuple(sorted(columns["numbers"])),
        labels=tuple(sorted(columns["names"])),
        windows=_windows(task, examples),
        horizon=_horizon(task),
        lags=3,
    )


def _windows(task: Task, examples: pl.DataFrame) -> tuple[float, ...]:
    history = task.history(examples)
    if history.time is None or not history.n_events:
        return ()
    times = history.time_values
    spans = times[history.offsets[1:] - 1] - times[history.offsets[:-1]]
    scale = time_unit(history)
    usual = float(np.quantile(spans, 0.9)) / scale
    found = (float(f"{usual * share:.2g}") for share in (0.125, 0.25, 0.5))
    return tuple(dict.fromkeys(window for window in found if window > 0))


def _horizon(task: Task) -> float | None:
    """The length of the window that a label of silence or activity looks at; None: another label.

    A record tells a horizon as text; one that is no plain number (a timedelta) is left out.
    """
    if task.record.get("label") not in ("no_event", "any_event"):
        return None
    told = str(task.record.get("horizon", ""))
    return float(told) if told.isdecimal() else None
