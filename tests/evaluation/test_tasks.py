"""Tasks: histories hold only what lies before the cut; labels only what lies after it."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.evaluation.task_building import (
    next_item_task,
    next_value_task,
    task_at_cuts,
    task_from_labels,
)
from domainformer.evaluation.tasks import Task


def random_table(seed=0, entities=30, events=400, days=60):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "who": rng.integers(0, entities, events),
            "day": rng.integers(0, days, events),
            "amount": rng.normal(size=events),
            "kind": rng.choice(["a", "b", "c"], events),
        }
    )
    return EventTable.of(frame, entity="who", time="day")


def churn(table, **options):
    return task_at_cuts("churn", table, [20, 30], 45, **{"horizon": 10, **options})


@pytest.mark.parametrize("seed", range(5))
def test_histories_equal_a_filter_per_example(seed):
    table = random_table(seed)
    task = churn(table)
    rows = task.examples.sample(20, seed=seed, shuffle=True)
    history = task.history(rows)
    for row in rows.iter_rows(named=True):
        expected = table.frame.filter(
            (pl.col("who") == row["entity"]) & (pl.col("day") < row["cut"])
        )
        found = history.frame.filter(pl.col("example") == row["example"]).drop("example")
        assert found.equals(expected)
        short = task.history(rows, last=2).frame.filter(pl.col("example") == row["example"])
        assert short.drop("example").equals(expected.tail(2))
    assert history.frame["example"].is_sorted()
    assert history.entity_ids.to_list() == history.frame["example"].unique().sort().to_list()


def test_labels_at_cuts_equal_a_walk_over_events():
    table = random_table(1)
    task = churn(table, observed=7)
    events = table.frame.rows(named=True)
    expected = {}
    for cut in (20, 30, 45):
        for who in range(30):
            before = [e["day"] for e in events if e["who"] == who and e["day"] < cut]
            if before and max(before) >= cut - 7:
                after = [e for e in events if e["who"] == who and cut <= e["day"] < cut + 10]
                expected[who, cut] = int(not after)
    found = {(r["entity"], r["cut"]): r["label"] for r in task.examples.iter_rows(named=True)}
    assert found == expected
    folds = dict(task.examples.group_by("cut").agg(pl.col("fold").first()).rows())
    assert folds == {20: -1, 30: -1, 45: 0}


def test_a_label_may_be_an_aggregation_over_the_window():
    table = random_table(2)
    task = churn(table, label=pl.col("amount").sum(), kind="regression")
    row = task.examples.filter(pl.col("cut") == 45).row(3, named=True)
    window = (pl.col("who") == row["entity"]) & pl.col("day").is_between(45, 54)
    assert row["label"] == pytest.approx(table.frame.filter(window)["amount"].sum())
    inverse = churn(table, label="any_event").examples["label"]
    assert (inverse + churn(table).examples["label"]).to_list() == [1] * len(inverse)


def test_training_labels_may_not_reach_past_the_test_cut():
    with pytest.raises(DataError, match="looks past the test cut"):
        task_at_cuts("churn", random_table(), [20, 36], 45, horizon=10)


def test_a_window_that_is_not_over_and_events_in_the_future_are_refused():
    table = random_table()
    with pytest.raises(DataError, match="test window is not over"):
        task_at_cuts("churn", table, [20], 55, horizon=10)
    late = table.frame.with_columns(day=pl.when(pl.col("day") == 59).then(9999).otherwise("day"))
    broken = EventTable.of(late, entity="who", time="day")
    # Without known_until, a date in the future looks like a table that goes on until then.
    assert task_at_cuts("churn", broken, [20], 50, horizon=10).folds == [0]
    with pytest.raises(DataError, match=r"events lie after 60(.|\n)*future"):
        task_at_cuts("churn", broken, [20], 50, horizon=10, known_until=60)


def test_one_class_is_refused_everywhere():
    table = random_table()
    busy = random_table(entities=3)
    with pytest.raises(DataError, match=r"one class(.|\n)*training cuts"):
        task_at_cuts("c", busy, [20], 40, horizon=10)
    with pytest.raises(DataError, match="there is no label 'no_evnt'"):
        task_at_cuts("c", busy, [20], 40, horizon=10, label="no_evnt")
    labels = pl.DataFrame({"who": range(30), "y": [1] * 30})
    with pytest.raises(DataError, match="one class"):
        task_from_labels("c", table, labels, label="y")
    with pytest.raises(DataError, match="one class"):
        next_value_task(
            "c",
            EventTable.of(table.frame.with_columns(kind=pl.lit("a")), entity="who", time="day"),
            "kind",
            test_from=30,
        )


def labelled(n=40, **columns):
    return pl.DataFrame({"who": range(n), "y": [0, 1, 1, 0] * (n // 4), **columns})


def test_folds_are_stratified_and_do_not_depend_on_the_order_of_rows():
    table = random_table(entities=40)
    labels = labelled()
    task = task_from_labels("y", table, labels, label="y", folds=4, seed=3)
    again = task_from_labels("y", table, labels.reverse(), label="y", folds=4, seed=3)
    assert task.examples.equals(again.examples)
    assert task.examples.group_by("fold").agg(pl.col("label").sum())["label"].to_list() == [5] * 4
    other = task_from_labels("y", table, labels, label="y", folds=4, seed=4)
    assert not other.examples["fold"].equals(task.examples["fold"])
    for split in task.splits():
        assert not set(split.train["entity"]) & set(split.test["entity"])
        assert split.train.height + split.test.height == 40


def test_entities_without_events_stay_with_an_empty_history():
    table = random_table(entities=30)
    task = task_from_labels("y", table, labelled(), label="y", folds=2)
    assert task.record["entities_without_events"] == 10
    silent = task.examples.filter(pl.col("entity") >= 30)
    assert task.history(silent).n_events == 0
    both = task.history(task.examples)
    assert both.n_events == table.n_events
    assert both.n_entities == 30


def test_the_label_is_shown_neither_in_histories_nor_in_static_columns():
    frame = random_table(entities=8).frame.with_columns(y=pl.col("who") % 2)
    table = EventTable.of(frame, entity="who", time="day")
    task = task_from_labels("y", table, label="y", folds=2)
    assert "y" not in task.history(task.examples).frame.columns
    with pytest.raises(DataError, match="static columns contain the label"):
        task_from_labels("y", table, label="y", folds=2, static=labelled(8))


def test_static_columns_come_in_the_order_of_examples():
    static = pl.DataFrame({"who": [3, 1, 2, 0], "age": [33, 11, 22, 0]})
    frame = pl.DataFrame({"who": [0, 1, 2, 3], "y": [0, 1, 0, 1]})
    table = EventTable.of(frame, entity="who")
    task = task_from_labels("y", table, label="y", folds=2, static=static)
    shown = task.static_features(task.examples.reverse())
    assert shown.rows() == [(3, 33), (2, 22), (1, 11), (0, 0)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_labels_that_are_not_finite_are_refused(bad):
    labels = pl.DataFrame({"who": range(30), "y": [bad] + [1.0] * 29})
    for kind in ("regression", "binary"):
        with pytest.raises(DataError, match="NaN or infinite"):
            task_from_labels("y", random_table(), labels, label="y", kind=kind)


def test_rare_classes_and_third_values_are_named():
    with pytest.raises(DataError, match="fewer than the 5 folds"):
        labels = pl.DataFrame({"who": range(30), "y": [1] * 3 + [0] * 27})
        task_from_labels("y", random_table(), labels, label="y")
    with pytest.raises(DataError, match="binary label has 3 values"):
        labels = pl.DataFrame({"who": range(30), "y": [0, 1, 2] * 10})
        task_from_labels("y", random_table(), labels, label="y")
    with pytest.raises(DataError, match="no column 'kidn'"):
        next_value_task("k", random_table(), "kidn", test_from=30)


def test_next_values_show_the_events_before_in_the_order_of_the_table():
    table = random_table(4)
    task = next_value_task("kind", table, "kind", test_from=40, validation_from=30)
    assert task.examples.height == table.n_events
    split = next(task.splits())
    assert split.train["time"].max() < 30 <= split.valid["time"].min()
    assert split.valid["time"].max() < 40 <= split.test["time"].min()
    starts, ends = task.bounds(task.examples)
    # The target is the first event that is not shown.
    kinds = table.frame["kind"].gather(ends).to_list()
    assert kinds == [task.classes[label] for label in task.examples["label"]]
    assert (table.frame["who"].gather(starts) == task.examples["entity"]).all()


def test_leave_last_out_equals_a_walk_over_users():
    frame = pl.DataFrame(
        {"u": [1] * 5 + [2] * 2 + [3] * 3, "n": range(10), "item": [4, 5, 6, 4, 7, 4, 5, 9, 9, 4]}
    )
    task = next_item_task("i", EventTable.of(frame, entity="u", time="n"), "item")
    shown = [
        (row["entity"], row["position"], task.classes[row["label"]], row["part"])
        for row in task.examples.iter_rows(named=True)
    ]
    assert shown == [
        (1, 1, 5, "train"),
        (1, 2, 6, "train"),
        (1, 3, 4, "valid"),
        (1, 4, 7, "test"),
        (3, 1, 9, "valid"),
        (3, 2, 4, "test"),
    ]
    table = EventTable.of(frame, entity="u", time="n")
    with pytest.raises(DataError, match="outside of the catalogue"):
        next_item_task("i", table, "item", catalogue=[4, 5])


def test_dates_and_datetimes_cut_at_midnight():
    days = [dt.date(2024, 1, d) for d in (1, 5, 9, 2, 12, 3)]
    for cast in (pl.Date, pl.Datetime("us")):
        frame = pl.DataFrame({"id": [1, 1, 1, 2, 2, 3], "on": days}).with_columns(
            pl.col("on").cast(cast)
        )
        table = EventTable.of(frame, entity="id", time="on")
        task = task_at_cuts("t", table, ["2024-01-04"], "2024-01-09", horizon=4)
        tested = task.examples.filter(pl.col("fold") == 0)
        assert tested["label"].to_list() == [0, 0, 1]
        assert task.history(tested).lengths.tolist() == [2, 1, 1]


def test_examples_that_no_task_can_have_are_refused():
    task = churn(random_table())
    good = task.examples
    for bad, message in (
        (good.drop("cut"), "no column 'cut'"),
        (good.with_columns(example=pl.lit(1, pl.Int64)), "two examples have one key"),
        (good.with_columns(label=pl.lit(2, pl.Int64)), "no class"),
        (good.with_columns(label=pl.lit(None, pl.Int64)), "have no label"),
        (good.with_columns(fold=pl.lit(-1, pl.Int64)), "no example is tested"),
        (good.with_columns(entity=pl.col("entity").cast(pl.String)), "different types"),
    ):
        with pytest.raises(DataError, match=message):
            Task("bad", task.table, bad, "binary")
    with pytest.raises(DataError, match="named twice"):
        task.history(pl.concat([good.head(1), good.head(1)]))
