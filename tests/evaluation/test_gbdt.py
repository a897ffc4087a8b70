import numpy as np
import polars as pl
import pytest

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.gbdt import Encoder, GradientBoosting, inner_folds

SMALL = {"budget": 2, "finalists": 1, "inner_folds": 2, "bag": 2, "rounds": 60, "patience": 10}


def make_cases(n=400, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n)
    x = rng.normal(size=n)
    features = pl.DataFrame(
        {
            "example": np.arange(n),
            "x": np.where(rng.random(n) < 0.1, np.nan, x),
            "noise": rng.normal(size=n),
            "kind": pl.Series(["a", "b", "c"]).gather(kind),
        }
    )
    return features, x + (kind == 1), kind


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_learns_what_is_there(kind):
    features, signal, classes = make_cases()
    labels = {"binary": (signal > 0.5).astype(int), "multiclass": classes, "regression": signal}
    y = labels[kind]
    fitted = GradientBoosting(kind, **SMALL).fit(features[:300], y[:300], seed=1)
    found = fitted.predict(features[300:])
    if kind == "binary":
        assert metrics.auroc(y[300:], found) > 0.85
    elif kind == "multiclass":
        assert found.shape == (100, 3)
        assert (found.argmax(axis=1) == y[300:]).mean() > 0.95
    else:
        assert np.corrcoef(y[300:], found)[0, 1] > 0.8
    if kind != "multiclass":  # whose label is one column
        assert fitted.importances()["feature"][-1] == "noise"


def test_ranking_puts_the_relevant_first():
    rng = np.random.default_rng(0)
    queries = np.repeat(np.arange(80), 6)
    relevance = rng.random(480)
    best = np.concatenate([np.arange(6) == row.argmax() for row in relevance.reshape(80, 6)])
    features = pl.DataFrame({"x": relevance, "noise": rng.normal(size=480)})
    model = GradientBoosting("ranking", **SMALL)
    fitted = model.fit(features, best.astype(int), queries=queries)
    top = fitted.predict(features).reshape(80, 6).argmax(axis=1)
    assert (top == best.reshape(80, 6).argmax(axis=1)).mean() > 0.9


def test_the_same_call_gives_the_same_model():
    features, signal, _ = make_cases()
    y = (signal > 0.5).astype(int)
    one, two, other = (
        GradientBoosting(threads=threads, **SMALL).fit(features, y, seed=seed).predict(features)
        for threads, seed in ((1, 0), (2, 0), (1, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_the_best_settings_take_turns_in_the_bag():
    features, signal, _ = make_cases()
    y = (signal > 0.5).astype(int)
    asked = {**SMALL, "budget": 3, "finalists": 2, "bag": 4}
    alone = GradientBoosting(**asked).fit(features, y)
    mixed = GradientBoosting(**asked, mixed=2).fit(features, y)
    assert mixed.tried == alone.tried  # the search is the same
    texts = [one.model_to_string() for one in mixed.models]
    assert texts[::2] == [one.model_to_string() for one in alone.models[::2]]
    assert texts[1] != alone.models[1].model_to_string()
    leaves = [one.params["num_leaves"] for one in mixed.models]
    assert leaves == [one["settings"]["num_leaves"] for one in mixed.tried[:2]] * 2


@pytest.mark.parametrize("asked", [{"mixed": 0}, {"mixed": 2, "finalists": 1}, {"mixed": 3}])
def test_no_more_settings_are_mixed_than_there_are(asked):
    with pytest.raises(ConfigError, match="mixed"):
        GradientBoosting(**{**SMALL, "bag": 2, "finalists": 2, **asked})


def test_inner_folds_keep_groups_together_and_classes_balanced():
    rng = np.random.default_rng(0)
    groups = rng.integers(200, size=600)
    labels = (groups % 4 == 0).astype(int)
    fold_of = inner_folds(labels, 3, groups, "binary", seed=0)
    for group in np.unique(groups):
        assert len(set(fold_of[groups == group])) == 1
    shares = [labels[fold_of == fold].mean() for fold in range(3)]
    assert max(shares) - min(shares) < 0.06


def test_groups_stop_the_search_from_memorising_entities():
    """Labels are noise per entity: whole entities held out score by chance. Twin: rows do not."""
    rng = np.random.default_rng(0)
    entity = np.repeat(np.arange(60), 30)
    labels = rng.integers(2, size=60)[entity]
    features = pl.DataFrame({"who": rng.normal(size=60)[entity]})
    best = {}
    for name, groups in (("entities", entity), ("rows", None)):
        fitted = GradientBoosting(**SMALL).fit(features, labels, groups=groups)
        best[name] = np.mean(fitted.tried[0]["scores"])
    assert best["rows"] > 0.8 > 0.65 > best["entities"]


def test_unseen_categories_nulls_and_infinities_are_missing():
    encoder = Encoder.fit(pl.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "c": [None, None]}))
    frame = pl.DataFrame({"a": [float("inf"), 3.0], "b": ["z", "y"], "c": [None, None]})
    found = encoder.transform(frame)
    np.testing.assert_array_equal(found, [[np.nan, np.nan, np.nan], [3.0, 1.0, np.nan]])


def test_bad_input_is_told():
    features, signal, _ = make_cases(20)
    y = (signal > 0).astype(int)
    model = GradientBoosting(**SMALL)
    with pytest.raises(DataError, match="all labels are the same"):
        model.fit(features, np.ones(20))
    with pytest.raises(DataError, match="NaN or infinite"):
        model.fit(features, np.where(y > 0, np.nan, 0.0))
    with pytest.raises(DataError, match="0 and 1"):
        model.fit(features, y + 1)
    with pytest.raises(DataError, match="20 cases and 3 labels"):
        model.fit(features, y[:3])
    with pytest.raises(DataError, match="no feature columns"):
        model.fit(features.select("example"), y)
    with pytest.raises(DataError, match="neither a number nor a category"):
        model.fit(pl.DataFrame({"x": [[1]] * 20}), y)
    with pytest.raises(DataError, match="query"):
        GradientBoosting("ranking", **SMALL).fit(features, y)
    with pytest.raises(DataError, match="'x' is missing"):
        model.fit(features, y).predict(features.drop("x"))
    with pytest.raises(ConfigError, match="budget"):
        GradientBoosting(budget=0)
    with pytest.raises(ConfigError, match="inner_folds"):
        GradientBoosting(inner_folds=1)
