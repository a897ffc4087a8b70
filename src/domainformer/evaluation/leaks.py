"""Looking for leaks: features that know what they cannot have known.

=============  ====================================================================================
answer         one column (nearly) determines the label
future         the features of an example change when events at or after its cut are altered
timestamp      a feature holds a time at or after the example's cut
split          an entity is on both sides of a split by entity, or training is as late as testing
=============  ====================================================================================

What is found is evidence, not proof: a strong honest feature may determine a label, and a leak that
these checks cannot see is one that changes little. The altering of the future is exact for what
it alters: it finds any dependence of deterministic features on later events of the examples drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME, integer_times
from domainformer.errors import DataError
from domainformer.evaluation.metrics import auroc
from domainformer.evaluation.protocols import check_split
from domainformer.evaluation.tasks import CUT, ENTITY, EXAMPLE, LABEL, Task

Features = Callable[[Task, pl.DataFrame], pl.DataFrame]
NEARLY = 0.99
"""AUROC (binary, less its standard error), accuracy (classes) or rank correlation (numbers) that
nothing honest reaches."""
_MOST_ROWS, _BINS, _FEW_VALUES = 20_000, 50, 100


@dataclass(frozen=True)
class Leak:
    """One finding.

    Args:
        kind: "answer", "future", "timestamp" or "split".
        column: The feature concerned, or "" for a split.
        detail: What was found.
    """

    kind: Literal["answer", "future", "timestamp", "split"]
    column: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.column!r}: {self.detail}" if self.column else self.detail


def check_leaks(
    task: Task,
    features: pl.DataFrame | Features,
    *,
    raise_error: bool = True,
    probed: int = 500,
    seed: int = 0,
) -> list[Leak]:
    """Look for the four kinds of leak.

    Args:
        task: The task.
        features: One row per example with the key ``example``, or what makes them:
            ``features(task, examples)``. Only a function can be tried on altered events.
        raise_error: Raise if anything is found; False returns the findings.
        probed: Examples whose later events are altered (one per entity).
        seed: Which examples, and how events are altered.

    Returns:
        The findings; empty where nothing was found.

    Raises:
        DataError: Something was found; or the features lack their key, repeat an example, have
            none of the task's examples, or hold infinite values (NaN and null mean "missing").

    Example:
        >>> from domainformer.evaluation.public_tasks import simulated_order
        >>> task = simulated_order(100, events_per_entity=20)
        >>> planted = task.examples.select("example", answer=pl.col("label") * 3.0)
        >>> print(check_leaks(task, planted, raise_error=False)[0])
        answer 'answer': alone it reaches an AUROC of 1.000
    """
    frame = features if isinstance(features, pl.DataFrame) else features(task, task.examples)
    check_features(frame)
    if task.static is not None:
        frame = _with_static(task, frame)
    found = [*_split_leaks(task), *_answers(task, frame, seed), *_timestamps(task, frame)]
    if not isinstance(features, pl.DataFrame):
        found += _future(task, features, probed, seed)
    if found and raise_error:
        raise DataError(
            f"{len(found)} leaks were found",
            where=f"task {task.name!r}",
            why="; ".join(map(str, found[:5])),
            next_step="remove these columns, or compute them from task.history(examples) alone",
        )
    return found


def check_features(frame: pl.DataFrame) -> None:
    """Refuse tabular features that no model should be given.

    NaN and null both mean "missing" and are allowed; infinite values are not, because a tree would
    order them, a network would diverge on them, and a mean would become NaN.

    Raises:
        DataError: The key ``example`` is missing or repeated, or a column holds infinite values.

    Example:
        >>> check_features(pl.DataFrame({"example": [0, 1], "ratio": [1.0, float("inf")]}))
        Traceback (most recent call last):
        ...
        domainformer.errors.DataError: infinite values in 1 feature columns
          where: column 'ratio'
          next:  replace them by null, which means "missing" (a division by zero made them?)
    """
    if EXAMPLE not in frame.columns:
        raise DataError(f"features need the key column {EXAMPLE!r}")
    if frame[EXAMPLE].is_duplicated().any():
        raise DataError("an example has two rows of features")
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    infinite = [name for name in floats if frame[name].is_infinite().any()]
    if infinite:
        raise DataError(
            f"infinite values in {len(infinite)} feature columns",
            where=f"column {infinite[0]!r}",
            next_step='replace them by null, which means "missing" (a division by zero made them?)',
        )


def _split_leaks(task: Task) -> list[Leak]:
    for split in task.splits():
        try:
            check_split(task, split)
        except DataError as error:
            return [Leak("split", "", f"fold {split.fold}: {error.what}")]
    return []


def _answers(task: Task, frame: pl.DataFrame, seed: int) -> list[Leak]:
    """Columns that say the label, alone: as they are, or by a table learned on the other half."""
    rows = task.examples.select(EXAMPLE, LABEL).join(frame, on=EXAMPLE, how="inner", suffix="_own")
    if not rows.height:
        raise DataError("the features have none of the task's examples")
    if rows.height > _MOST_ROWS:
        rows = rows.sample(_MOST_ROWS, seed=seed)
    y = rows[LABEL].to_numpy()
    if len(np.unique(y)) < 2:
        return []
    half = np.random.default_rng(seed).permutation(len(y)) < len(y) / 2
    found = []
    for name in rows.columns:
        if name in (EXAMPLE, LABEL) or rows[name].dtype.is_nested():
            continue
        score, figure = _strength(rows[name], y, task.kind, half)
        # Of few examples a strong honest feature reaches .99 by chance; an answer reaches 1.
        if score - _error(score, y, task.kind) >= NEARLY:
            found.append(Leak("answer", name, f"alone it reaches {figure} of {score:.3f}"))
    return found


def _strength(
    column: pl.Series, y: npt.NDArray[Any], kind: str, half: npt.NDArray[np.bool_]
) -> tuple[float, str]:
    """How well one column foretells the label."""
    cells = _cells(column)
    if kind == "regression":
        expected = _learned(cells, y.astype(np.float64), half)
        return max(_rank_correlation(expected, y), _own_correlation(column, y)), "a correlation"
    if kind == "binary":
        expected = _learned(cells, y.astype(np.float64), half)
        score = auroc(y, expected)
        if column.dtype.is_numeric() and not column.is_null().any():
            raw = column.cast(pl.Float64).fill_nan(None)
            if not raw.is_null().any():
                own = auroc(y, raw.to_numpy())
                score = max(score, own, 1 - own)
        return score, "an AUROC"
    # Every label has the same number of wins if nothing is known: the commonest class.
    guessed = _commonest(cells, y, half)
    base = float(np.bincount(y).max() / len(y))
    share = float(np.mean(guessed == y))
    return (share if base < NEARLY else 0.0), "an accuracy"


def _error(score: float, y: npt.NDArray[Any], kind: str) -> float:
    """Standard error of an AUROC; 0 at 1, and for other figures.

    Source: Hanley and McNeil (1982), "The meaning and use of the area under a ROC curve",
    equation 1.
    """
    if kind != "binary" or score >= 1:
        return 0.0
    positive = float(y.sum())
    negative = len(y) - positive
    first, second = score / (2 - score), 2 * score**2 / (1 + score)
    spread = score * (1 - score)
    spread += (positive - 1) * (first - score**2) + (negative - 1) * (second - score**2)
    return float(np.sqrt(max(spread, 0.0) / (positive * negative)))


def _cells(column: pl.Series) -> npt.NDArray[np.int64]:
    """Values as small integers: each its own, or fiftieths of a number with many values."""
    if column.dtype.is_numeric() and column.n_unique() > _FEW_VALUES:
        values = column.cast(pl.Float64).fill_nan(None)
        ranks = (values.rank("ordinal") * _BINS / len(values)).floor()
        return ranks.cast(pl.Int64).fill_null(_BINS + 1).to_numpy()
    if column.dtype.is_float():
        column = column.fill_nan(None)
    return column.rank("dense").cast(pl.Int64).fill_null(0).to_numpy()


def _learned(
    cells: npt.NDArray[np.int64], y: npt.NDArray[np.float64], half: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Mean label of each cell on the other half; cells unseen there say the mean."""
    expected = np.empty(len(y))
    for side in (half, ~half):
        counts = np.bincount(cells[~side], minlength=int(cells.max()) + 1)
        sums = np.bincount(cells[~side], weights=y[~side], minlength=len(counts))
        # Half an observation of the mean keeps rare cells from being sure.
        means = (sums + 0.5 * y[~side].mean()) / (counts + 0.5)
        expected[side] = means[cells[side]]
    return expected


