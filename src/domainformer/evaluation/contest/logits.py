"""Predictions as logits and back, and the weighted average of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from domainformer.evaluation.tasks import Kind, Task
from domainformer.inference.fusion import FusionPredictor

# A name that no column of a table has: fields that are called "label" stay usable.
TARGET = "label of the task"
Floats = npt.NDArray[np.float64]
_SMALLEST = 1e-9


def to_logits(predicted: Floats, kind: Kind) -> Floats:
    """Log-odds (binary), log-probabilities (multiclass), or the numbers themselves (regression).

    Args:
        predicted: ``[n]`` or ``[n, classes]``.
        kind: Kind of the task.
    """
    if kind == "regression":
        return np.asarray(predicted, np.float64)
    if kind == "binary":
        p = np.clip(predicted, _SMALLEST, 1 - _SMALLEST)
        return np.asarray(np.log(p) - np.log1p(-p))
    return np.asarray(np.log(np.clip(predicted, _SMALLEST, None)))


def from_logits(logits: Floats, kind: Kind) -> Floats:
    """Probabilities (or numbers) of logits.

    Example:
        >>> p = np.array([[0.2, 0.8], [0.5, 0.5]])
        >>> np.allclose(from_logits(to_logits(p, "multiclass"), "multiclass"), p)
        True
    """
    if kind == "regression":
        return logits
    if kind == "binary":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def average(
    predictions: Sequence[Floats], kind: Kind, weights: Sequence[float] | None = None
) -> Floats:
    """The weighted mean of logits, as predictions; the mean itself for a single prediction.

    Example:
        >>> average([np.array([0.9]), np.array([0.1])], "binary").round(6).tolist()
        [0.5]
        >>> average([np.array([3.0]), np.array([1.0])], "regression", [0.75, 0.25]).tolist()
        [2.5]
    """
    if len(predictions) == 1:
        return predictions[0]
    shares = np.full(len(predictions), 1 / len(predictions)) if weights is None else weights
    logits = [to_logits(one, kind) for one in predictions]
    total = sum((w * one for w, one in zip(shares, logits, strict=True)), np.zeros(()))
    return from_logits(np.asarray(total), kind)


def in_all_classes(
    predicted: npt.NDArray[np.float64], predictor: FusionPredictor, task: Task
) -> npt.NDArray[np.float64]:
    """Columns for all classes of the task: one that training never showed has probability 0."""
    if task.kind != "multiclass":
        return predicted
    found = np.zeros((len(predicted), task.n_classes))
    found[:, [int(one) for one in predictor.targets[0].classes]] = predicted
    return found
