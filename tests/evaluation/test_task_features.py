import dataclasses
import datetime as dt
import itertools

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.gbdt import GradientBoosting
from domainformer.evaluation.tabular_baseline import PUBLIC_PLANS, TabularBaseline
from domainformer.evaluation.task_building import task_at_cuts, task_from_labels
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures

START = dt.datetime(2024, 1, 1)
CUTS = (dt.datetime(2024, 4, 1), dt.datetime(2024, 6, 1), dt.datetime(2024, 9, 1))
PLAN = FeaturePlan(
    numeric=("amount",),
    labels=("kind",),
    ratios=(("amount", "limit"),),
    code="kind",
    value="amount",
    windows=(20.0, 60.0),
    lags=2,
    top=3,
)


def make_frame(n=900, entities=25, seed=0):
    rng = np.random.default_rng(seed)
    amount = rng.normal(size=n).round(3)
    return pl.DataFrame(
        {
            "card": rng.integers(entities, size=n),
            "when": [START + dt.timedelta(minutes=int(m)) for m in rng.integers(520_000, size=n)],
            "kind": pl.Series(["a", "b", "c", None]).gather(rng.integers(4, size=n)),
            "amount": np.where(rng.random(n) < 0.1, np.nan, amount),
        }
    )


def make_task(frame):
    table = EventTable.of(frame, entity="card", time="when")
    static = pl.DataFrame({"card": range(25), "limit": [float(10 + c) for c in range(25)]})
    return task_at_cuts("cards", table, CUTS[:2], CUTS[2], horizon=30, static=static)


TASK = make_task(make_frame())


def features_of(task, plan=PLAN):
    learned = TaskFeatures.fit(task, task.examples.filter(pl.col("fold") == -1), plan)
    return learned.transform(task, task.examples)


def plain(example):
    """Some features of one example by plain Python."""
    cut = example["cut"]
    rows = TASK.table.frame.filter(
        (pl.col("card") == example["entity"]) & (pl.col("when") < cut)
    ).to_dicts()
    age = [(cut - r["when"]).total_seconds() / 86400 for r in rows]
    known = [(a, r["amount"]) for a, r in zip(age, rows, strict=True) if not np.isnan(r["amount"])]
    amounts = [value for _, value in known]
    gaps = [a - b for a, b in itertools.pairwise(age)]
    recent = [value for a, value in known if a <= 60]
    in_a = [(a, r["amount"]) for a, r in zip(age, rows, strict=True) if r["kind"] == "a"]
    in_a = [(a, v) for a, v in in_a if not np.isnan(v)]
    last_two = [r["amount"] for r in rows[-2:]]
    return {
        "events": len(rows),
        "recency": min(age),
        "tenure": max(age) - min(age),
        "gap.mean": np.mean(gaps) if gaps else None,
        "events.last_20": sum(a <= 20 for a in age),
        "events.before_20_in_60": sum(20 < a <= 60 for a in age),
        "amount.mean": np.mean(amounts) if amounts else None,
        "amount.trend_60": np.mean(recent) - np.mean(amounts) if recent else None,
        "amount.lag_2": None if len(rows) < 2 or np.isnan(last_two[0]) else last_two[0],
        "amount/limit.sum": sum(amounts) / (10 + example["entity"]),
        "static.limit": 10 + example["entity"],
        "kind.missing": np.mean([r["kind"] is None for r in rows]),
        "a.count": len(in_a) or None,
        "a.last": in_a[-1][1] if in_a else None,
        "a.range": max(v for _, v in in_a) - min(v for _, v in in_a) if in_a else None,
        "a.slope": np.polyfit([-a for a, _ in in_a], [v for _, v in in_a], 1)[0]
        if len(in_a) > 1
        else None,
        "a.last_age": in_a[-1][0] if in_a else None,
    }


def test_features_equal_plain_python():
    features = features_of(TASK)
    assert features["example"].equals(TASK.examples["example"])
    for place, example in enumerate(TASK.examples.iter_rows(named=True)):
        for name, expected in plain(example).items():
            found = features[name][place]
            wanted = None if expected is None else pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert found == wanted, (name, example)


def test_no_feature_looks_past_its_cut():
    """What happens from the first cut on changes no feature there. Twin: what lies before does."""
    frame = make_frame()
    kept = TASK.examples.filter(pl.col("cut") == CUTS[0])

    def of(altered):
        task = TASK.with_table(EventTable.of(altered, entity="card", time="when"))
        return TaskFeatures.fit(task, kept, PLAN).transform(task, kept)

    when, amount = pl.col("when"), pl.col("amount")
    later = pl.when(when >= CUTS[0]).then(99.0).otherwise(amount)
    gone = frame.filter((when < CUTS[0]) | (when > CUTS[2]))
    honest = of(frame)
    assert of(frame.with_columns(amount=later)).equals(honest)
    assert of(gone).equals(honest)
    sooner = pl.when(when < CUTS[0]).then(99.0).otherwise(amount)
    assert not of(frame.with_columns(amount=sooner)).equals(honest)


