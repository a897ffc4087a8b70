import numpy as np
import pytest
from sklearn import metrics as oracle

from domainformer.errors import DataError
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
    assert top_accuracy(y, p) == accuracy(y, p.argmax(1))
    x, z = rng.normal(size=100), rng.normal(size=100)
    assert r_squared(x, z) == pytest.approx(oracle.r2_score(x, z))
    assert rmse(x, z) == pytest.approx(oracle.root_mean_squared_error(x, z))


def test_a_confident_mistake_costs_a_finite_price():
    assert log_loss(np.array([1]), np.array([0.0])) == pytest.approx(34.54, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc(np.zeros(4), np.arange(4)), "both classes"),
        (lambda: auroc(np.arange(4), np.arange(4)), "0 or 1"),
        (lambda: accuracy(np.zeros(3), np.zeros(4)), "length"),
        (lambda: log_loss(np.zeros(0), np.zeros(0)), "nothing to measure"),
        (lambda: r_squared(np.ones(4), np.ones(4)), "all labels are equal"),
    ],
)
def test_impossible_input_is_told(call, message):
    with pytest.raises(DataError, match=message):
        call()
