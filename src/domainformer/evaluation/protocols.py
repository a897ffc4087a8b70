"""Running models on a task: every fold, every seed, choices inside the training part only.

::

    fold 3:  train ────────────┬─▶ train │ valid      valid stops, chooses and calibrates
             test  ──────┐     └ inner_split          (test labels are taken away from predict)
                         └─▶ predict ─▶ Comparison
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError
from domainformer.evaluation.calibration import Calibrator, fit_calibrator
from domainformer.evaluation.comparison import Comparison, FoldPrediction, evaluate_predictions
from domainformer.evaluation.measures import MEASURES, check_prediction
from domainformer.evaluation.probe import stratified_folds
from domainformer.evaluation.tasks import (
    CUT,
    ENTITY,
    LABEL,
    POSITION,
    Fitted,
    Model,
    Task,
    TaskSplit,
)


def run(
    models: Mapping[str, Model],
    task: Task,
    *,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
    baselines: Sequence[str] = (),
    samples: int = 1000,
) -> Comparison:
    """Fit and judge models on the same folds and seeds.

    Args:
        models: Contestants by name.
        task: The task.
        seeds: One run per seed; the inner split depends on it, the folds do not.
        folds: A subset of the folds; None: all.
        baselines: Names of the baselines among the models.
        samples: Bootstrap draws.

    Raises:
        DataError: A split leaks entities or time, a training part has one class, or predictions
            cannot be used.
    """
    predictions = {
        name: run_model(model, task, seeds=seeds, folds=folds) for name, model in models.items()
    }
    return evaluate_predictions(
        task, predictions, baselines=baselines, folds=folds, samples=samples
    )


def run_model(
    model: Model, task: Task, *, seeds: Sequence[int] = (0,), folds: Sequence[int] | None = None
) -> list[FoldPrediction]:
    """Fit one model on every fold for every seed and predict the test examples.

    The model is given test examples without their labels.

    Args:
        model: The model.
        task: The task.
        seeds: Seeds of the model and of the inner split.
        folds: A subset of the folds; None: all.

    Returns:
        What :func:`~domainformer.evaluation.comparison.evaluate_predictions` takes.
    """
    found = []
    for split in task.splits():
        if folds is not None and split.fold not in folds:
            continue
        check_split(task, split)
        for seed in seeds:
            train, valid = inner_split(task, split, seed=seed)
            started = time.perf_counter()
            values = model.fit(task, train, valid, seed).predict(task, split.test.drop(LABEL))
            where = f"task {task.name!r}, fold {split.fold}, seed {seed}"
            values = check_prediction(values, task.kind, split.test.height, task.n_classes, where)
            seconds = time.perf_counter() - started
            found.append(FoldPrediction(split.fold, values, seed, seconds))
    return found


def inner_split(
    task: Task, split: TaskSplit, *, share: float = 0.2, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and validation examples, both from the training part of a split.

    The task's own validation part where it has one. Otherwise, for examples with a ``time`` (next
    values), the latest ``share`` of the times; else a stratified ``share`` of the *entities*, so
    that an entity with several cuts stays on one side.

    Args:
        task: The task.
        split: One of its splits.
        share: Share of the validation part.
        seed: Which entities.

    Raises:
        DataError: A part is empty or, in training, all labels are equal.

    Example:
        >>> from domainformer.evaluation.public_tasks import simulated_order
        >>> task = simulated_order(100, events_per_entity=20)
        >>> first = next(task.splits())
        >>> [part.height for part in inner_split(task, first)]
        [64, 16]
    """
    if split.valid is not None:
        train, valid = split.train, split.valid
    elif POSITION in split.train.columns and "time" in split.train.columns:
        cut = split.train["time"].sort()[int(split.train.height * (1 - share))]
        train = split.train.filter(pl.col("time") < cut)
        valid = split.train.filter(pl.col("time") >= cut)
    else:
        owners = split.train.group_by(ENTITY).agg(pl.col(LABEL).max()).sort(ENTITY)
        fold = stratified_folds(
            owners[LABEL].to_numpy(),
            max(2, round(1 / share)),
            seed=seed,
            continuous=task.kind == "regression",
        )
        chosen = owners.filter(pl.Series(fold == 0))[ENTITY].implode()
        train = split.train.filter(~pl.col(ENTITY).is_in(chosen))
        valid = split.train.filter(pl.col(ENTITY).is_in(chosen))
    where = f"task {task.name!r}, fold {split.fold}"
    if not train.height or not valid.height:
        raise DataError("the training part is too small to be divided", where=where)
    if train[LABEL].n_unique() < 2:
        raise DataError(
            "the training labels are all equal", where=where, next_step="use fewer folds"
        )
    return train, valid


