"""Figures of merit in plain numpy, each with an interval from a seeded bootstrap.

The formulas are short enough to own: no evaluation needs scikit-learn, and the tests hold every
one of them equal to it. Intervals are percentile bootstraps. Differences between two contestants
are always *paired*: both are resampled with the same rows (or the same entities), because two
models judged on the same cases share most of their noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import DataError

FloatArray = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]

# Probabilities are kept away from 0 so that one confident mistake costs 34.5 nats, not infinity.
SMALLEST = 1e-15


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval.

    Args:
        value: The figure on all rows.
        low: Lower end of the interval.
        high: Upper end.

    Example:
        >>> print(Interval(0.61234, 0.6, 0.62))
        0.6123 [0.6000, 0.6200]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of the interval (for differences)."""
        return self.low > 0 or self.high < 0


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
    labels, probabilities = _pair(labels, probabilities)
    if probabilities.ndim == 1:
        of_label = np.where(labels == 1, probabilities, 1.0 - probabilities)
    else:
        of_label = probabilities[np.arange(len(labels)), labels.astype(np.int64)]
    return float(-np.mean(np.log(np.clip(of_label, SMALLEST, 1.0))))


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


def bootstrap(
    metric: Metric,
    labels: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A metric with its percentile interval over resampled rows.

    Args:
        metric: For example :func:`auroc`.
        labels: ``[n]``.
        predicted: What the metric compares them with, first axis ``[n]``.
        samples: Number of resamples.
        level: Coverage of the interval.
        seed: Resamples depend on it and on ``n`` alone.

    Example:
        >>> y = np.array([0, 1] * 50)
        >>> print(bootstrap(accuracy, y, y))
        1.0000 [1.0000, 1.0000]
    """
    draws = _resampled(metric, labels, (predicted,), samples, seed)[:, 0]
    return _interval(metric(labels, predicted), draws, level)


def paired_bootstrap(
    metric: Metric,
    labels: npt.NDArray[Any],
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """``metric(first) − metric(second)`` with its interval, both on the same resampled rows.

    Example:
        >>> y, worse = np.array([0, 1] * 50), np.array([0, 0] * 50)
        >>> paired_bootstrap(accuracy, y, y, worse).excludes_zero
        True
    """
    draws = _resampled(metric, labels, (first, second), samples, seed)
    difference = metric(labels, first) - metric(labels, second)
    return _interval(difference, draws[:, 0] - draws[:, 1], level)


class ClusterBootstrap:
    """Means with intervals over resampled *clusters*, the same resamples for every mean.

    Events of one entity resemble each other, so entities are drawn, not events: each resample is
    ``Σ w_c · sum_c / Σ w_c · n_c`` with multinomial weights over the clusters.

    Args:
        clusters: The entity of each event ``[n]``, any integers.
        samples: Number of resamples.
        level: Coverage of the intervals.
        seed: Resamples depend on it and on the number of clusters alone.

    Example:
        >>> bootstrap_by_entity = ClusterBootstrap(np.array([0, 0, 1, 1, 2, 2]))
        >>> print(bootstrap_by_entity.mean(np.ones(6)))
        1.0000 [1.0000, 1.0000]
    """

    def __init__(
        self,
        clusters: npt.NDArray[Any],
        *,
        samples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> None:
        if not len(clusters):
            raise DataError("there is nothing to average", why="no events were given")
        _, self._index, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
        count = len(sizes)
        rng = np.random.default_rng(seed)
        shares = np.full(count, 1.0 / count)
        self._weights = rng.multinomial(count, shares, size=samples).astype(np.float32)
        self._totals = self._weights @ sizes
        self._level = level

    def mean(self, values: npt.NDArray[Any]) -> Interval:
        """The mean of one number per event, for example a difference of log-losses, in its unit."""
        values = np.asarray(values, dtype=np.float64)
        sums = np.bincount(self._index, weights=values, minlength=self._weights.shape[1])
        return _interval(float(values.mean()), (self._weights @ sums) / self._totals, self._level)


def _resampled(
    metric: Metric,
    labels: npt.NDArray[Any],
    contestants: tuple[npt.NDArray[Any], ...],
    samples: int,
    seed: int,
) -> FloatArray:
    """The metric of each contestant on each resample; resamples without both classes are redrawn.

    Redrawing matters only for a handful of positives; where a hundred draws do not help, the
    metric's own error is the honest answer.
    """
    rng = np.random.default_rng(seed)
    n = len(labels)
    draws = np.empty((samples, len(contestants)))
    for sample in range(samples):
        rows = rng.integers(n, size=n)
        for _ in range(100):
            if metric not in (auroc, auprc, r_squared) or np.ptp(labels[rows]) > 0:
                break
            rows = rng.integers(n, size=n)
        draws[sample] = [metric(labels[rows], one[rows]) for one in contestants]
    return draws


def _interval(value: float, draws: FloatArray, level: float) -> Interval:
    tail = (1.0 - level) / 2
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high))


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
