"""Aggregates of examples at their cuts: what an expert would hand to gradient-boosted trees.

::

    e──e──────e─e──│ cut          windows    ├── 30 ──┤
         ▲ age     now             trends     mean(window) against mean(all)
    per example   timing · numbers · categories · lags · ratios
    per code      count, first, last, min, max, mean, slope … of a measurement table
    per entity    static columns

:class:`TaskFeatures` reads events through :meth:`Task.history` alone, so nothing at or after a cut
can enter; what has to be learned (frequent categories, frequent codes) is learned from training
examples and kept. The numbers of categories are of their training ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import polars as pl

from domainformer.errors import DataError, nearest
from domainformer.evaluation.example_aggregates import (
    ROW,
    TOTALS,
    VISIT,
    code_aggregates,
    code_ratios,
    label_aggregates,
    number_aggregates,
    timing_aggregates,
)
from domainformer.evaluation.feature_plan import FeaturePlan
from domainformer.evaluation.rhythm_aggregates import YEAR, rhythm_aggregates
from domainformer.evaluation.tasks import EXAMPLE, Task
from domainformer.evaluation.working_events import visit_frame, working_frame


@dataclass(frozen=True, eq=False)
class TaskFeatures:
    """A plan with what was learned from training examples.

    Args:
        plan: Which columns become which aggregates.
        frequent: Column → its values by falling frequency in the training histories.
    """

    plan: FeaturePlan
    frequent: Mapping[str, Sequence[Any]]

    @classmethod
    def fit(cls, task: Task, examples: pl.DataFrame, plan: FeaturePlan) -> Self:
        """Learn the frequent values from the histories of training examples.

        Raises:
            DataError: The plan names a column that neither the table nor the static table has.
        """
        check_plan(task, plan)
        columns = [*plan.labels, *([plan.code] if plan.code else [])]
        seen = task.history(examples).frame
        frequent = {}
        for name in columns:
            values = seen[name].cast(pl.String).drop_nulls().rename("value")
            counts = values.value_counts(name="count")
            ordered = counts.sort(["count", "value"], descending=[True, False])
            frequent[name] = ordered["value"].to_list()
        return cls(plan, frequent)

    def transform(self, task: Task, examples: pl.DataFrame) -> pl.DataFrame:
        """One row per example in their order: ``example``, then float32 columns and nulls.

        An example without events has ``events`` 0 and null elsewhere; NaN and infinite numbers of
        the table count as missing.
        """
        plan = self.plan
        working = working_frame(task, examples, plan)
        grouped = working.group_by(ROW, maintain_order=True)
        expressions = timing_aggregates(plan.windows)
        for name in _numeric_names(plan):
            expressions += number_aggregates(name, plan.windows, plan.lags)
        for name in plan.labels:
            # A column may be read both ways: as a number, and value by value.
            shown = f"kind of {name}" if name in plan.numeric else name
            expressions += label_aggregates(
                name, self.frequent[name], plan.windows, plan.top, shown=shown
            )
        parts = [grouped.agg(expressions)]
        if plan.visits:
            visits = visit_frame(working, plan.visits).group_by(ROW, maintain_order=True)
            totals = [number_aggregates(f"visit {n}", plan.windows, plan.lags) for n in plan.visits]
            parts.append(visits.agg(one for total in totals for one in total))
        if plan.horizon is not None:
            seen = working.filter(VISIT).group_by(ROW, maintain_order=True)
            year = YEAR if task.table.time_kind in ("date", "datetime") else None
            parts.append(seen.agg(rhythm_aggregates(plan.horizon, year=year)))
        if plan.code is not None:
            codes = dict.fromkeys(
                [*self.frequent[plan.code][: plan.top], *plan.same_codes.values()]
            )
            wide = code_aggregates(working, list(codes), plan.windows)
            parts.append(code_ratios(wide, plan.code_ratios))
        features = examples.select(EXAMPLE).with_row_index(ROW)
        features = features.with_columns(pl.col(ROW).cast(pl.Int64))
        for part in parts:
            features = features.join(part, on=ROW, how="left", maintain_order="left")
        features = features.drop(ROW).with_columns(pl.col("events").fill_null(0))
        if not plan.totals:
            features = features.drop(_totals(plan, features.columns))
        static = _static(task, examples, plan)
        names = [name for name in features.columns if name != EXAMPLE]
        return features.with_columns(_finite(name) for name in names).hstack(static.get_columns())


def check_plan(task: Task, plan: FeaturePlan) -> None:
    """Refuse a plan that the task's columns do not answer.

    Raises:
        DataError: The plan names a column that neither the table nor the static table has.
    """
    have = task.table.frame.columns
    fixed = [] if task.static is None else task.static.columns
    named = [*plan.numeric, *plan.labels, *(n for n in (plan.code, plan.value) if n)]
    named += [n for pair in [*plan.products, *plan.paid] for n in pair]
    wanted = [*((n, have) for n in [*named, *(a for a, _ in plan.ratios)])]
    wanted += [(b, [*have, *fixed]) for _, b in plan.ratios]
    wanted += [(n, _numeric_names(plan)) for n in plan.visits]
    for name, known in wanted:
        if name not in known:
            raise DataError(
                f"the plan names a column that the task lacks: {name!r}",
                where=f"task {task.name!r}",
                next_step=nearest(name, known),
            )


def _numeric_names(plan: FeaturePlan) -> list[str]:
    ratios = (f"{a}/{b}" for a, b in plan.ratios)
    products = (f"{a}*{b}" for a, b in plan.products)
    return [*plan.numeric, *ratios, *products, *(f"{a}/previous {b}" for a, b in plan.paid)]


def _totals(plan: FeaturePlan, columns: Sequence[str]) -> list[str]:
    """Columns of timing, numbers and categories that describe the whole record."""
    shown = [f"kind of {name}" if name in plan.numeric else name for name in plan.labels]
    owners = [*_numeric_names(plan), *(f"visit {name}" for name in plan.visits), *shown]
    named = {*TOTALS["timing"], *(f"{own}.{one}" for own in owners for one in TOTALS["column"])}
    return [name for name in columns if name in named]


def _static(task: Task, examples: pl.DataFrame, plan: FeaturePlan) -> pl.DataFrame:
    fixed = task.static_features(examples).drop(EXAMPLE)
    fixed = fixed.drop(name for name in plan.without_static if name in fixed.columns)
    numbers = [name for name, dtype in fixed.schema.items() if dtype.is_numeric()]
    return fixed.with_columns(_finite(name) for name in numbers).rename(
        {name: f"static.{name}" for name in fixed.columns}
    )


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float32)
    return pl.when(value.is_finite()).then(value).alias(name)


__all__ = ["FeaturePlan", "TaskFeatures", "check_plan"]