def check_split(task: Task, split: TaskSplit) -> None:
    """Refuse a split whose training part knows the test part.

    Raises:
        DataError: An entity on both sides of a split by entity, or a training cut that is not
            before every test cut of a split by time.
    """
    where = f"task {task.name!r}, fold {split.fold}"
    known = split.train if split.valid is None else pl.concat([split.train, split.valid])
    if task.split == "entity":
        both = set(known[ENTITY].to_list()) & set(split.test[ENTITY].to_list())
        if both:
            raise DataError(
                f"{len(both)} entities are both trained on and tested",
                where=where,
                why=f"for example {next(iter(both))!r}",
                next_step="give all examples of an entity one fold",
            )
        return
    column = "time" if "time" in known.columns else CUT
    latest, earliest = known[column].drop_nulls().max(), split.test[column].drop_nulls().min()
    if latest is not None and earliest is not None and latest >= earliest:  # type: ignore[operator]
        raise DataError(
            "a training example is as late as a tested one",
            where=where,
            why=f"the last training cut is {latest!s}, the first test cut {earliest!s}",
            next_step="move the cuts apart",
        )


def validation_score(task: Task, fitted: Fitted, valid: pl.DataFrame) -> float:
    """The task's first metric on validation examples, signed so that higher is better."""
    measure = next(iter(MEASURES[task.kind].values()))
    values = check_prediction(
        fitted.predict(task, valid.drop(LABEL)),
        task.kind,
        valid.height,
        task.n_classes,
        f"task {task.name!r}, validation",
    )
    score = float(measure.metric(task.labels(valid), values))
    return score if measure.higher_is_better else -score


@dataclass(frozen=True)
class Chosen:
    """The candidate that a nested choice has taken.

    Args:
        fitted: It, fitted.
        name: Its name.
        scores: Validation score of every candidate, higher is better.
    """

    fitted: Fitted
    name: str
    scores: dict[str, float]

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[Any]:
        """What the chosen candidate expects."""
        return self.fitted.predict(task, examples)


@dataclass(frozen=True)
class NestedChoice:
    """A model that fits every candidate and keeps the best on validation examples.

    The choice is made anew in every fold and seed, inside its training part; no test label plays a
    part in it.

    Args:
        candidates: Models by name, for example one per setting.
    """

    candidates: Mapping[str, Model]

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> Chosen:
        """Fit all, keep the best (the first of equals)."""
        if not self.candidates:
            raise DataError("there are no candidates to choose from")
        all_fitted: dict[str, Fitted] = {}
        scores: dict[str, float] = {}
        for name, model in self.candidates.items():
            all_fitted[name] = model.fit(task, examples_train, examples_valid, seed)
            scores[name] = validation_score(task, all_fitted[name], examples_valid)
        best = max(scores, key=lambda name: scores[name])
        return Chosen(all_fitted[best], best, scores)


@dataclass(frozen=True)
class CalibratedFit:
    """A fitted binary model and the calibrator behind it.

    Args:
        fitted: The model.
        calibrator: Maps its probabilities.
    """

    fitted: Fitted
    calibrator: Calibrator

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[Any]:
        """Calibrated probabilities ``[n]``."""
        return self.calibrator(self.fitted.predict(task, examples))


@dataclass(frozen=True)
class Calibrated:
    """A binary model whose probabilities are calibrated on the validation examples.

    Where these also stopped the training, they look a little better than test examples do.

    Args:
        model: The model.
        method: "platt" or "isotonic".
    """

    model: Model
    method: Literal["platt", "isotonic"] = "platt"

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> CalibratedFit:
        """Fit the model, then the calibrator on validation examples."""
        if task.kind != "binary":
            raise DataError("calibration is for binary tasks", where=f"task {task.name!r}")
        fitted = self.model.fit(task, examples_train, examples_valid, seed)
        said = fitted.predict(task, examples_valid.drop(LABEL))
        return CalibratedFit(fitted, fit_calibrator(task.labels(examples_valid), said, self.method))
