"""Bootstrap intervals: of metrics over cases, and of means over events of entities.

Intervals are percentile bootstraps with a seed. Differences between two contestants are always
*paired*: both are resampled with the same rows (or the same entities), because two models judged on
the same cases share most of their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import DataError
from domainformer.evaluation.metrics import (
    FloatArray,
    accuracy,
    auprc,
    auroc,
    log_loss,
    probability_of_label,
    r_squared,
    rmse,
    top_accuracy,
)

Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]


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


@dataclass(frozen=True)
class Comparison:
    """Contestants on the same cases.

    Args:
        figures: ``{contestant: {metric: Interval}}``.
        differences: ``{"first - second": {metric: Interval}}``, paired.
    """

    figures: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]


def compare(
    labels: npt.NDArray[Any],
    contestants: Mapping[str, npt.NDArray[Any]],
    measures: Mapping[str, Metric],
    pairs: Sequence[tuple[str, str]] = (),
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Metrics of several contestants and their differences, by a paired percentile bootstrap.

    Every contestant and every metric sees the same resamples. Resampling is by weights (how often
    a row was drawn), so that scores are sorted once and not once per resample.

    Args:
        labels: ``[n]``.
        contestants: What each predicted, first axis ``[n]``.
        measures: Metrics by name, for example ``{"auroc": auroc}``.
        pairs: Contestants whose difference (first minus second) is asked for.
        samples: Number of resamples.
        level: Coverage of the intervals.
        seed: Resamples depend on it and on ``n`` alone.

    Example:
        >>> y, half = np.array([0, 1] * 50), np.array([0, 0] * 50)
        >>> found = compare(y, {"a": y, "b": half}, {"accuracy": accuracy}, [("a", "b")])
        >>> print(found.figures["a"]["accuracy"])
        1.0000 [1.0000, 1.0000]
        >>> found.differences["a - b"]["accuracy"].excludes_zero
        True
    """
    labels = np.asarray(labels)
    cells = [(name, metric) for name in contestants for metric in measures]
    values = {(n, m): measures[m](labels, contestants[n]) for n, m in cells}
    weighted = [weighted_metric(measures[m], labels, contestants[n]) for n, m in cells]
    draws = np.empty((samples, len(cells)))
    rng = np.random.default_rng(seed)
    for sample in range(samples):
        weights = _resample(labels, rng)
        draws[sample] = [metric(weights) for metric in weighted]
    by_cell = dict(zip(cells, draws.T, strict=True))
    return Comparison(
        figures={
            name: {m: _interval(values[name, m], by_cell[name, m], level) for m in measures}
            for name in contestants
        },
        differences={
            f"{first} - {second}": {
                m: _interval(
                    values[first, m] - values[second, m],
                    by_cell[first, m] - by_cell[second, m],
                    level,
                )
                for m in measures
            }
            for first, second in pairs
        },
    )


def weighted_metric(
    metric: Metric, labels: npt.NDArray[Any], predicted: npt.NDArray[Any]
) -> Callable[[FloatArray], float]:
    """The metric as a function of how often each row counts, linear in the number of rows.

    Example:
        >>> y, p = np.array([0, 1, 1]), np.array([0.2, 0.9, 0.1])
        >>> weighted_metric(auroc, y, p)(np.array([1.0, 2.0, 1.0])) == auroc(
        ...     y[[0, 1, 1, 2]], p[[0, 1, 1, 2]])
        True
    """
    if metric in (auroc, auprc):
        return _weighted_ranking(metric, labels, predicted)
    if metric is r_squared:
        errors, y = (labels - predicted) ** 2, labels.astype(np.float64)

        def explained(w: FloatArray) -> float:
            mean = (w @ y) / w.sum()
            return float(1.0 - (w @ errors) / (w @ (y - mean) ** 2))

        return explained
    rows = _row_values(metric, labels, predicted)
    if metric is rmse:
        return lambda w: float(np.sqrt((w @ rows) / w.sum()))
    return lambda w: float((w @ rows) / w.sum())


def _row_values(metric: Metric, labels: Any, predicted: Any) -> FloatArray:
    """What each row adds to a metric that is a mean over rows (for RMSE, before the root)."""
    if metric is accuracy:
        return (labels == predicted).astype(np.float64)
    if metric is top_accuracy:
        return (labels == predicted.argmax(axis=1)).astype(np.float64)
    if metric is rmse:
        return np.asarray((labels - predicted) ** 2, np.float64)
    if metric is log_loss:
        return -np.log(probability_of_label(labels, predicted))
    raise DataError(f"there is no weighted form of {getattr(metric, '__name__', metric)!r}")


def _weighted_ranking(
    metric: Metric, labels: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> Callable[[FloatArray], float]:
    """AUROC or AUPRC with the scores sorted once, from the highest, ties as one group."""
    order = np.argsort(-scores, kind="stable")
    positive = (labels[order] == 1).astype(np.float64)
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))

    def measure(w: FloatArray) -> float:
        sorted_w = w[order]
        hits = np.add.reduceat(sorted_w * positive, starts)
        misses = np.add.reduceat(sorted_w * (1.0 - positive), starts)
        if metric is auroc:
            below = misses.sum() - np.cumsum(misses)
            return float(hits @ (below + misses / 2) / (hits.sum() * misses.sum()))
        found = np.cumsum(hits)
        # A group in which nothing was drawn is no threshold: it adds no recall.
        precision = found / np.maximum(found + np.cumsum(misses), 1e-300)
        return float(hits @ precision / found[-1])

    return measure


def _resample(labels: npt.NDArray[Any], rng: np.random.Generator) -> FloatArray:
    """How often each row is drawn. A draw of one class alone is repeated: no metric could judge it.

    That matters for a handful of positives only; after a hundred draws the last one stands.
    """
    n = len(labels)
    for _ in range(100):
        weights = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        drawn = labels[weights > 0]
        if drawn.min() != drawn.max():
            break
    return weights


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


def _interval(value: float, draws: FloatArray, level: float) -> Interval:
    tail = (1.0 - level) / 2
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high))
