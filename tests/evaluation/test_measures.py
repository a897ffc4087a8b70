"""Metrics of calibration, lift and ranking against scikit-learn; calibrators, too."""

import numpy as np
import pytest

from domainformer.errors import DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.calibration import fit_calibrator
from domainformer.evaluation.measures import MEASURES, check_prediction

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def drawn(n=600, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n).round(1)
    truth = 1 / (1 + np.exp(-scores))
    y = (rng.random(n) < truth).astype(int)
    return y, 1 / (1 + np.exp(-(2.5 * scores + 0.7)))  # too sure, and too high


def test_simple_metrics_equal_scikit_learn():
    y, p = drawn()
    assert metrics.brier(y, p) == pytest.approx(sklearn_metrics.brier_score_loss(y, p))
    assert metrics.mae(y, p) == pytest.approx(sklearn_metrics.mean_absolute_error(y, p))


def test_calibration_error_equals_a_loop_over_bins():
    y, p = drawn()
    expected = 0.0
    for low in range(15):
        inside = (p >= low / 15) & (p < (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(y[inside].mean() - p[inside].mean())
    assert metrics.calibration_error(y, p) == pytest.approx(expected)
    two = np.stack([1 - p, p], axis=1)
    top = np.where(p > 0.5, p, 1 - p)
    right = (p > 0.5) == y
    assert metrics.calibration_error(y, two) == pytest.approx(
        metrics.calibration_error(right.astype(int), top)
    )


def test_lift_shares_ties_and_does_not_depend_on_the_order_of_rows():
    y, p = drawn()
    order = np.random.default_rng(1).permutation(len(y))
    lift = metrics.lift_by_decile(y, p)
    assert np.allclose(lift, metrics.lift_by_decile(y[order], p[order]))
    assert lift.mean() == pytest.approx(1.0)
    assert lift[0] > 1.5 > 0.5 > lift[-1]
    assert np.allclose(metrics.lift_by_decile(y, np.zeros(len(y))), 1.0)


def test_ranking_equals_scikit_learn_and_scores_equal_lists():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 40))
    y = rng.integers(0, 40, 50)
    relevant = np.eye(40)[y]
    for k in (5, 10):
        assert metrics.ndcg_at(y, scores, k=k) == pytest.approx(
            sklearn_metrics.ndcg_score(relevant, scores, k=k)
        )
        assert metrics.recall_at(y, scores, k=k) == pytest.approx(
            sklearn_metrics.top_k_accuracy_score(y, scores, k=k, labels=np.arange(40))
        )
        lists = np.argsort(-scores, axis=1)[:, :k]
        assert metrics.ndcg_at(y, lists, k=k) == metrics.ndcg_at(y, scores, k=k)


def test_equal_scores_earn_nothing():
    assert metrics.recall_at(np.array([0, 5]), np.zeros((2, 20)), k=10) == 0
    assert metrics.label_ranks(np.array([1]), np.array([[0.0, np.nan, 1.0]])).tolist() == [3]


def test_weighted_forms_equal_repeated_rows():
    rng = np.random.default_rng(3)
    times = rng.integers(0, 3, 60)
    rows = np.repeat(np.arange(60), times)
    cases = {
        "binary": (rng.integers(0, 2, 60), rng.random(60)),
        "multiclass": (rng.integers(0, 4, 60), rng.dirichlet(np.ones(4), 60)),
        "regression": (rng.normal(size=60), rng.normal(size=60)),
        "next_item": (rng.integers(0, 30, 60), rng.normal(size=(60, 30))),
    }
    for kind, (y, p) in cases.items():
        for name, measure in MEASURES[kind].items():
            if measure.weigh is not None:
                found = measure.weigh(y, p)(times.astype(float))
                assert found == pytest.approx(measure.metric(y[rows], p[rows])), name


def test_platt_equals_scikit_learn_without_a_penalty():
    linear = pytest.importorskip("sklearn.linear_model")
    y, p = drawn(4000)
    found = fit_calibrator(y, p)
    logit = np.log(p / (1 - p))[:, None]
    other = linear.LogisticRegression(C=1e9, tol=1e-10).fit(logit, y)
    # Platt's targets are smoothed by one observation a class.
    assert found.slope == pytest.approx(other.coef_[0, 0], rel=5e-3)
    assert found.intercept == pytest.approx(other.intercept_[0], abs=5e-3)


def test_isotonic_equals_scikit_learn():
    isotonic = pytest.importorskip("sklearn.isotonic")
    y, p = drawn()
    other = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p, y)
    grid = np.linspace(0, 1, 301)
    assert np.allclose(fit_calibrator(y, p, "isotonic")(grid), other.predict(grid))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_helps_on_other_examples(method):
    y, p = drawn(3000, seed=1)
    fresh_y, fresh_p = drawn(3000, seed=2)
    better = fit_calibrator(y, p, method)(fresh_p)
    assert metrics.calibration_error(fresh_y, better) < 0.5 * metrics.calibration_error(
        fresh_y, fresh_p
    )
    assert metrics.log_loss(fresh_y, better) < metrics.log_loss(fresh_y, fresh_p)


def test_platt_survives_perfect_and_reversed_models():
    y = np.array([0] * 50 + [1] * 50)
    assert np.isfinite(fit_calibrator(y, y.astype(float))(np.array([0.0, 1.0]))).all()
    assert np.allclose(fit_calibrator(y, 1.0 - y)(np.array([0.1, 0.9])), 0.5)


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([1, 1], [0.1, 0.2], "both of them"),
        ([0, 1], [0.1, np.nan], r"in \[0, 1\]"),
        ([0, 1], [0.1, 1.2], r"in \[0, 1\]"),
        ([0, 1], [0.1], "one length"),
    ],
)
def test_calibration_refuses(y, p, message):
    with pytest.raises(DataError, match=message):
        fit_calibrator(np.array(y), np.array(p))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (np.array([0.5, np.nan]), "binary", "NaN or infinite"),
        (np.array([0.5, np.inf]), "regression", "NaN or infinite"),
        (np.array([0.5]), "binary", "wrong shape"),
        (np.array([[0.5, 0.6], [0.5, 0.5]]), "multiclass", "sum to 1"),
        (np.array([0.5, -0.1]), "binary", "no probabilities"),
        (np.zeros((2, 3)), "next_item", "wrong shape"),
    ],
)
def test_predictions_are_checked(values, kind, message):
    with pytest.raises(DataError, match=message):
        check_prediction(values, kind, 2, 2, "here")
