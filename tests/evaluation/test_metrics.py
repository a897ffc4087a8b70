import numpy as np
import pytest
from sklearn import metrics as oracle

from domainformer.errors import DataError
from domainformer.evaluation.metrics import (
    ClusterBootstrap,
    Interval,
    accuracy,
    auprc,
    auroc,
    bootstrap,
    log_loss,
    paired_bootstrap,
    r_squared,
    rmse,
)


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_metrics_equal_sklearn(seed, levels):
    rng = np.random.default_rng(seed)
    y = (rng.random(200) < 0.3).astype(int)
    scores = rng.integers(levels, size=200) / levels + 0.2 * y
    assert auroc(y, scores) == pytest.approx(oracle.roc_auc_score(y, scores))
    assert auprc(y, scores) == pytest.approx(oracle.average_precision_score(y, scores))


def test_other_metrics_equal_sklearn():
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=100)
    p = rng.dirichlet(np.ones(4), size=100)
    assert log_loss(y, p) == pytest.approx(oracle.log_loss(y, p))
    assert log_loss(y % 2, p[:, 0]) == pytest.approx(oracle.log_loss(y % 2, p[:, 0]))
    assert accuracy(y, p.argmax(1)) == pytest.approx(oracle.accuracy_score(y, p.argmax(1)))
    x, z = rng.normal(size=100), rng.normal(size=100)
    assert r_squared(x, z) == pytest.approx(oracle.r2_score(x, z))
    assert rmse(x, z) == pytest.approx(oracle.root_mean_squared_error(x, z))


def test_a_confident_mistake_costs_a_finite_price():
    assert log_loss(np.array([1]), np.array([0.0])) == pytest.approx(34.54, abs=0.01)


def test_intervals_are_seeded_and_hold_the_truth():
    rng = np.random.default_rng(1)
    y = (rng.random(300) < 0.4).astype(int)
    score = y + rng.normal(size=300)
    first = bootstrap(auroc, y, score, samples=200)
    assert first == bootstrap(auroc, y, score, samples=200)
    assert first != bootstrap(auroc, y, score, samples=200, seed=1)
    assert first.low < first.value < first.high
    assert first.value == auroc(y, score)


def test_paired_differences_are_tighter_than_unpaired():
    rng = np.random.default_rng(2)
    y = (rng.random(300) < 0.5).astype(int)
    a = y + rng.normal(size=300)
    b = a + 0.1 * rng.normal(size=300)
    paired = paired_bootstrap(auroc, y, a, b, samples=200)
    single = bootstrap(auroc, y, a, samples=200)
    assert paired.high - paired.low < (single.high - single.low) / 2


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc(np.zeros(4), np.arange(4)), "both classes"),
        (lambda: auroc(np.arange(4), np.arange(4)), "0 or 1"),
        (lambda: accuracy(np.zeros(3), np.zeros(4)), "length"),
        (lambda: log_loss(np.zeros(0), np.zeros(0)), "nothing to measure"),
        (lambda: r_squared(np.ones(4), np.ones(4)), "all labels are equal"),
        (lambda: ClusterBootstrap(np.zeros(0)), "nothing to average"),
    ],
)
def test_impossible_input_is_told(call, message):
    with pytest.raises(DataError, match=message):
        call()
