import datetime as dt
import itertools

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.evaluation.feature_plan import FeaturePlan
from domainformer.evaluation.task_building import task_at_cuts, task_from_labels
from domainformer.evaluation.task_features import TaskFeatures

START = dt.datetime(2024, 1, 1)
PLAN = FeaturePlan(
    numeric=("price", "bill"),
    products=(("price", "pieces"),),
    paid=(("price", "bill"),),
    visits=("price*pieces",),
    windows=(30.0,),
    lags=2,
)


def make_task(seed=0, n=400, entities=40):
    """Baskets: several lines at one time, prices missing now and then, bills of zero."""
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 120, n)
    frame = pl.DataFrame(
        {
            "who": rng.integers(entities, size=n),
            "when": [START + dt.timedelta(days=int(day)) for day in days],
            "price": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n).round(2)),
            "pieces": rng.integers(1, 5, n),
            "bill": rng.integers(0, 3, n).astype(float),
        }
    )
    table = EventTable.of(frame, entity="who", time="when")
    cuts = [START + dt.timedelta(days=day) for day in (60, 85)]
    return task_at_cuts("shop", table, cuts[:1], cuts[1], horizon=10)


def features_of(task, plan):
    return TaskFeatures.fit(task, task.examples, plan).transform(task, task.examples)


def test_products_shares_paid_and_visits_equal_plain_python():
    task = make_task()
    features = features_of(task, PLAN)
    for place, example in enumerate(task.examples.iter_rows(named=True)):
        rows = [
            row
            for row in task.table.frame.iter_rows(named=True)
            if row["who"] == example["entity"] and row["when"] < example["cut"]
        ]
        worth = [
            (row["when"], row["price"] * row["pieces"])
            for row in rows
            if not np.isnan(row["price"])
        ]
        baskets = {}
        for row in rows:
            baskets.setdefault(row["when"], 0.0)
        for when, value in worth:
            baskets[when] += value
        shares = [
            row["price"] / before["bill"] if before["bill"] else None
            for before, row in itertools.pairwise(rows)
        ]
        known = [share for share in shares if share is not None and not np.isnan(share)]
        values = list(baskets.values())
        expected = {
            "price*pieces.sum": sum(value for _, value in worth),
            "visit price*pieces.mean": np.mean(values),
            "visit price*pieces.max": max(values),
            "visit price*pieces.lag_1": values[-1],
            "price/previous bill.mean": np.mean(known) if known else None,
            "price/previous bill.count": len(known),
        }
        for name, wanted in expected.items():
            found = features[name][place]
            wanted = None if wanted is None else pytest.approx(wanted, rel=1e-4, abs=1e-4)
            assert found == wanted, (name, example)


def test_a_share_is_never_paid_on_another_entitys_bill():
    """Twin: within one entity the same two rows have a share."""
    rows = pl.DataFrame({"t": [0, 1], "price": [1.0, 3.0], "bill": [2.0, 5.0]})
    plan = FeaturePlan(paid=(("price", "bill"),))
    for who, expected in (([1, 2], [None, None]), ([1, 1], [1.5])):
        frame = rows.with_columns(who=pl.Series(who))
        labels = pl.DataFrame({"who": [1, 2, 3, 4], "y": [0, 1, 0, 1]})
        table = EventTable.of(frame, entity="who", time="t")
        task = task_from_labels("bills", table, labels, label="y", folds=2)
        found = features_of(task, plan)["price/previous bill.last"]
        assert found.to_list()[: len(expected)] == expected


def test_codes_that_measure_the_same_and_ratios_of_codes():
    frame = pl.DataFrame(
        {
            "who": [1, 1, 1, 1, 2, 2],
            "t": [0, 1, 2, 3, 0, 1],
            "code": ["cuff", "line", "cuff", "beat", "line", "beat"],
            "value": [90.0, 100.0, 80.0, 60.0, 120.0, 0.0],
        }
    )
    labels = pl.DataFrame({"who": [1, 2, 3, 4], "y": [0, 1, 0, 1]})
    table = EventTable.of(frame, entity="who", time="t")
    task = task_from_labels("pressure", table, labels, label="y", folds=2)
    plan = FeaturePlan(
        code="code",
        value="value",
        same_codes={"cuff": "pressure", "line": "pressure"},
        code_ratios=(("beat", "pressure"), ("pressure", "beat")),
    )
    features = features_of(task, plan)
    assert features["pressure.count"].to_list() == [3.0, 1.0, None, None]
    assert features["pressure.mean"].to_list() == [90.0, 120.0, None, None]
    assert features["pressure.last"].to_list() == [80.0, 120.0, None, None]
    assert features["cuff.count"].to_list() == [2.0, None, None, None]
    assert features["beat/pressure.last"].to_list() == [0.75, 0.0, None, None]
    assert features["beat/pressure.lowest"].to_list() == pytest.approx([0.6, 0.0, None, None])
    # Divided by zero is missing, not infinite.
    assert features["pressure/beat.last"].to_list() == pytest.approx([80 / 60, None, None, None])


def test_a_column_is_read_as_a_number_and_value_by_value():
    frame = pl.DataFrame({"who": [1, 1, 1, 2], "t": [0, 1, 2, 0], "late": [-1, 2, 2, 0]})
    labels = pl.DataFrame({"who": [1, 2, 3, 4], "y": [0, 1, 0, 1]})
    table = EventTable.of(frame, entity="who", time="t")
    task = task_from_labels("late", table, labels, label="y", folds=2)
    features = features_of(task, FeaturePlan(numeric=("late",), labels=("late",), top=1))
    assert features["late.mean"].to_list() == [1.0, 0.0, None, None]
    assert features["kind of late.share_00.2"].to_list() == pytest.approx([2 / 3, 0.0, None, None])


def test_unknown_names_are_told():
    task = make_task()
    with pytest.raises(DataError, match="'peices'"):
        features_of(task, FeaturePlan(products=(("price", "peices"),)))
    with pytest.raises(DataError, match="'price\\*pieces'"):
        features_of(task, FeaturePlan(numeric=("price",), visits=("price*pieces",)))
    plan = FeaturePlan(code="pieces", value="price", code_ratios=(("1", "9"),))
    with pytest.raises(DataError, match="'9'"):
        features_of(task, plan)
