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
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import polars as pl

from domainformer.data.keys import NULL_TIME, integer_times
from domainformer.errors import ConfigError, DataError, nearest
from domainformer.evaluation.example_aggregates import (
    AGE,
    ROW,
    VISIT,
    code_aggregates,
    label_aggregates,
    number_aggregates,
    timing_aggregates,
)
from domainformer.evaluation.tasks import CUT, EXAMPLE, Task

_MICROSECONDS_A_DAY = 86_400e6


@dataclass(frozen=True)
class FeaturePlan:
    """Which columns of a task's table become which aggregates.

    Args:
        numeric: Columns with numbers.
        labels: Columns with categories.
        ratios: Pairs (numerator, denominator) of numeric columns; the denominator may be a static
            column. Each becomes a numeric column ``a/b`` of its own.
        code: Column that tells what a row measures; with ``value`` it gets statistics per code.
        value: Column with the measured number.
        windows: Lengths before the cut: days where the table has dates, else its own units.
        lags: So many last values of each numeric column become columns.
        top: Frequent values of a category, and codes, that get columns of their own.
        static: Static columns to leave out (names); all others are taken.

    Raises:
        ConfigError: Code without value, a window that is not positive.
    """

    numeric: Sequence[str] = ()
    labels: Sequence[str] = ()
    ratios: Sequence[tuple[str, str]] = ()
    code: str | None = None
    value: str | None = None
    windows: Sequence[float] = ()
    lags: int = 0
    top: int = 20
    without_static: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if (self.code is None) != (self.value is None):
            raise ConfigError("a code column needs a value column, and the other way round")
        if any(window <= 0 for window in self.windows):
            raise ConfigError(f"windows must be above 0, and are {list(self.windows)}")


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
        _check(task, plan)
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
        working = _working_frame(task, examples, plan)
        grouped = working.group_by(ROW, maintain_order=True)
        expressions = timing_aggregates(plan.windows)
        for name in _numeric_names(plan):
            expressions += number_aggregates(name, plan.windows, plan.lags)
        for name in plan.labels:
            expressions += label_aggregates(name, self.frequent[name], plan.windows, plan.top)
        parts = [grouped.agg(expressions)]
        if plan.code is not None:
            codes = self.frequent[plan.code][: plan.top]
            parts.append(code_aggregates(working, codes, plan.windows))
        features = examples.select(EXAMPLE).with_row_index(ROW)
        features = features.with_columns(pl.col(ROW).cast(pl.Int64))
        for part in parts:
            features = features.join(part, on=ROW, how="left", maintain_order="left")
        features = features.drop(ROW).with_columns(pl.col("events").fill_null(0))
        static = _static(task, examples, plan)
        names = [name for name in features.columns if name != EXAMPLE]
        return features.with_columns(_finite(name) for name in names).hstack(static.get_columns())


def _check(task: Task, plan: FeaturePlan) -> None:
    have = task.table.frame.columns
    fixed = [] if task.static is None else task.static.columns
    named = [*plan.numeric, *plan.labels, *(n for n in (plan.code, plan.value) if n)]
    wanted = [*((n, have) for n in [*named, *(a for a, _ in plan.ratios)])]
    wanted += [(b, [*have, *fixed]) for _, b in plan.ratios]
    for name, known in wanted:
        if name not in known:
            raise DataError(
                f"the plan names a column that the task lacks: {name!r}",
                where=f"task {task.name!r}",
                next_step=nearest(name, known),
            )


def _numeric_names(plan: FeaturePlan) -> list[str]:
    return [*plan.numeric, *(f"{a}/{b}" for a, b in plan.ratios)]


def _working_frame(task: Task, examples: pl.DataFrame, plan: FeaturePlan) -> pl.DataFrame:
    """Events of all histories: example's row, age, first-of-its-time, ``n.`` and ``c.`` columns."""
    history = task.history(examples)
    order = pl.DataFrame({EXAMPLE: examples[EXAMPLE]}).with_row_index(ROW)
    rows = history.frame.select(EXAMPLE).join(order, on=EXAMPLE, how="left", maintain_order="left")
    row = rows[ROW].to_numpy().astype(np.int64)
    age, visit = _ages(task, examples, history, row)
    columns = {ROW: pl.Series(row), AGE: age, VISIT: visit}
    numbers = {n for n in [*plan.numeric, plan.value] if n}
    numbers |= {a for a, _ in plan.ratios}
    for name in sorted(numbers):
        columns[f"n.{name}"] = _number(history.frame[name])
    fixed = {} if task.static is None else _by_row(task, examples, plan)
    for above, below in plan.ratios:
        if below in history.frame.columns:
            denominator = _number(history.frame[below])
        else:
            denominator = fixed[below].gather(pl.Series(row))
        ratio = columns[f"n.{above}"] / denominator
        columns[f"n.{above}/{below}"] = _number(ratio.alias("ratio"))
    for name in [*plan.labels, *([plan.code] if plan.code else [])]:
        columns[f"c.{name}"] = history.frame[name].cast(pl.String)
    frame = pl.DataFrame(columns)
    if plan.code is not None:
        frame = frame.with_columns(
            pl.col(f"c.{plan.code}").alias("code"), pl.col(f"n.{plan.value}").alias("value")
        )
    return frame


def _ages(
    task: Task, examples: pl.DataFrame, history: Any, row: np.ndarray
) -> tuple[pl.Series, pl.Series]:
    """Days (or units) from each event to its cut, and whether it is the first at its time.

    Without a cut, now is the last time of the whole table; without times, a unit is an event.
    """
    times = history.time_values
    scale = _MICROSECONDS_A_DAY if history.time_kind in ("date", "datetime") else 1.0
    if history.time is None:
        ends = np.repeat(history.offsets[1:], history.lengths)
        age = (ends - np.arange(history.n_events)).astype(np.float64)
        return pl.Series(age), pl.Series(np.ones(len(age), bool))
    cuts = np.full(examples.height, NULL_TIME)
    if examples[CUT].null_count() < examples.height:
        cuts = integer_times(examples[CUT])
    now = np.where(cuts == NULL_TIME, task.table.time_values.max(initial=0), cuts)
    age = np.where(times == NULL_TIME, np.nan, (now[row] - times) / scale)
    new = np.ones(len(times), bool)
    new[1:] = (times[1:] != times[:-1]) | (row[1:] != row[:-1])
    return pl.Series(age).fill_nan(None), pl.Series(new)


def _number(column: pl.Series) -> pl.Series:
    value = column.cast(pl.Float64, strict=False)
    return value.to_frame("v").select(pl.when(pl.col("v").is_finite()).then("v"))["v"]


def _by_row(task: Task, examples: pl.DataFrame, plan: FeaturePlan) -> dict[str, pl.Series]:
    fixed = task.static_features(examples)
    return {b: _number(fixed[b]) for _, b in plan.ratios if b in fixed.columns}


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
