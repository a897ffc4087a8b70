"""The contestants themselves, tiny: every kind of task, what they may see, and what they share."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.contest import ContestConfig, run
from domainformer.evaluation.contest.boosting import find_plan, infer_plan
from domainformer.evaluation.contest.neural import newest_events, since_last_event
from domainformer.evaluation.contest.pretraining import Pretraining, pretrained
from domainformer.evaluation.contest.schemas import schema_of, training_events
from domainformer.evaluation.contest.table import build_contestant
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.tabular_baseline import public_plan
from domainformer.evaluation.task_building import task_at_cuts, task_from_labels
from domainformer.inference.fusion import read_histories
from domainformer.tokenizers import DomainTokenizer

SCHEMA = {"fields": [{"name": "kind", "field_type": "categorical_fixed"}]}
TINY = {"overrides": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}}
PRETRAINING = {"model": TINY, "training": {"max_steps": 2, "context": 16}}
SMALL = {"budget": 1, "inner_folds": 2, "bag": 1, "rounds": 5, "finalists": 1}
FINE = {"epochs": 1, "context": 16, "backbone": TINY}
SETTINGS = {
    "lightgbm": {"boosting": SMALL},
    "sequence": {"schema": SCHEMA, "ensemble": 2, "finetuning": FINE},
    "joint": {"schema": SCHEMA, "pretraining": PRETRAINING, "finetuning": FINE},
    "late": {"schema": SCHEMA, "pretraining": PRETRAINING, "boosting": SMALL},
}


def events(entities=40):
    rng = np.random.default_rng(0)
    n = entities * 6
    return pl.DataFrame(
        {
            "who": np.repeat(np.arange(entities), 6),
            "day": np.tile(np.arange(6), entities) * 3,
            "kind": rng.choice(["a", "b", "c"], n),
            "amount": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        }
    )


def labelled(kind):
    """Forty entities with events and two without, one static column with an infinite value."""
    rng = np.random.default_rng(1)
    who = np.arange(42)
    answer = {"binary": who % 2, "multiclass": who % 3, "regression": rng.normal(5, 2, 42)}[kind]
    static = pl.DataFrame(
        {"who": who, "region": rng.choice(["n", "s"], 42), "rate": [float("inf"), *who[1:]]}
    )
    return task_from_labels(
        kind,
        EventTable.of(events(), entity="who", time="day"),
        pl.DataFrame({"who": who, "answer": answer}),
        label="answer",
        kind=kind,
        static=static,
        folds=2,
    )


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("binary", ("joint", "late")),
        ("multiclass", ("sequence", "lightgbm")),
        ("regression", ("sequence",)),
    ],
)
def test_predictions_have_the_form_of_the_task_also_without_events(kind, names):
    task = labelled(kind)
    split = next(task.splits())
    train, valid = inner_split(task, split)
    test = task.examples.filter(pl.col("entity").is_in([0, 1, 40, 41])).drop("label")
    for name in names:
        model = build_contestant(name, SETTINGS[name])
        said = model.fit(task, train, valid, 0).predict(task, test)
        assert said.shape == ((4, 3) if kind == "multiclass" else (4,)), name
        assert np.isfinite(said).all(), name
        if kind == "multiclass":
            assert said.sum(axis=1) == pytest.approx(1)


def quiet_and_busy(entities=160):
    """All histories look alike; half of the entities had their last event long before the cut."""
    rng = np.random.default_rng(3)
    ends = np.where(np.arange(entities) % 2, rng.integers(20, 60, entities), 98)
    who = np.repeat(np.arange(entities), 4)
    day = (ends[:, None] - np.array([9, 6, 3, 0])).ravel()
    later = np.arange(0, entities, 2)  # the busy half has events after the cut, too
    frame = pl.DataFrame(
        {"who": np.concatenate([who, later]), "day": np.concatenate([day, later * 0 + 101])}
    ).with_columns(kind=pl.lit("a"))
    table = EventTable.of(frame, entity="who", time="day")
    labels = pl.DataFrame({"who": range(entities), "gone": np.arange(entities) % 2})
    task = task_from_labels("gone", table, labels, label="gone", folds=2)
    return replace(task, examples=task.examples.with_columns(cut=pl.lit(100, pl.Int64)))


def test_a_sequence_model_knows_how_long_ago_the_last_event_was():
    task = quiet_and_busy()
    gaps = since_last_event(task, task.examples)
    ends = task.history(task.examples).frame.group_by("example").agg(pl.col("day").max())
    slow = task.examples.join(ends, on="example", how="left", maintain_order="left")
    assert gaps.to_list() == pytest.approx(np.log1p(100 - slow["day"]).to_list())
    train, valid = inner_split(task, next(task.splits()))
    fine = {"epochs": 20, "patience": 20, "context": 16, "backbone": TINY}
    model = build_contestant("sequence", {"schema": SCHEMA, "finetuning": fine})
    assert auroc(task, model.fit(task, train, valid, 0)) > 0.9
    # Without a cut nobody knows when the question is asked: the histories are all the same.
    timeless = replace(task, examples=task.examples.with_columns(cut=pl.lit(None, pl.Int64)))
    train, valid = (timeless.examples.filter(pl.col("fold") == fold) for fold in (0, 1))
    before = replace(timeless, table=timeless.table.filter(timeless.table.time_values < 100))
    assert auroc(before, model.fit(before, train, valid, 0)) < 0.6


def auroc(task, fitted):
    test = task.examples.filter(pl.col("fold") == 0)
    return metrics.auroc(task.labels(test), fitted.predict(task, test.drop("label")))


def test_training_events_are_those_of_training_examples_once_and_before_their_cuts():
    table = EventTable.of(events(), entity="who", time="day")
    label = (pl.col("amount").fill_nan(0).sum() > 0).cast(pl.Int64)
    task = task_at_cuts("spend", table, [7, 10], 13, horizon=3, label=label, known_until=20)
    train = task.examples.filter((pl.col("fold") == -1) & (pl.col("entity") < 10))
    seen = training_events(task, train).frame
    assert seen["day"].max() < 10
    assert seen["example"].n_unique() == 10
    assert seen.height == 10 * 4  # days 0, 3, 6 and 9 of each, though each has two cuts
    assert "who" not in seen.columns


def test_the_same_backbone_serves_several_contestants_of_a_fold():
    task = labelled("binary")
    settings = Pretraining.model_validate(PRETRAINING)
    train = task.examples.filter(pl.col("fold") == 0)
    first = pretrained(task, train, SCHEMA, settings, 0)
    assert pretrained(task, train, SCHEMA, settings, 0) is first
    assert pretrained(task, train, SCHEMA, settings, 1) is not first


def test_cut_histories_fill_a_window_as_whole_ones_do():
    rng = np.random.default_rng(2)
    frame = pl.DataFrame(
        {
            "who": np.repeat(np.arange(8), 30),
            "day": np.cumsum(rng.integers(0, 4, 240)),
            "kind": rng.choice(["a", "b", "c"], 240),
        }
    )
    task = task_from_labels(
        "long",
        EventTable.of(frame, entity="who", time="day"),
        pl.DataFrame({"who": np.arange(8), "answer": np.arange(8) % 2}),
        label="answer",
        folds=2,
    )
    day = {"name": "day", "field_type": "temporal", "calendar_fields": [], "elapsed_bins": 4}
    for fields in (SCHEMA["fields"], [*SCHEMA["fields"], day], [day]):
        schema = schema_of(task, task.examples, {"fields": fields})
        whole, cut = task.history(task.examples), newest_events(task, task.examples, schema, 8)
        assert cut.n_events == 8 * 8
        tokenizer = DomainTokenizer(schema).fit(whole)
        rows = [read_histories(tokenizer, task.examples, one, "example", 8) for one in (whole, cut)]
        for example in range(8):
            assert rows[0][example].tolist() == rows[1][example].tolist()


def test_plans_and_schemas_are_inferred_named_or_given():
    task = labelled("binary")
    plan = infer_plan(task, task.examples)
    assert (plan.numeric, plan.labels, plan.lags) == (("amount",), ("kind",), 3)
    assert find_plan(None, task, task.examples) == plan
    assert find_plan("physionet_death", task, task.examples).code == "parameter"
    assert find_plan(plan, task, task.examples) is plan
    with pytest.raises(ConfigError, match="no schema 'finanse'"):
        schema_of(task, task.examples, "finanse")
    with pytest.raises(ConfigError, match="a column that the task lacks: 'answer'"):
        schema_of(task, task.examples, {"fields": [{"name": "answer", "field_type": "text"}]})
    with pytest.raises(DataError, match="no training example has any event"):
        training_events(task, task.examples.filter(pl.col("entity") >= 40))


def test_an_inferred_plan_has_the_horizon_of_a_question_about_silence():
    asked = {"label": "no_event", "horizon": "30"}
    task = labelled("binary")
    for record, horizon in (
        (asked, 30.0),
        ({**asked, "label": "any_event"}, 30.0),
        ({**asked, "label": "col(amount).sum()"}, None),
        ({**asked, "horizon": "30 days, 0:00:00"}, None),
        ({}, None),
    ):
        assert infer_plan(replace(task, record=record), task.examples).horizon == horizon


def test_a_public_plan_serves_all_forms_of_its_task_and_no_other_table():
    named = replace(labelled("binary"), name="credit_default")
    assert find_plan(None, named, named.examples) == infer_plan(named, named.examples)
    columns = ("quantity", "unit_price", "country", "cancelled", "stock_code")
    bought = events().with_columns(pl.lit(1.0).alias(name) for name in columns)
    table = EventTable.of(bought, entity="who", time="day")
    for name in ("online_retail_churn", "online_retail_churn_8_cuts"):
        task = replace(labelled("binary"), name=name, table=table)
        assert find_plan(None, task, task.examples) == public_plan("online_retail_churn")


def test_an_answer_among_the_fields_of_the_events_is_the_business_of_the_leak_check():
    frame = events().with_columns(closed=pl.col("who") % 2)
    task = task_from_labels(
        "closed",
        EventTable.of(frame, entity="who", time="day"),
        pl.DataFrame({"who": np.arange(40), "answer": np.arange(40) % 2}),
        label="answer",
        folds=2,
    )
    config = ContestConfig(task={"simulated": {}}, models={"lightgbm": SETTINGS["lightgbm"]})
    with pytest.raises(DataError, match="leaks were found"):
        run.look_for_leaks(task, run.build_models(config))
    honest = labelled("binary")
    run.look_for_leaks(honest, run.build_models(config))
    told = honest.static.with_columns(pl.col("entity").mod(2).alias("told"))
    with pytest.raises(DataError, match="told"):
        run.look_for_leaks(replace(honest, static=told), run.build_models(config))
