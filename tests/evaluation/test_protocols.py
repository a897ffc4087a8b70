"""Running models: inner splits, nested choice, comparison, and leaks that must be caught."""

import io
import json
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.comparison import FoldPrediction, evaluate_predictions
from domainformer.evaluation.leaks import _error, check_features, check_leaks
from domainformer.evaluation.metrics import auroc
from domainformer.evaluation.protocols import (
    Calibrated,
    NestedChoice,
    check_split,
    inner_split,
    run,
    run_model,
)
from domainformer.evaluation.task_building import next_value_task, task_at_cuts, task_from_labels


def toy(n=120, seed=0):
    """Entities whose amounts tell the label, with noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    frame = pl.DataFrame(
        {
            "who": np.repeat(np.arange(n), 4),
            "day": np.tile(np.arange(4), n),
            "amount": np.repeat(y, 4) + rng.normal(scale=2, size=4 * n),
            "y": np.repeat(y, 4),
        }
    )
    return task_from_labels("toy", EventTable.of(frame, entity="who", time="day"), label="y")


def by_cuts(seed=0):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "who": rng.integers(0, 60, 600),
            "day": rng.integers(0, 60, 600),
            "amount": rng.normal(size=600),
            "kind": rng.choice(["a", "b", "c"], 600),
        }
    )
    table = EventTable.of(frame, entity="who", time="day")
    return task_at_cuts("cuts", table, [20, 30], 45, horizon=10)


def amounts(task, examples):
    """Honest features: the mean amount and the number of events before the cut."""
    history = task.history(examples).frame
    found = history.group_by("example").agg(mean=pl.col("amount").mean(), count=pl.len())
    return examples.select("example").join(found, on="example", how="left")


@dataclass
class ByAmount:
    """Logistic of the mean amount, times a factor."""

    factor: float = 1.0
    log: list | None = None

    def fit(self, task, train, valid, seed):
        assert not set(train["example"]) & set(valid["example"])
        if self.log is not None:
            self.log.append((set(train["entity"]), set(valid["entity"]), seed))
        return self

    def predict(self, task, examples):
        assert "label" not in examples.columns
        mean = amounts(task, examples)["mean"].fill_null(0.5).to_numpy()
        return 1 / (1 + np.exp(-self.factor * (mean - 0.5)))


class Flat:
    def fit(self, task, train, valid, seed):
        self.rate = float(train["label"].mean())
        return self

    def predict(self, task, examples):
        return np.full(examples.height, self.rate)


def test_run_compares_with_the_best_baseline_and_writes(tmp_path):
    task = toy()
    models = {"ours": ByAmount(), "worse": ByAmount(-1.0), "flat": Flat()}
    result = run(models, task, seeds=(0, 1), baselines=["flat", "worse"], samples=200)
    assert result.best_baseline == "flat"
    assert result.differences["ours"]["auroc"].better
    assert not result.differences["worse"]["auroc"].better
    assert len(result.cells["ours"]) == 10
    saved = json.loads(result.write(tmp_path / "result.json").read_text())
    assert saved["figures"]["ours"]["auroc"]["mean"] == result.figures["ours"]["auroc"].mean
    console = Console(width=80, file=io.StringIO())
    console.print(result.render())
    shown = console.file.getvalue()
    assert "ours −" in shown
    assert f"{result.figures['ours']['auroc'].mean:.4f}" in shown
    assert "…" not in shown


def test_figures_equal_metrics_of_each_fold():
    task = toy()
    result = run({"ours": ByAmount()}, task)
    aucs = []
    for split in task.splits():
        p = ByAmount().predict(task, split.test.drop("label"))
        aucs.append(metrics.auroc(split.test["label"].to_numpy(), p))
    figure = result.figures["ours"]["auroc"]
    assert figure.mean == pytest.approx(np.mean(aucs))
    assert figure.error == pytest.approx(np.std(aucs, ddof=1) / np.sqrt(5))


def test_the_bootstrap_equals_repeating_rows():
    task = toy(40)
    rng = np.random.default_rng(0)
    first, second = rng.random(40), rng.random(40)
    both = {"a": first, "b": second}
    chosen = task.examples["fold"].to_numpy() == 2
    given = {name: [FoldPrediction(2, values[chosen])] for name, values in both.items()}
    found = evaluate_predictions(task, given, baselines=["b"], folds=[2], samples=50, seed=7)
    y, a, b = task.labels(task.examples)[chosen], first[chosen], second[chosen]
    stream, draws = np.random.default_rng((7, 2)), []
    while len(draws) < 50:
        rows = stream.integers(len(y), size=len(y))
        if y[rows].min() != y[rows].max():
            draws.append(metrics.auroc(y[rows], a[rows]) - metrics.auroc(y[rows], b[rows]))
    difference = found.differences["a"]["auroc"]
    assert [difference.low, difference.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]))


def test_equal_models_do_not_differ():
    result = run({"a": ByAmount(), "b": ByAmount()}, toy(), baselines=["b"], samples=50)
    difference = result.differences["a"]["auroc"]
    assert (difference.value, difference.p_value, difference.better) == (0, 1, False)


def test_p_values_of_noise_are_not_small_too_often():
    task = toy(60)
    small = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = {"a": rng.random(60), "b": rng.random(60)}
        result = evaluate_predictions(task, noise, baselines=["b"], samples=60)
        small += result.differences["a"]["log_loss"].p_value < 0.05
    assert small <= 4


def test_inner_splits_keep_entities_together_and_stay_in_the_training_part():
    for task in (toy(), by_cuts()):
        for split in task.splits():
            train, valid = inner_split(task, split, seed=1)
            assert not set(train["entity"]) & set(valid["entity"])
            assert not set(valid["example"]) & set(split.test["example"])
            assert train.height + valid.height == split.train.height
            assert 0.1 < valid.height / split.train.height < 0.3


def test_inner_splits_of_next_values_are_by_time():
    task = next_value_task("kind", by_cuts().table, "kind", test_from=40)
    train, valid = inner_split(task, next(task.splits()))
    assert train["time"].max() < valid["time"].min() <= valid["time"].max() < 40


def test_the_nested_choice_takes_the_candidate_that_validation_prefers():
    log = []
    choice = NestedChoice({"bad": ByAmount(-1.0), "good": ByAmount(1.0, log)})
    task = toy()
    split = next(task.splits())
    train, valid = inner_split(task, split)
    chosen = choice.fit(task, train, valid, 0)
    assert chosen.name == "good"
    assert chosen.scores["good"] > chosen.scores["bad"]
    run_model(choice, task, seeds=(0, 1))
    assert len(log) == 1 + 10
    for known, valid_entities, _ in log:
        assert len(known | valid_entities) == 96


def test_calibration_on_validation_keeps_the_ranking():
    task = toy(400)
    models = {"sure": ByAmount(8.0), "calibrated": Calibrated(ByAmount(8.0))}
    figures = run(models, task).figures
    assert figures["calibrated"]["auroc"].mean == pytest.approx(figures["sure"]["auroc"].mean)
    assert figures["calibrated"]["brier"].mean < figures["sure"]["brier"].mean
    with pytest.raises(DataError, match="for binary tasks"):
        kinds = next_value_task("kind", by_cuts().table, "kind", test_from=40)
        run_model(Calibrated(Flat()), kinds)


def test_predictions_of_other_folds_or_baselines_are_refused():
    task = toy()
    with pytest.raises(DataError, match="not run once on every fold"):
        evaluate_predictions(task, {"a": [FoldPrediction(0, np.zeros(24))]})
    with pytest.raises(DataError, match="no baseline 'flt'"):
        evaluate_predictions(task, {"flat": np.zeros(120)}, baselines=["flt"])
    with pytest.raises(DataError, match="NaN or infinite"):
        evaluate_predictions(task, {"a": np.full(120, np.nan)})
    with pytest.raises(DataError, match="no such folds"):
        run({"a": Flat()}, task, folds=[9])


# Leaks: honest features pass, every planted one is caught.


def kinds_of(task, features):
    return {(leak.kind, leak.column) for leak in check_leaks(task, features, raise_error=False)}


def test_honest_features_pass():
    assert check_leaks(by_cuts(), amounts) == []
    assert check_leaks(toy(), amounts) == []


@pytest.mark.parametrize(
    "answer",
    [
        pl.col("label"),
        1.0 - pl.col("label"),
        pl.when(pl.col("label") == 1).then(pl.lit("left")).otherwise(pl.lit("stayed")),
        pl.when(pl.col("label") == 1).then(None).otherwise(1.5),
        # Not monotone: the middle of a number's range means 1.
        pl.when(pl.col("label") == 1).then(0.0).otherwise(1.0 - 2.0 * (pl.col("example") % 2)),
        pl.col("label") + pl.col("example") * 1e-6,
    ],
)
def test_a_planted_answer_is_caught(answer):
    task = by_cuts()
    planted = task.examples.select("example", noise=pl.col("example") % 7, planted=answer)
    assert kinds_of(task, planted) == {("answer", "planted")}
    with pytest.raises(DataError, match=r"leaks were found(.|\n)*planted"):
        check_leaks(task, planted)


def test_a_strong_honest_feature_of_few_examples_is_no_answer():
    """An AUROC of .992 that chance explains; ten times as sharp it is evidence."""
    task = toy()
    labels = task.examples["label"].to_numpy()
    noise = np.random.default_rng(0).normal(size=len(labels))
    strong, sharp = (pl.Series(labels + spread * noise) for spread in (0.3, 0.03))
    assert auroc(labels, strong.to_numpy()) > 0.99
    assert kinds_of(task, task.examples.select("example", sharp=sharp)) == {("answer", "sharp")}
    planted = task.examples.select("example", strong=strong)
    assert kinds_of(task, planted) == set()


@pytest.mark.parametrize("n", [40, 400])
def test_the_error_of_an_auroc_is_that_of_many_samples(n):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 4 == 0
    drawn = [auroc(y, rng.normal(size=n) + 2.5 * y) for _ in range(400)]
    told = np.mean([_error(one, y, "binary") for one in drawn])
    # Hanley and McNeil are careful: their curve is steeper than that of two normals.
    assert 1.0 <= told / np.std(drawn) < 1.6
    assert _error(1.0, y, "binary") == _error(0.995, y, "multiclass") == 0.0


def test_an_answer_in_static_columns_is_caught():
    task = toy()
    static = task.examples.select("entity", ward=pl.col("label") * 2)
    assert kinds_of(replace(task, static=static), amounts) == {("answer", "ward")}


def test_a_regression_and_classes_are_searched_too():
    table = by_cuts().table
    spend = task_at_cuts(
        "s", table, [20], 45, horizon=10, label=pl.col("amount").sum(), kind="regression"
    )
    planted = spend.examples.select("example", twin=pl.col("label") * -2)
    assert kinds_of(spend, planted) == {("answer", "twin")}
    kinds = next_value_task("kind", table, "kind", test_from=40)
    planted = kinds.examples.select("example", twin=10 - pl.col("label"), odd=pl.col("example") % 2)
    assert kinds_of(kinds, planted) == {("answer", "twin")}


def test_features_that_read_the_future_are_caught():
    def peeking(task, examples):
        own = task.table.frame.group_by("who").agg(total=pl.col("amount").sum())
        honest = amounts(task, examples)
        joined = examples.select("example", "entity").join(
            own, left_on="entity", right_on="who", how="left"
        )
        return honest.join(joined.drop("entity"), on="example")

    def sizes(task, examples):
        return amounts(task, examples).with_columns(
            largest=pl.lit(int(task.table.lengths.max())), noise=pl.lit(1.0)
        )

    assert kinds_of(by_cuts(), peeking) == {("future", "total")}
    assert kinds_of(by_cuts(), sizes) == {("future", "largest")}
    kinds = next_value_task("kind", by_cuts().table, "kind", test_from=40)
    assert kinds_of(kinds, peeking) == {("future", "total")}
    assert kinds_of(kinds, amounts) == set()


def test_timestamps_at_or_after_the_cut_are_caught():
    days = pl.DataFrame({"who": [1, 1, 2, 2, 3, 3], "day": [1, 19, 2, 3, 4, 21]})
    frame = days.with_columns(day=pl.date(2024, 1, pl.col("day")))
    table = EventTable.of(frame, entity="who", time="day")
    labels = pl.DataFrame({"who": [1, 2, 3, 9], "y": [0, 1, 0, 1]})
    task = task_from_labels("t", table, labels, label="y", folds=2, cut="2024-01-05")
    seen = task.examples.select("example", seen=pl.date(2024, 1, 4), closed=pl.date(2024, 1, 5))
    assert kinds_of(task, seen) == {("timestamp", "closed")}


def test_entities_and_times_on_both_sides_are_caught():
    task = toy()
    twice = pl.concat(
        [
            task.examples,
            task.examples.head(5).with_columns(
                pl.col("example") + 1000, fold=(pl.col("fold") + 1) % 5
            ),
        ]
    )
    broken = replace(task, examples=twice)
    assert kinds_of(broken, amounts) == {("split", "")}
    with pytest.raises(DataError, match="both trained on and tested"):
        run({"flat": Flat()}, broken)
    late = by_cuts()
    late = replace(
        late,
        examples=late.examples.with_columns(
            fold=pl.when(pl.col("cut") == 30).then(0).otherwise(-1).cast(pl.Int64)
        ),
    )
    with pytest.raises(DataError, match="as late as a tested one"):
        check_split(late, next(late.splits()))


def test_missing_values_pass_and_infinite_ones_do_not():
    frame = pl.DataFrame({"example": [0, 1, 2], "x": [1.0, float("nan"), None]})
    check_features(frame)
    with pytest.raises(DataError, match=r"infinite values(.|\n)*'x'"):
        check_features(frame.with_columns(x=pl.lit(float("-inf"))))
    with pytest.raises(DataError, match="key column"):
        check_features(frame.drop("example"))
    with pytest.raises(DataError, match="two rows"):
        check_features(pl.concat([frame, frame]))
