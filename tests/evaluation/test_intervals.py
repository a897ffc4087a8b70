import numpy as np
import pytest

from domainformer.errors import DataError
from domainformer.evaluation.intervals import ClusterBootstrap, Interval, compare, weighted_metric
from domainformer.evaluation.metrics import (
    accuracy,
    auprc,
    auroc,
    log_loss,
    r_squared,
    rmse,
    top_accuracy,
)


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
def test_weights_are_repeated_rows(levels):
    rng = np.random.default_rng(4)
    y = rng.integers(2, size=80)
    score = rng.integers(1, levels, size=80) / levels
    two = np.column_stack([1 - score, score])
    weights = rng.integers(4, size=80).astype(float)
    rows = np.repeat(np.arange(80), weights.astype(int))
    for metric, predicted in (
        (auroc, score),
        (auprc, score),
        (log_loss, score),
        (log_loss, two),
        (accuracy, score > 0.5),
        (top_accuracy, two),
        (rmse, score),
        (r_squared, score),
    ):
        found = weighted_metric(metric, y, predicted)(weights)
        assert found == pytest.approx(metric(y[rows], predicted[rows])), metric.__name__


def test_intervals_are_seeded_and_hold_the_truth():
    rng = np.random.default_rng(1)
    y = (rng.random(300) < 0.4).astype(int)
    score = y + rng.normal(size=300)

    def interval(seed):
        return compare(y, {"a": score}, {"auroc": auroc}, samples=200, seed=seed).figures["a"]

    first = interval(0)["auroc"]
    assert first == interval(0)["auroc"]
    assert first != interval(1)["auroc"]
    assert first.low < first.value < first.high
    assert first.value == auroc(y, score)


def test_intervals_equal_a_naive_resampling():
    rng = np.random.default_rng(2)
    y = (rng.random(60) < 0.4).astype(int)
    a, b = y + rng.normal(size=60), rng.normal(size=60)
    found = compare(y, {"a": a, "b": b}, {"auroc": auroc}, [("a", "b")], samples=300, seed=7)
    rng = np.random.default_rng(7)
    draws = [rng.integers(60, size=60) for _ in range(300)]
    differences = [auroc(y[rows], a[rows]) - auroc(y[rows], b[rows]) for rows in draws]
    low, high = np.quantile(differences, [0.025, 0.975])
    interval = found.differences["a - b"]["auroc"]
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.value == auroc(y, a) - auroc(y, b)


def test_paired_differences_are_tighter_than_unpaired():
    rng = np.random.default_rng(2)
    y = (rng.random(300) < 0.5).astype(int)
    a = y + rng.normal(size=300)
    b = a + 0.1 * rng.normal(size=300)
    found = compare(y, {"a": a, "b": b}, {"auroc": auroc}, [("a", "b")], samples=200)
    paired, single = found.differences["a - b"]["auroc"], found.figures["a"]["auroc"]
    assert paired.high - paired.low < (single.high - single.low) / 2


def test_a_handful_of_positives_still_gives_an_interval():
    y = np.zeros(50, int)
    y[:2] = 1
    figure = compare(y, {"a": np.arange(50)[::-1]}, {"auroc": auroc}, samples=300).figures["a"]
    assert np.isfinite([figure["auroc"].low, figure["auroc"].high]).all()


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(30), 20)
    values = np.repeat(rng.normal(size=30), 20)
    by_entity = ClusterBootstrap(cluster).mean(values)
    by_event = ClusterBootstrap(np.arange(600)).mean(values)
    assert by_entity.value == pytest.approx(values.mean())
    assert by_entity.high - by_entity.low > 3 * (by_event.high - by_event.low)


def test_cluster_means_equal_a_naive_resampling():
    cluster = np.array([5, 5, 9, 9, 9, 7])
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    rng = np.random.default_rng(0)
    sums, sizes = np.array([3.0, 6.0, 12.0]), np.array([2, 1, 3])
    draws = [(w @ sums) / (w @ sizes) for w in rng.multinomial(3, np.full(3, 1 / 3), size=500)]
    low, high = np.quantile(draws, [0.025, 0.975])
    found = ClusterBootstrap(cluster, samples=500).mean(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)


def test_excluding_zero():
    assert Interval(0.1, 0.05, 0.2).excludes_zero
    assert not Interval(0.1, -0.05, 0.2).excludes_zero


def test_impossible_input_is_told():
    with pytest.raises(DataError, match="nothing to average"):
        ClusterBootstrap(np.zeros(0))
    with pytest.raises(DataError, match="no weighted form"):
        compare(np.ones(3), {"a": np.ones(3)}, {"mean": lambda y, p: float(p.mean())})
