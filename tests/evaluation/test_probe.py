import json
import sys

import numpy as np
import polars as pl
import pytest

from domainformer.errors import DataError, MissingExtraError
from domainformer.evaluation import probe
from domainformer.evaluation.probe import stratified_folds


def make(n=240, kind="binary", seed=0):
    """Embeddings that know the label, aggregates that half know it."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    values = {
        "binary": (signal > 0.5).astype(int),
        "multiclass": np.digitize(signal, [-0.5, 0.5]),
        "regression": signal,
    }[kind]
    ids = pl.Series("card", np.arange(n) * 3)
    vectors = np.column_stack([signal + 0.3 * rng.normal(size=n), rng.normal(size=(n, 3))])
    embeddings = pl.DataFrame(
        [ids, pl.Series("embedding", vectors.astype(np.float32), dtype=pl.Array(pl.Float32, 4))]
    )
    aggregates = pl.DataFrame([ids, pl.Series("mean", signal + rng.normal(size=n))])
    return embeddings, aggregates, pl.DataFrame([ids, pl.Series("label", values)])


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("binary", "auroc"), ("multiclass", "accuracy"), ("regression", "r_squared")],
)
def test_better_features_win_in_every_task(kind, metric):
    result = probe(*make(kind=kind), folds=3, resamples=50)
    assert result.task == kind
    figures = {name: cells[metric].value for name, cells in result.figures.items()}
    assert figures["embeddings"] > figures["aggregates"]
    assert result.features == {"embeddings": 4, "aggregates": 1, "both": 5}
    difference = result.differences["embeddings - aggregates"][metric]
    assert difference.value == pytest.approx(figures["embeddings"] - figures["aggregates"])
    assert difference.excludes_zero
    json.dumps(result.to_json())


def test_rows_meet_by_entity_not_by_position():
    embeddings, aggregates, labels = make()
    straight = probe(embeddings, aggregates, labels, folds=3, resamples=20)
    shuffled = probe(
        embeddings.reverse(),
        aggregates.sample(fraction=1, shuffle=True, seed=1),
        labels,
        folds=3,
        resamples=20,
    )
    assert straight.figures == shuffled.figures


def test_the_result_does_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(sys.modules[probe.__module__], "ROUNDS", 2)
    one, two = (probe(*make(), folds=2, resamples=20, threads=t) for t in (1, 2))
    assert one.figures == two.figures
    assert one.predictions.equals(two.predictions)


def test_every_prediction_is_out_of_fold():
    """Sabotage twin: random labels cannot be learned, unless a row sees its own label."""
    embeddings, aggregates, labels = make()
    noise = np.random.default_rng(9).integers(2, size=labels.height)
    result = probe(embeddings, aggregates, labels.with_columns(label=noise), folds=3, resamples=50)
    assert 0.35 < result.figures["both"]["auroc"].value < 0.65
    leaky = aggregates.with_columns(leak=pl.Series(noise))
    caught = probe(embeddings, leaky, labels.with_columns(label=noise), folds=3, resamples=50)
    assert caught.figures["both"]["auroc"].value > 0.95


def test_embeddings_alone():
    embeddings, _, labels = make()
    result = probe(embeddings, None, labels, folds=3, resamples=20)
    assert list(result.figures) == ["embeddings"]
    assert result.differences == {}


def test_what_is_left_out_is_told():
    embeddings, aggregates, labels = make()
    labels = pl.concat(
        [
            labels.with_columns(pl.when(pl.col("card") > 0).then("label").alias("label")),
            pl.DataFrame({"card": [-1], "label": [1]}),
        ]
    )
    result = probe(embeddings, aggregates, labels, folds=3, resamples=20)
    assert result.entities == 239
    assert result.notes == [
        "1 entities without a label were left out",
        "1 labelled entities without events were left out",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda label: label.with_columns(label=pl.lit(1)), "single class"),
        (lambda label: label.with_columns(pl.col("card") + 1), "no entity has both"),
        (lambda label: label.with_columns(pl.col("card").cast(pl.String)), "different types"),
        (
            lambda label: label.with_columns(label=(pl.int_range(pl.len()) < 2).cast(pl.Int8)),
            "2 entities, fewer than the 3 folds",
        ),
        (
            lambda label: label.with_columns(label=pl.col("card").cast(pl.String)),
            "240 classes",
        ),
    ],
)
def test_bad_labels(change, message):
    embeddings, aggregates, labels = make()
    with pytest.raises(DataError, match=message):
        probe(embeddings, aggregates, change(labels), folds=3)


def test_without_lightgbm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"domainformer\[gbdt\]"):
        probe(*make(), folds=3)


def test_folds_spread_every_class():
    y = np.array([0] * 90 + [1] * 13)
    fold = stratified_folds(y, 5, seed=3)
    assert np.ptp(np.bincount(fold)) <= 1
    assert np.ptp(np.bincount(fold[y == 1])) <= 1
    assert (fold == stratified_folds(y, 5, seed=3)).all()
    assert (fold != stratified_folds(y, 5, seed=4)).any()
