"""The tabular network as a contestant: learns from aggregates, averages, knows all classes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.contest.logits import average
from domainformer.evaluation.contest.tabular import TabularNetwork
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.task_building import task_from_labels
from domainformer.evaluation.task_features import FeaturePlan
from domainformer.training.fusion_config import FusionConfig

PLAN = FeaturePlan(numeric=("amount",))
CONFIG = FusionConfig(
    epochs=8,
    batch_rows=32,
    threads=1,
    model={"numeric_embedding": "plain", "cross_layers": 1, "deep_layers": [8]},
    rates={"tabular": 0.01, "head": 0.01},
)


def make_task(kind="binary"):
    rng = np.random.default_rng(0)
    labels = rng.integers(3 if kind == "multiclass" else 2, size=240)
    who = np.repeat(np.arange(240), 4)
    frame = pl.DataFrame({"who": who, "amount": rng.normal(size=len(who)) + 2.0 * labels[who]})
    table = EventTable.of(frame, entity="who")
    known = pl.DataFrame({"who": np.arange(240), "y": labels})
    return task_from_labels("sums", table, known, label="y", kind=kind, folds=3)


def parts(task):
    split = next(iter(task.splits()))
    return *inner_split(task, split, seed=0), split.test


def test_it_learns_what_aggregates_tell_and_averages_its_networks():
    task = make_task()
    train, valid, test = parts(task)
    fitted = TabularNetwork(PLAN, CONFIG, ensemble=2).fit(task, train, valid, 0)
    said = fitted.predict(task, test.drop("label"))
    assert metrics.auroc(task.labels(test), said) > 0.9
    frame = fitted.features.transform(task, test)
    alone = [one.predict_array(frame) for one in fitted.predictors]
    assert not np.allclose(alone[0], alone[1])
    np.testing.assert_allclose(said, average(alone, "binary"))


def test_a_class_that_training_never_showed_has_no_chance():
    task = make_task("multiclass")
    train, valid, test = parts(task)
    train, valid = (rows.filter(pl.col("label") != 1) for rows in (train, valid))
    said = TabularNetwork(PLAN, CONFIG).fit(task, train, valid, 0).predict(task, test)
    assert said.shape == (test.height, 3)
    assert (said[:, 1] < 1e-6).all()
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)


def test_bad_input_is_told():
    task = make_task()
    train, valid, _ = parts(task)
    with pytest.raises(ConfigError, match="at least 1"):
        TabularNetwork(ensemble=0)
    with pytest.raises(DataError, match="validation examples"):
        TabularNetwork(PLAN, CONFIG).fit(task, train, valid.clear(), 0)
