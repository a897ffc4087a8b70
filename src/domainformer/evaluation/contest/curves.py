"""What a picture needs: calibration by tenths of the predictions, and lift by decile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.evaluation.comparison import FoldPrediction
from domainformer.evaluation.tasks import FOLD, Task

_TENTHS = 10
Curve = list[dict[str, float]]


def curves_of(
    task: Task, predictions: Mapping[str, Sequence[FoldPrediction]]
) -> dict[str, dict[str, Curve]]:
    """``{"calibration": {model: points}, "lift": {model: points}}``; empty for other kinds.

    Ranks are taken within each fold and seed, because models of different folds need not agree in
    scale; what falls into a tenth is then pooled. For several classes calibration is that of the
    most probable class, and there is no lift.

    Args:
        task: The task.
        predictions: Of the test examples.
    """
    if task.kind not in ("binary", "multiclass"):
        return {}
    labels = {fold: task.labels(task.examples.filter(pl.col(FOLD) == fold)) for fold in task.folds}
    calibration: dict[str, Curve] = {}
    lift: dict[str, Curve] = {}
    for name, cells in predictions.items():
        said, right, tenth = _pooled(cells, labels, task.kind == "multiclass")
        calibration[name] = _points(said, right, tenth)
        lift[name] = lift_points(right, tenth)
    return {"calibration": calibration} | ({"lift": lift} if task.kind == "binary" else {})


def _pooled(
    cells: Sequence[FoldPrediction], labels: Mapping[int, npt.NDArray[Any]], classes: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    said, right, tenths = [], [], []
    for cell in cells:
        y, p = labels[cell.fold], cell.values
        if classes:
            y, p = (p.argmax(axis=1) == y).astype(np.int64), p.max(axis=1)
        said.append(p)
        right.append(y)
        tenths.append(tenths_of(p))
    return np.concatenate(said), np.concatenate(right), np.concatenate(tenths)


def tenths_of(predicted: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The tenth of each prediction, 0 the highest; ties in the order of the examples.

    Example:
        >>> tenths_of(np.array([0.1, 0.9, 0.5, 0.2])).tolist()
        [7, 0, 2, 5]
    """
    place = np.empty(len(predicted), np.int64)
    place[np.argsort(-predicted, kind="stable")] = np.arange(len(predicted))
    return place * _TENTHS // max(1, len(predicted))


def _points(said: npt.NDArray[Any], right: npt.NDArray[Any], tenth: npt.NDArray[np.int64]) -> Curve:
    return [
        {
            "predicted": float(said[tenth == one].mean()),
            "observed": float(right[tenth == one].mean()),
            "examples": float((tenth == one).sum()),
        }
        for one in np.unique(tenth)[::-1]
    ]


def lift_points(right: npt.NDArray[Any], tenth: npt.NDArray[np.int64]) -> Curve:
    """How many times more positives than on average each tenth holds, and how many it has found.

    Example:
        >>> lift_points(np.array([1, 0]), np.array([0, 5]))[0]
        {'tenth': 1.0, 'lift': 2.0, 'found': 1.0}
    """
    base, total = right.mean(), right.sum()
    return [
        {
            "tenth": float(one + 1),
            "lift": float(right[tenth == one].mean() / base),
            "found": float(right[tenth <= one].sum() / total),
        }
        for one in np.unique(tenth)
    ]
