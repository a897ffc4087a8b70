"""Figures of merit in plain numpy.

The formulas are short enough to own: no evaluation needs scikit-learn, and the tests hold every
one of them equal to it. Their intervals are in :mod:`~domainformer.evaluation.intervals`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import DataError

FloatArray = npt.NDArray[np.float64]

# Probabilities are kept away from 0 so that one confident mistake costs 34.5 nats, not infinity.
SMALLEST = 1e-15


def accuracy(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Share of predictions that are right.

    Example:
        >>> accuracy(np.array([1, 2, 3]), np.array([1, 2, 0]))
        0.6666666666666666
    """
    labels, predicted = _pair(labels, predicted)
    return float(np.mean(labels == predicted))


def log_loss(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> float:
    """Mean negative log-probability of what happened, in nats.

    ``−mean log p(label)``; probabilities are clipped to [1e-15, 1].

    Args:
        labels: Class indices ``[n]``; 0 and 1 where ``probabilities`` is one-dimensional.
        probabilities: ``[n]`` (of class 1) or ``[n, classes]``, rows summing to 1.

    Example:
        >>> round(log_loss(np.array([1, 0]), np.array([0.8, 0.4])), 4)
        0.367
    """
    return float(-np.mean(np.log(probability_of_label(*_pair(labels, probabilities)))))


def auroc(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    By ranks, ties counting one half: ``(Σ ranks of positives − P(P+1)/2) / (P·N)``
    (Hanley and McNeil 1982, equal to the Mann-Whitney U statistic over ``P·N``).

    Args:
        labels: 0 or 1, ``[n]``.
        scores: Higher means more positive, ``[n]``.

    Raises:
        DataError: Only one class is present.

    Example:
        >>> auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
        0.75
    """
    labels, scores = _binary(labels, scores)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    rank_sum = float(_mean_ranks(scores)[labels].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def auprc(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Average precision: ``Σ (recall_k − recall_{k−1}) · precision_k`` over distinct thresholds.

    The step-wise sum, not the trapezoid, which is too optimistic (Davis and Goadrich 2006).
    A random score reaches the share of positives.

    Raises:
        DataError: Only one class is present.

    Example:
        >>> round(auprc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])), 4)
        0.8333
    """
    labels, scores = _binary(labels, scores)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    precision = hits[ends] / (ends + 1)
    recall = hits[ends] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def rmse(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Root of the mean squared error, in the label's unit.

    Example:
        >>> rmse(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
        3.5355339059327378
    """
    labels, predicted = _pair(labels, predicted)
    return float(np.sqrt(np.mean((labels - predicted) ** 2)))


def r_squared(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Share of variance explained: ``1 − Σ(y − ŷ)² / Σ(y − ȳ)²``; negative if worse than the mean.

    Raises:
        DataError: All labels are equal, so there is nothing to explain.

    Example:
        >>> r_squared(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
        1.0
    """
    labels, predicted = _pair(labels, predicted)
    total = float(np.sum((labels - labels.mean()) ** 2))
    if total == 0:
        raise DataError("all labels are equal, so there is no variance to explain")
    return 1.0 - float(np.sum((labels - predicted) ** 2)) / total


def top_accuracy(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> float:
    """Share of rows whose most probable class is the label.

    Example:
        >>> top_accuracy(np.array([0, 1]), np.array([[0.6, 0.4], [0.7, 0.3]]))
        0.5
    """
    return accuracy(labels, np.asarray(probabilities).argmax(axis=1))


def probability_of_label(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> FloatArray:
    """The probability that was given to what happened, kept away from 0."""
    if probabilities.ndim == 1:
        of_label = np.where(labels == 1, probabilities, 1.0 - probabilities)
    else:
        of_label = probabilities[np.arange(len(labels)), labels.astype(np.int64)]
    return np.clip(of_label, SMALLEST, 1.0)


def _pair(first: Any, second: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    first, second = np.asarray(first), np.asarray(second)
    if len(first) != len(second):
        raise DataError(
            "labels and predictions differ in length", why=f"{len(first)} against {len(second)}"
        )
    if not len(first):
        raise DataError("there is nothing to measure", why="no labels were given")
    return first, second


def _binary(labels: Any, scores: Any) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    labels, scores = _pair(labels, scores)
    positive = labels == 1
    if not np.all(positive | (labels == 0)):
        raise DataError("labels must be 0 or 1", why=f"found {np.unique(labels)[:5].tolist()}")
    if positive.all() or not positive.any():
        raise DataError(
            "both classes are needed",
            why=f"all {len(labels)} labels are {int(positive[0])}",
            next_step="choose a label that varies, or more entities",
        )
    return positive, scores


def _mean_ranks(values: npt.NDArray[Any]) -> FloatArray:
    """Ranks from 1, tied values sharing the mean of their ranks."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[index]
