"""Contestants of one task, side by side: mean ± standard error, and how sure a difference is.

Each (seed, fold) is one *cell*. A figure is the mean over cells; its standard error is taken over
folds (after averaging a fold's seeds, which share their examples) or, with one fold, over seeds.
Differences from the best baseline come from a paired bootstrap: within each fold entities are drawn
with replacement, the same for everyone, and every cell is measured on the draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from domainformer.artifacts import write_json
from domainformer.errors import DataError, nearest
from domainformer.evaluation.measures import MEASURES, Measure, check_prediction
from domainformer.evaluation.metrics import FloatArray
from domainformer.evaluation.tasks import ENTITY, FOLD, TRAIN_ONLY, Task


@dataclass(frozen=True, eq=False)
class FoldPrediction:
    """What a model said of one fold's test examples.

    Args:
        fold: The fold.
        values: Predictions, one row per test example of the fold in the order of the task.
        seed: Seed that the model was fitted with.
        seconds: Time of fitting and predicting.
    """

    fold: int
    values: npt.NDArray[Any]
    seed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A mean over cells and its standard error (None with a single cell).

    Example:
        >>> print(Figure(0.8666, 0.007))
        0.8666 ± 0.0070
    """

    mean: float
    error: float | None

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if self.error is None else f" ± {self.error:.4f}")


@dataclass(frozen=True)
class Difference:
    """A contestant minus the best baseline.

    Args:
        value: Difference of the means.
        low: Lower end of the bootstrap 95 % interval.
        high: Upper end.
        p_value: Two-sided, ``2·min(share of draws <= 0, share >= 0)``, counting the data itself as
            one draw, so that it is never 0.
        better: Whether the contestant is better and ``p_value < 0.05``.
    """

    value: float
    low: float
    high: float
    p_value: float
    better: bool


@dataclass(frozen=True)
class Comparison:
    """Results of one task.

    Args:
        task: Its name.
        primary: The metric that the best baseline is chosen by.
        figures: ``{contestant: {metric: Figure}}``.
        baselines: Which contestants are baselines.
        best_baseline: The baseline with the best primary figure; None without baselines. It is
            chosen on the test examples, in the baselines' favour.
        differences: ``{contestant: {metric: Difference}}`` from the best baseline.
        cells: ``{contestant: [{"seed", "fold", metric: value, …}]}``.
        record: Examples, seeds, folds, bootstrap settings, and the task's own record.
    """

    task: str
    primary: str
    figures: dict[str, dict[str, Figure]]
    baselines: list[str]
    best_baseline: str | None
    differences: dict[str, dict[str, Difference]]
    cells: dict[str, list[dict[str, Any]]]
    record: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = dict(vars(self))
        for key in ("figures", "differences"):
            plain[key] = {
                name: {metric: vars(value) for metric, value in row.items()}
                for name, row in plain[key].items()
            }
        return plain

    def write(self, path: str | Path) -> Path:
        """Write the comparison as JSON, whole or not at all."""
        write_json(Path(path), self.to_json())
        return Path(path)

    def render(self) -> Table:
        """A table for ``rich.print``: figures, then differences from the best baseline."""
        names = list(next(iter(self.figures.values())))
        table = Table(
            title=f"{self.task}: {self.record['examples']:,} test examples, "
            f"{len(self.record['folds'])} folds, seeds {self.record['seeds']}",
            title_justify="left",
            pad_edge=False,
            collapse_padding=True,
            box=SIMPLE_HEAD,
        )
        table.add_column("contestant", no_wrap=True)
        for name in names:
            head = name.replace("calibration_error", "ece").replace("_", "-")
            table.add_column(head, justify="right", no_wrap=True)
        for contestant, row in self.figures.items():
            mark = "\n(baseline)" if contestant in self.baselines else ""
            cells = [str(row[name]).replace(" ± ", "\n± ") for name in names]
            table.add_row(contestant + mark, *cells)
        if self.differences:
            table.add_section()
        for contestant, differences in self.differences.items():
            shown = [_shown(differences.get(name)) for name in names]
            table.add_row(f"{contestant} −\n{self.best_baseline}", *shown)
        return table


