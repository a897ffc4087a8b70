"""Which figures a task is judged by, and how each is resampled.

A measure is a metric with its direction and, where it can be bootstrapped, its weighted form: the
metric as a function of how often each example was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.intervals import weighted_metric
from domainformer.evaluation.metrics import FloatArray
from domainformer.evaluation.tasks import Kind

Weighted = Callable[[FloatArray], float]
Weigh = Callable[[npt.NDArray[Any], npt.NDArray[Any]], Weighted]


@dataclass(frozen=True)
class Measure:
    """A metric of a task.

    Args:
        metric: ``metric(labels, predicted) -> float``.
        higher_is_better: Its direction.
        weigh: ``weigh(labels, predicted)`` gives the metric as a function of weights ``[n]``; None
            where it is not bootstrapped (lift and calibration error are biased on resamples).
    """

    metric: Callable[..., float]
    higher_is_better: bool
    weigh: Weigh | None = None


def mean_of(rows: Callable[..., npt.NDArray[Any]]) -> Weigh:
    """The weighted form of a metric that is a mean over rows.

    Example:
        >>> weigh = mean_of(lambda labels, predicted: labels == predicted)
        >>> weigh(np.array([1, 2]), np.array([1, 0]))(np.array([3.0, 1.0]))
        0.75
    """

    def weigh(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Weighted:
        values = np.asarray(rows(labels, predicted), np.float64)
        return lambda weights: float((weights @ values) / weights.sum())

    return weigh


def _ranking(k: int) -> dict[str, Measure]:
    return {
        f"recall@{k}": Measure(
            partial(metrics.recall_at, k=k),
            True,
            mean_of(lambda y, p: metrics.label_ranks(y, p) <= k),
        ),
        f"ndcg@{k}": Measure(
            partial(metrics.ndcg_at, k=k),
            True,
            mean_of(lambda y, p: metrics.gains(metrics.label_ranks(y, p), k)),
        ),
    }


def _own(metric: Callable[..., float], higher: bool) -> Measure:
    return Measure(metric, higher, partial(weighted_metric, metric))


# The first of each kind is what contestants are compared by.
MEASURES: Mapping[Kind, Mapping[str, Measure]] = {
    "binary": {
        "auroc": _own(metrics.auroc, True),
        "auprc": _own(metrics.auprc, True),
        "log_loss": _own(metrics.log_loss, False),
        "brier": Measure(metrics.brier, False, mean_of(lambda y, p: (p - y) ** 2)),
        "calibration_error": Measure(metrics.calibration_error, False),
        "lift@10%": Measure(metrics.top_lift, True),
    },
    "multiclass": {
        "accuracy": _own(metrics.top_accuracy, True),
        "log_loss": _own(metrics.log_loss, False),
        "calibration_error": Measure(metrics.calibration_error, False),
    },
    "regression": {
        "rmse": _own(metrics.rmse, False),
        "mae": Measure(metrics.mae, False, mean_of(lambda y, p: np.abs(y - p))),
        "r_squared": _own(metrics.r_squared, True),
    },
    "next_item": {**_ranking(10), **_ranking(5)},
}


def check_prediction(
    values: npt.NDArray[Any], kind: Kind, rows: int, classes: int, where: str
) -> npt.NDArray[Any]:
    """The prediction, if it has the form that a task of this kind needs.

    Args:
        values: What a model predicted.
        kind: Kind of the task.
        rows: Number of examples.
        classes: Number of classes or items.
        where: What errors call it.

    Raises:
        DataError: Another shape, NaN or infinite values, or no probabilities.

    Example:
        >>> check_prediction(np.array([0.5, 1.5]), "binary", 2, 2, "model 'a'")
        Traceback (most recent call last):
        ...
        domainformer.errors.DataError: predictions are no probabilities
          where: model 'a'
          why:   they run from 0.5 to 1.5
    """
    values = np.asarray(values)
    lists = kind == "next_item" and np.issubdtype(values.dtype, np.integer)
    wide = kind in ("multiclass", "next_item")
    width = values.shape[1] if lists and values.ndim == 2 else classes
    expected = (rows, width) if wide else (rows,)
    if values.shape != expected:
        raise DataError(
            "predictions have the wrong shape",
            where=where,
            why=f"{values.shape}; a {kind} task of {rows} examples needs {expected}",
        )
    if lists:
        return values
    values = np.asarray(values, np.float64)
    if not bool(np.isfinite(values).all()):
        raise DataError(
            "predictions are NaN or infinite",
            where=where,
            why=f"{int((~np.isfinite(values)).sum())} of {values.size} values",
            next_step="check the model's inputs; a diverged training also ends like this",
        )
    if kind in ("binary", "multiclass") and (values.min() < 0 or values.max() > 1):
        raise DataError(
            "predictions are no probabilities",
            where=where,
            why=f"they run from {values.min():.4g} to {values.max():.4g}",
        )
    if kind == "multiclass" and bool((np.abs(values.sum(axis=1) - 1) > 1e-3).any()):
        raise DataError("rows of predictions do not sum to 1", where=where)
    return values