def _commonest(
    cells: npt.NDArray[np.int64], y: npt.NDArray[Any], half: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Commonest label of each cell on the other half; -1 for cells unseen there."""
    guessed = np.full(len(y), -1, np.int64)
    for side in (half, ~half):
        pairs = pl.DataFrame({"cell": cells[~side], "y": y[~side]}).group_by("cell", "y").len()
        best = pairs.sort("len", "y", descending=[True, False]).unique("cell", keep="first")
        known = pl.DataFrame({"cell": cells[side]}).join(
            best, on="cell", how="left", maintain_order="left"
        )
        guessed[side] = known["y"].fill_null(-1).to_numpy()
    return guessed


def _rank_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    ranks = [pl.Series(values).rank().to_numpy() for values in (first, second)]
    if min(float(np.ptp(rank)) for rank in ranks) == 0:
        return 0.0
    return abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))


def _own_correlation(column: pl.Series, y: npt.NDArray[Any]) -> float:
    if not column.dtype.is_numeric():
        return 0.0
    values = column.cast(pl.Float64).fill_nan(None)
    known = values.is_not_null().to_numpy()
    if known.mean() < 0.5 or known.sum() < 3:
        return 0.0
    return _rank_correlation(values.to_numpy()[known], y[known])


def _timestamps(task: Task, frame: pl.DataFrame) -> list[Leak]:
    """Times among the features that are not before the example's cut."""
    if not task.examples[CUT].dtype.is_temporal():
        return []
    temporal = [
        name for name, dtype in frame.schema.items() if dtype == pl.Date or dtype == pl.Datetime
    ]
    rows = task.examples.select(EXAMPLE, CUT).join(frame, on=EXAMPLE, how="inner", suffix="_own")
    cuts = integer_times(rows[CUT])
    found = []
    for name in temporal:
        times = integer_times(rows[name].cast(pl.Datetime("us")))
        late = int(((times >= cuts) & (times != NULL_TIME) & (cuts != NULL_TIME)).sum())
        if late:
            found.append(Leak("timestamp", name, f"{late} values are not before the cut"))
    return found


def _future(task: Task, features: Features, probed: int, seed: int) -> list[Leak]:
    """Columns that change when later events are altered, or when they are taken away."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(task.examples.height)
    # One example per entity: what is after one cut may be before another.
    rows = task.examples[order].unique(ENTITY, keep="first", maintain_order=True)
    _, ends = task.bounds(rows)
    last = _entity_ends(task, rows)
    rows = rows.filter(pl.Series(ends < last)).head(probed).sort(EXAMPLE)
    if not rows.height:
        return []
    later = _later_events(task, rows)
    before = features(task, rows).sort(EXAMPLE)
    found: dict[str, str] = {}
    for how, table in (
        ("altered", _altered(task.table, later, rng)),
        ("taken away", task.table.filter(~later)),
    ):
        after = features(task.with_table(table), rows).sort(EXAMPLE)
        for name in _changed(before, after):
            found.setdefault(name, f"it changes when events after the cut are {how}")
    return [Leak("future", name, detail) for name, detail in found.items()]


def _entity_ends(task: Task, rows: pl.DataFrame) -> npt.NDArray[np.int64]:
    """One past each example's entity's last event."""
    whole = rows.with_columns(pl.lit(None, rows[CUT].dtype).alias(CUT)).select(EXAMPLE, ENTITY, CUT)
    return task.bounds(whole)[1]


def _later_events(task: Task, rows: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Which events lie at or after the cuts of these examples (one per entity)."""
    marks = np.zeros(task.table.n_events + 1, np.int64)
    _, ends = task.bounds(rows)
    np.add.at(marks, ends, 1)
    np.add.at(marks, _entity_ends(task, rows), -1)
    return np.cumsum(marks)[:-1] > 0


def _altered(
    table: EventTable, later: npt.NDArray[np.bool_], rng: np.random.Generator
) -> EventTable:
    """Later events with other values: numbers moved far away, everything else drawn anew."""
    mask = pl.Series(later)
    drawn = rng.permutation(table.n_events)
    columns = []
    for name in table.frame.columns:
        column = table.frame[name]
        if name in (table.entity, table.time):
            continue
        other = column * -3 + 1e3 if column.dtype.is_float() else column[drawn]
        columns.append(pl.select(pl.when(mask).then(other).otherwise(column).alias(name)))
    frame = table.frame.with_columns([column.to_series() for column in columns])
    return EventTable(frame, table.entity, table.time, table.offsets, table.time_kind)


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> list[str]:
    """Columns whose values differ; a column that appears or disappears has changed, too."""
    changed = [name for name in before.columns if name not in after.columns]
    changed += [name for name in after.columns if name not in before.columns]
    for name in before.columns:
        if name in changed:
            continue
        first, second = before[name], after[name]
        if len(first) != len(second):
            changed.append(name)
        elif first.dtype.is_float() and second.dtype.is_float():
            # Sums in another order differ in the last bits.
            same = np.isclose(
                first.to_numpy(), second.to_numpy(), rtol=1e-5, atol=1e-8, equal_nan=True
            )
            if not same.all():
                changed.append(name)
        elif not first.eq_missing(second).all():
            changed.append(name)
    return changed


def _with_static(task: Task, frame: pl.DataFrame) -> pl.DataFrame:
    """Features with the static columns that they do not hold already."""
    static = task.static_features(task.examples)
    fresh = [name for name in static.columns if name == EXAMPLE or name not in frame.columns]
    return frame.join(static.select(fresh), on=EXAMPLE, how="left", maintain_order="left")
