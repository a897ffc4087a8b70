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


def mae(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Mean absolute error, in the label's unit.

    Example:
        >>> mae(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
        3.5
    """
    labels, predicted = _pair(labels, predicted)
    return float(np.mean(np.abs(labels - predicted)))


def brier(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> float:
    """Brier score of a binary label: ``mean (p − y)²`` (Brier 1950); 0 is perfect.

    Example:
        >>> round(brier(np.array([1, 0]), np.array([0.8, 0.4])), 4)
        0.1
    """
    labels, probabilities = _pair(labels, probabilities)
    return float(np.mean((probabilities - labels) ** 2))


def calibration_error(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], *, bins: int = 15
) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, section 2).

    ``Σ_b n_b/n · |mean label − mean probability|``. For several classes, of the most probable class
    and whether it is right. Biased upwards on few rows: compare at equal ``n`` only.

    Args:
        labels: 0 and 1, or class indices, ``[n]``.
        probabilities: ``[n]`` (of class 1) or ``[n, classes]``.
        bins: Number of bins of [0, 1].

    Example:
        >>> round(calibration_error(np.array([0, 1, 1, 1]), np.array([0.6, 0.6, 0.6, 0.6])), 4)
        0.15
    """
    labels, probabilities = _pair(labels, probabilities)
    if probabilities.ndim == 2:
        labels = probabilities.argmax(axis=1) == labels
        probabilities = probabilities.max(axis=1)
    bin_of = np.clip((probabilities * bins).astype(np.int64), 0, bins - 1)
    gaps = np.bincount(bin_of, weights=labels - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def lift_by_decile(
    labels: npt.NDArray[Any], scores: npt.NDArray[Any], *, parts: int = 10
) -> FloatArray:
    """Share of positives in each tenth of the rows, highest scores first, over the share in all.

    Tied scores share their positives, so that the order of rows says nothing. A random score has
    1 everywhere; the first value is what a campaign on the best tenth gains.

    Args:
        labels: 0 or 1, ``[n]``, ``n >= parts``.
        scores: Higher means more positive, ``[n]``.
        parts: Number of parts.

    Returns:
        float64 ``[parts]``.

    Example:
        >>> lift_by_decile(np.array([1, 1, 0, 0]), np.array([0.9, 0.8, 0.2, 0.1]), parts=2).tolist()
        [2.0, 0.0]
    """
    labels, scores = _binary(labels, scores)
    if len(labels) < parts:
        raise DataError(f"{len(labels)} rows cannot be divided into {parts} parts")
    order = np.argsort(-scores, kind="stable")
    _, tie = np.unique(-scores[order], return_inverse=True)
    shared = np.bincount(tie, weights=labels[order]) / np.bincount(tie)
    shares = [float(part.mean()) for part in np.array_split(shared[tie], parts)]
    return np.array(shares) / labels.mean()


def top_lift(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Lift of the tenth with the highest scores, see :func:`lift_by_decile`.

    Example:
        >>> top_lift(np.arange(20) < 2, -np.arange(20.0))
        10.0
    """
    return float(lift_by_decile(labels, scores)[0])


def label_ranks(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The rank of each label among all items, from 1.

    Of scores ``[n, items]``: one more than the number of *other* items that score as high or
    higher, so that equal scores for everything earn nothing. Of lists ``[n, k]`` (integers): the
    label's place, or ``k + 1`` where it is not listed. NaN counts as the highest score of others.

    Example:
        >>> label_ranks(np.array([2, 0]), np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.3]])).tolist()
        [2, 3]
        >>> label_ranks(np.array([7, 1]), np.array([[5, 7], [2, 3]])).tolist()
        [2, 3]
    """
    labels, predicted = _pair(labels, predicted)
    if np.issubdtype(predicted.dtype, np.integer):
        found = predicted == labels[:, None]
        return np.where(found.any(axis=1), found.argmax(axis=1) + 1, predicted.shape[1] + 1)
    own = predicted[np.arange(len(labels)), labels.astype(np.int64)]
    below = (predicted < own[:, None]).sum(axis=1)
    return np.asarray(predicted.shape[1] - below, np.int64)


def recall_at(labels: npt.NDArray[Any], predicted: npt.NDArray[Any], *, k: int = 10) -> float:
    """Share of labels among the best ``k`` of all items (one relevant item: the hit rate).

    Example:
        >>> recall_at(np.array([7, 1]), np.array([[5, 7], [2, 3]]), k=2)
        0.5
    """
    return float(np.mean(label_ranks(labels, predicted) <= k))


def ndcg_at(labels: npt.NDArray[Any], predicted: npt.NDArray[Any], *, k: int = 10) -> float:
    """Mean of ``1 / log2(rank + 1)`` where the label is among the best ``k``, else 0.

    NDCG with one relevant item, whose ideal gain is 1 (Järvelin and Kekäläinen 2002).

    Example:
        >>> round(ndcg_at(np.array([7, 1]), np.array([[5, 7], [2, 3]]), k=2), 4)
        0.3155
    """
    return float(np.mean(gains(label_ranks(labels, predicted), k)))


def gains(ranks: npt.NDArray[Any], k: int) -> FloatArray:
    """Discounted gain of each rank, 0 below the best ``k``.

    Example:
        >>> gains(np.array([1, 3, 4]), 3).tolist()
        [1.0, 0.5, 0.0]
    """
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


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