def evaluate_predictions(
    task: Task,
    predictions: Mapping[str, npt.NDArray[Any] | Sequence[FoldPrediction]],
    *,
    baselines: Sequence[str] = (),
    folds: Sequence[int] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Judge predictions of a task's test examples.

    Args:
        task: The task.
        predictions: Per contestant one :class:`FoldPrediction` per seed and fold, or an array in
            the order of all tested examples (``task.examples`` where ``fold >= 0``).
        baselines: Names of the baselines among them.
        folds: The folds that are judged; None: all.
        samples: Bootstrap draws.
        seed: Draws depend on it and on the task alone.

    Raises:
        DataError: A contestant lacks a fold, a shape is wrong, values are NaN or infinite, a
            baseline is unknown, or a fold has one class.

    Example:
        >>> import polars as pl
        >>> from domainformer import EventTable
        >>> from domainformer.evaluation.task_building import task_from_labels
        >>> frame = pl.DataFrame({"id": range(40), "y": [0, 1] * 20})
        >>> task = task_from_labels("toy", EventTable.of(frame, entity="id"), label="y", folds=2)
        >>> good, flat = task.labels(task.examples) * 0.8 + 0.1, np.full(40, 0.5)
        >>> result = evaluate_predictions(task, {"ours": good, "flat": flat}, baselines=["flat"])
        >>> print(result.figures["ours"]["auroc"], result.differences["ours"]["auroc"].better)
        1.0000 ± 0.0000 True
    """
    for name in baselines:
        if name not in predictions:
            raise DataError(f"there is no baseline {name!r}", next_step=nearest(name, predictions))
    if not predictions:
        raise DataError("there are no predictions to judge", where=f"task {task.name!r}")
    judged = task.folds if folds is None else sorted(folds)
    if not judged or not set(judged) <= set(task.folds):
        raise DataError(
            f"the task has no such folds: {judged}", next_step=f"choose among {task.folds}"
        )
    tested = {fold: task.examples.filter(pl.col(FOLD) == fold) for fold in judged}
    labels = {fold: task.labels(rows) for fold, rows in tested.items()}
    runs = {name: _cells_of(task, name, given, tested) for name, given in predictions.items()}
    measures = dict(MEASURES[task.kind])
    if min(len(y) for y in labels.values()) < 10:
        measures.pop("lift@10%", None)  # fewer than one example in a tenth
    values = {name: _measure(cells, labels, measures) for name, cells in runs.items()}
    figures = {
        name: {metric: _figure(runs[name], found) for metric, found in row.items()}
        for name, row in values.items()
    }
    primary = next(iter(measures))
    sign = 1 if measures[primary].higher_is_better else -1
    best = max(baselines, key=lambda name: sign * figures[name][primary].mean, default=None)
    differences: dict[str, dict[str, Difference]] = {}
    if best is not None:
        shares = {m: measure for m, measure in measures.items() if measure.weigh is not None}
        draws = _bootstrap(runs, tested, labels, shares, samples, seed)
        differences = {
            name: {
                m: _difference(
                    figures[name][m].mean - figures[best][m].mean,
                    draws[name][m] - draws[best][m],
                    shares[m].higher_is_better,
                )
                for m in shares
            }
            for name in runs
            if name != best
        }
    return Comparison(
        task=task.name,
        primary=primary,
        figures=figures,
        baselines=list(baselines),
        best_baseline=best,
        differences=differences,
        cells={name: _plain_cells(runs[name], values[name]) for name in runs},
        record={
            "kind": task.kind,
            "examples": sum(map(len, labels.values())),
            "train_only": int((task.examples[FOLD] == TRAIN_ONLY).sum()),
            "folds": judged,
            "seeds": sorted({cell.seed for cells in runs.values() for cell in cells}),
            "bootstrap": {"samples": samples, "seed": seed, "unit": "entity within fold"},
            "task": task.record,
        },
    )


def _cells_of(
    task: Task,
    name: str,
    given: npt.NDArray[Any] | Sequence[FoldPrediction],
    tested: dict[int, pl.DataFrame],
) -> list[FoldPrediction]:
    """Checked predictions, every fold for every seed."""
    if isinstance(given, np.ndarray):
        fold_of = task.examples.filter(pl.col(FOLD).is_in(list(tested)))[FOLD].to_numpy()
        if len(given) != len(fold_of):
            raise DataError(
                "predictions have the wrong shape",
                where=f"{name!r}",
                why=f"{len(given)} rows for {len(fold_of)} tested examples",
            )
        given = [FoldPrediction(fold, given[fold_of == fold]) for fold in tested]
    seen = sorted((cell.seed, cell.fold) for cell in given)
    if seen != [(seed, fold) for seed in sorted({s for s, _ in seen}) for fold in tested]:
        raise DataError(
            f"{name!r} was not run once on every fold for every seed",
            where=f"task {task.name!r}, folds {list(tested)}",
            why=f"it has (seed, fold): {seen[:10]}",
        )
    return [
        FoldPrediction(
            cell.fold,
            check_prediction(
                cell.values,
                task.kind,
                tested[cell.fold].height,
                task.n_classes,
                f"{name!r}, fold {cell.fold}, seed {cell.seed}",
            ),
            cell.seed,
            cell.seconds,
        )
        for cell in given
    ]


def _measure(
    cells: list[FoldPrediction],
    labels: dict[int, npt.NDArray[Any]],
    measures: Mapping[str, Measure],
) -> dict[str, list[float]]:
    return {
        name: [float(measure.metric(labels[cell.fold], cell.values)) for cell in cells]
        for name, measure in measures.items()
    }


def _figure(cells: list[FoldPrediction], values: list[float]) -> Figure:
    """Mean and standard error over folds, or over seeds where there is one fold."""
    folds = np.array([cell.fold for cell in cells])
    found = np.array(values)
    units = [found[folds == fold].mean() for fold in np.unique(folds)]
    if len(units) == 1:
        units = values
    error = None
    if len(units) > 1:
        error = float(np.std(units, ddof=1) / np.sqrt(len(units)))
    return Figure(float(np.mean(found)), error)


def _bootstrap(
    runs: dict[str, list[FoldPrediction]],
    tested: dict[int, pl.DataFrame],
    labels: dict[int, npt.NDArray[Any]],
    measures: Mapping[str, Measure],
    samples: int,
    seed: int,
) -> dict[str, dict[str, FloatArray]]:
    """Mean over cells of every metric on every draw, ``{contestant: {metric: [samples]}}``."""
    total = {name: {m: np.zeros(samples) for m in measures} for name in runs}
    for fold, rows in tested.items():
        weighted = [
            (total[name][m], measure.weigh(labels[fold], cell.values), 1 / len(cells))
            for name, cells in runs.items()
            for cell in cells
            if cell.fold == fold
            for m, measure in measures.items()
            if measure.weigh is not None
        ]
        # One stream per fold: a fold's draws do not depend on the others.
        rng = np.random.default_rng((seed, fold))
        owner = rows[ENTITY].rank("dense").to_numpy().astype(np.int64) - 1
        for sample in range(samples):
            weights = _draw(owner, labels[fold], rng)
            for sums, metric, share in weighted:
                sums[sample] += share * metric(weights)
    return total


def _draw(
    owner: npt.NDArray[np.int64], labels: npt.NDArray[Any], rng: np.random.Generator
) -> FloatArray:
    """How often each example is drawn with its entity; a draw of one class is repeated."""
    entities = int(owner.max()) + 1
    for _ in range(100):
        times = np.bincount(rng.integers(entities, size=entities), minlength=entities)
        weights = times[owner].astype(np.float64)
        drawn = labels[weights > 0]
        if drawn.min() != drawn.max():
            break
    return weights


def _difference(value: float, draws: FloatArray, higher_is_better: bool) -> Difference:
    low, high = np.quantile(draws, [0.025, 0.975])
    tail = min(np.sum(draws <= 0), np.sum(draws >= 0))
    p_value = min(1.0, 2 * (float(tail) + 1) / (len(draws) + 1))
    ahead = value > 0 if higher_is_better else value < 0
    return Difference(value, float(low), float(high), p_value, bool(ahead and p_value < 0.05))


def _plain_cells(
    cells: list[FoldPrediction], values: dict[str, list[float]]
) -> list[dict[str, Any]]:
    return [
        {
            "seed": cell.seed,
            "fold": cell.fold,
            "seconds": cell.seconds,
            **{metric: found[index] for metric, found in values.items()},
        }
        for index, cell in enumerate(cells)
    ]


def _shown(difference: Difference | None) -> Text:
    if difference is None:
        return Text("")
    text = f"{difference.value:+.4f}\np {difference.p_value:.3f}"
    return Text(text, style="bold" if difference.better else "")