def test_frequent_values_are_learned_from_training_examples_alone():
    frame = make_frame()
    late = pl.when(pl.col("when") >= CUTS[1]).then(pl.lit("new")).otherwise(pl.col("kind"))
    task = make_task(frame.with_columns(kind=late))
    learned = TaskFeatures.fit(task, task.examples.filter(pl.col("fold") == -1), PLAN)
    assert set(learned.frequent["kind"]) == {"a", "b", "c"}
    leaky = TaskFeatures.fit(task, task.examples, PLAN)
    assert "new" in leaky.frequent["kind"]


def test_rows_follow_the_examples_in_any_order():
    learned = TaskFeatures.fit(TASK, TASK.examples, PLAN)
    shuffled = TASK.examples.sample(fraction=1.0, shuffle=True, seed=1)
    there = learned.transform(TASK, shuffled).sort("example")
    assert there.equals(learned.transform(TASK, TASK.examples))


def test_infinite_numbers_and_entities_without_events():
    frame = pl.DataFrame({"who": [1, 1, 2], "t": [0, 1, 0], "x": [float("inf"), 2.0, float("nan")]})
    table = EventTable.of(frame, entity="who", time="t")
    labels = pl.DataFrame({"who": [1, 2, 3, 4], "y": [0, 1, 0, 1]})
    task = task_from_labels("tiny", table, labels, label="y", folds=2)
    features = features_of_all(task, FeaturePlan(numeric=("x",), windows=(5.0,)))
    assert features["events"].to_list() == [2.0, 1.0, 0.0, 0.0]
    assert features["x.mean"].to_list() == [2.0, None, None, None]
    for name in features.columns[1:]:
        assert features[name].is_finite().fill_null(True).all(), name


def features_of_all(task, plan):
    return TaskFeatures.fit(task, task.examples, plan).transform(task, task.examples)


def test_totals_are_left_out_where_records_get_longer():
    """What describes whole records goes, what later cuts show alike stays."""
    without = features_of(TASK, dataclasses.replace(PLAN, totals=False))
    everything = features_of(TASK)
    gone = set(everything.columns) - set(without.columns)
    assert {"events", "tenure", "amount.sum", "amount/limit.count", "kind.usual"} <= gone
    assert {"recency", "amount.mean", "a.count", "static.limit", "events.last_20"}.isdisjoint(gone)
    assert without.equals(everything.select(without.columns))


def test_a_horizon_adds_the_rhythm_and_looks_past_no_cut():
    plan = dataclasses.replace(PLAN, horizon=30.0)
    added = set(features_of(TASK, plan).columns) - set(features_of(TASK).columns)
    assert all(name.startswith("rhythm.") for name in added)
    assert "rhythm.season.1" in added
    later = make_frame().filter((pl.col("when") < CUTS[0]) | (pl.col("when") > CUTS[2]))
    kept = TASK.examples.filter(pl.col("cut") == CUTS[0])
    tasks = TASK, TASK.with_table(EventTable.of(later, entity="card", time="when"))
    one, two = (TaskFeatures.fit(t, kept, plan).transform(t, kept) for t in tasks)
    assert one.equals(two)


def test_bad_plans_are_told():
    with pytest.raises(ConfigError, match="value column"):
        FeaturePlan(code="kind")
    with pytest.raises(ConfigError, match="windows"):
        FeaturePlan(windows=(0,))
    with pytest.raises(ConfigError, match="horizon"):
        FeaturePlan(horizon=0)
    with pytest.raises(DataError, match="'amonut'"):
        TaskFeatures.fit(TASK, TASK.examples, FeaturePlan(numeric=("amonut",)))
    with pytest.raises(DataError, match="'limits'"):
        TaskFeatures.fit(TASK, TASK.examples, FeaturePlan(ratios=(("amount", "limits"),)))


def test_the_baseline_finds_a_label_that_aggregates_tell():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(240), 8)
    sick = rng.integers(2, size=240)
    frame = pl.DataFrame({"who": who, "t": np.tile(np.arange(8), 240)}).with_columns(
        code=pl.Series(["HR", "Temp"]).gather(rng.integers(2, size=len(who)))
    )
    rise = (frame["t"].to_numpy() * sick[who] * (frame["code"].to_numpy() == "HR")) * 0.5
    frame = frame.with_columns(value=rise + rng.normal(size=len(who)))
    table = EventTable.of(frame, entity="who", time="t")
    labels = pl.DataFrame({"who": np.arange(240), "y": sick})
    task = task_from_labels("rise", table, labels, label="y", folds=3)
    small = GradientBoosting(budget=1, inner_folds=2, bag=1, rounds=50, patience=10)
    model = TabularBaseline(FeaturePlan(code="code", value="value", windows=(3.0,)), small)
    split = next(iter(task.splits()))
    fitted = model.fit(task, split.train, split.train.head(0), 0)
    found = fitted.predict(task, split.test)
    assert metrics.auroc(task.labels(split.test), found) > 0.9
    assert fitted.boosting.importances()["feature"][0].startswith("HR.")


def test_public_plans_name_columns_that_exist(data_root):
    pytest.importorskip("lightgbm")
    from domainformer.evaluation.public_tasks import public_task

    task = public_task("credit_default", data_root)
    few = task.examples.head(50)
    features = TaskFeatures.fit(task, few, PUBLIC_PLANS["credit_default"]).transform(task, few)
    assert features.height == 50
    assert features["bill_amount.lag_6"].null_count() == 0
