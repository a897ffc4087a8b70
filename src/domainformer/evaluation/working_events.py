"""The working frame of the aggregates: every event of every history, with its age at the cut.

::

    row  age   visit  n.amount  n.amount/limit  n.price*quantity  c.merchant  code  value
     0   31.0  true      12.5        0.004            25.0         cafe

``row`` is the example's place, ``visit`` marks the first event of its time; numbers stand as
``n.<column>``, categories as ``c.<column>``, both in order of time within an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from domainformer.data.keys import NULL_TIME, integer_times
from domainformer.evaluation.example_aggregates import AGE, ROW, VISIT
from domainformer.evaluation.feature_plan import FeaturePlan
from domainformer.evaluation.task_parts import time_unit
from domainformer.evaluation.tasks import CUT, EXAMPLE, Task


def working_frame(task: Task, examples: pl.DataFrame, plan: FeaturePlan) -> pl.DataFrame:
    """Events of all histories, as the aggregates read them."""
    history = task.history(examples)
    order = pl.DataFrame({EXAMPLE: examples[EXAMPLE]}).with_row_index(ROW)
    rows = history.frame.select(EXAMPLE).join(order, on=EXAMPLE, how="left", maintain_order="left")
    row = rows[ROW].to_numpy().astype(np.int64)
    age, visit = _ages(task, examples, history, row)
    columns = {ROW: pl.Series(row), AGE: age, VISIT: visit}
    pairs = [*plan.products, *plan.paid]
    numbers = {n for n in [*plan.numeric, plan.value, *(c for pair in pairs for c in pair)] if n}
    numbers |= {a for a, _ in plan.ratios}
    for name in sorted(numbers):
        columns[f"n.{name}"] = _number(history.frame[name])
    fixed = {} if task.static is None else _static_numbers(task, examples, plan)
    for above, below in plan.ratios:
        if below in history.frame.columns:
            denominator = _number(history.frame[below])
        else:
            denominator = fixed[below].gather(pl.Series(row))
        ratio = columns[f"n.{above}"] / denominator
        columns[f"n.{above}/{below}"] = _number(ratio.alias("ratio"))
    for name in [*plan.labels, *([plan.code] if plan.code else [])]:
        columns[f"c.{name}"] = history.frame[name].cast(pl.String)
    frame = pl.DataFrame(columns).with_columns(_pair_columns(plan))
    if plan.code is None:
        return frame
    frame = frame.with_columns(
        pl.col(f"c.{plan.code}").alias("code"), pl.col(f"n.{plan.value}").alias("value")
    )
    return _with_same_codes(frame, plan.same_codes)


def visit_frame(working: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """One row per visit (the events of one time), numbers summed, as ``n.visit <name>``."""
    return working.group_by(ROW, AGE, maintain_order=True).agg(
        pl.col(f"n.{name}").sum().alias(f"n.visit {name}") for name in names
    )


def _pair_columns(plan: FeaturePlan) -> list[pl.Expr]:
    found = [(pl.col(f"n.{a}") * pl.col(f"n.{b}")).alias(f"n.{a}*{b}") for a, b in plan.products]
    for a, b in plan.paid:
        # A bill of zero has no share that was paid.
        before = pl.col(f"n.{b}").shift(1).over(ROW)
        share = pl.when(before != 0).then(pl.col(f"n.{a}") / before)
        found.append(share.alias(f"n.{a}/previous {b}"))
    return found


def _with_same_codes(frame: pl.DataFrame, same: Mapping[str, str]) -> pl.DataFrame:
    """The measurements once more under the codes they are counted as, in order of time."""
    if not same:
        return frame
    again = frame.filter(pl.col("code").is_in(list(same)))
    again = again.with_columns(pl.col("code").replace(same))
    return pl.concat([frame, again]).sort(ROW, AGE, descending=[False, True], maintain_order=True)


def _ages(
    task: Task, examples: pl.DataFrame, history: Any, row: np.ndarray
) -> tuple[pl.Series, pl.Series]:
    """Days (or units) from each event to its cut, and whether it is the first at its time.

    Without a cut, now is the last time of the whole table; without times, a unit is an event.
    """
    times = history.time_values
    scale = time_unit(history)
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


def _static_numbers(task: Task, examples: pl.DataFrame, plan: FeaturePlan) -> dict[str, pl.Series]:
    fixed = task.static_features(examples)
    return {b: _number(fixed[b]) for _, b in plan.ratios if b in fixed.columns}
