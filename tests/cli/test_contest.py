"""evaluate --task: a table of one's own, the page, resuming, and input that cannot be used."""

import json

import numpy as np
import polars as pl
import pytest

from domainformer.config import load_config
from domainformer.evaluation.contest import ContestConfig
from domainformer.evaluation.contest.run import build_models
from domainformer.training import list_recipes

SMALL = {"budget": 1, "inner_folds": 2, "bag": 1, "rounds": 5, "finalists": 1}
SCHEMA = {"fields": [{"name": "kind", "field_type": "categorical_fixed"}]}
TINY = {"overrides": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}}
MODELS = {
    "lightgbm": {"boosting": SMALL},
    "sequence": {"schema": SCHEMA, "finetuning": {"epochs": 1, "context": 16, "backbone": TINY}},
    "blend": {"of": ["lightgbm", "sequence"]},
}


def frames(entities=60):
    rng = np.random.default_rng(0)
    n = entities * 8
    events = pl.DataFrame(
        {
            "client": np.repeat(np.arange(entities), 8),
            "day": rng.integers(0, 100, n),
            "kind": rng.choice(["a", "b"], n),
            "amount": rng.normal(size=n),
        }
    )
    who = np.arange(entities + 1)  # the last has no events
    labels = pl.DataFrame(
        {"client": who, "gone": who % 2, "age": rng.integers(18, 90, entities + 1)}
    )
    return events, labels


@pytest.fixture
def write(tmp_path):
    """Write events, labels and a task file; changes are made to the values before."""

    def make(*, events=None, labels=None, models=None, **task):
        usual, known = frames()
        events, labels = (
            (usual if events is None else events),
            (known if labels is None else labels),
        )
        events.write_parquet(tmp_path / "events.parquet")
        labels.write_csv(tmp_path / "clients.csv")
        values = {"table": str(tmp_path / "events.parquet"), "entity": "client", "time": "day"}
        label = {"column": "gone", "table": str(tmp_path / "clients.csv"), "folds": 2}
        task = task or {"label": label}
        if "label" in task:
            task["label"] = {**label, **task["label"]}
        everything = {"task": {**values, **task}, "samples": 20, "output": str(tmp_path / "out")}
        everything["models"] = models or {"lightgbm": MODELS["lightgbm"]}
        file = tmp_path / "task.yaml"
        file.write_text(json.dumps(everything))  # which is YAML, too
        return file

    return make


def test_labels_of_a_table_of_ones_own(invoke, refused, write, tmp_path):
    file = write(models=MODELS)
    outcome = invoke("evaluate", "--task", file, "folds=[0]", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["best_baseline"] == "lightgbm"
    assert outcome.json["identity"]["task"]["record"]["entities_without_events"] == 1
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("Results", "Calibration", "Lift by decile", "Who took part", "Identity"):
        assert part in page
    assert "<script" not in page
    for name in MODELS:
        assert f">{name}" in page
    cell = tmp_path / "out" / "predictions" / "sequence" / "fold-0-seed-0" / "test.parquet"
    again = invoke("evaluate", "--task", file, "folds=[0]")
    assert "was there already" in again.err
    assert "sequence" in again.out
    pl.read_parquet(cell).with_columns(pl.col("prediction") / 2).write_parquet(cell)
    assert "damaged" in refused("evaluate", "--task", file, "folds=[0]")


def test_options_are_heard_or_refused(invoke, refused, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(models={"popular": {}})
    for out in ("2024", "a, b: c"):
        assert invoke("evaluate", "--task", file, "--out", out, "folds=[0]").code == 0
        assert (tmp_path / out / "report.html").is_file()
    said = refused("evaluate", "--task", file, "--samples", "50")
    assert "--samples belongs to a run" in said
    assert "samples=200" in said


def test_cuts_of_a_table_of_ones_own(invoke, refused, write, tmp_path):
    cuts = {"train": [40, 55], "test": 75, "horizon": 15}
    outcome = invoke("evaluate", "--task", write(cuts=cuts), "--out", tmp_path / "cuts", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["identity"]["task"]["split"] == "time"
    future = {**cuts, "known_until": 90}
    assert "timestamps in the future" in refused("evaluate", "--task", write(cuts=future))
    long = {**cuts, "horizon": 30}
    assert "looks past the test cut" in refused("evaluate", "--task", write(cuts=long))


def test_input_that_cannot_be_used(refused, write, tmp_path):
    _, labels = frames()
    one = labels.with_columns(gone=pl.lit(1))
    assert "the label has one class" in refused("evaluate", "--task", write(labels=one))
    told = labels.with_columns(closed=pl.col("gone") * 3)
    message = refused("evaluate", "--task", write(labels=told))
    assert "leaks were found" in message
    assert "closed" in message
    twice = pl.concat([labels, labels.head(1)])
    assert "an entity has two rows" in refused("evaluate", "--task", write(labels=twice))
    assert "no column 'gonne'" in refused("evaluate", "--task", write(label={"column": "gonne"}))
    assert not (tmp_path / "out").exists()
    unknown = write(models={"lightgmb": {}})
    assert "did you mean 'lightgbm'" in refused("evaluate", "--task", unknown)
    assert "samples" in refused("evaluate", "--task", write(), "sampels=3")


def test_missing_and_infinite_numbers_count_as_missing(invoke, write):
    events, labels = frames()
    labels = labels.with_columns(
        age=pl.when(pl.col("client") < 9).then(float("inf")).otherwise("age")
    )
    odd = events.with_columns(
        amount=pl.when(pl.int_range(pl.len()) % 5 == 0)
        .then(float("nan"))
        .when(pl.int_range(pl.len()) % 7 == 0)
        .then(float("inf"))
        .otherwise("amount")
    )
    outcome = invoke("evaluate", "--task", write(events=odd, labels=labels), "folds=[0]")
    assert outcome.code == 0, outcome.err


def test_the_recipe_in_small(invoke, tmp_path):
    recipe = next(one for one in list_recipes() if one.name == "order-simulated")
    models = build_models(load_config(ContestConfig, recipe.path))
    assert models["sequence"][1].pretraining == models["late"][1].pretraining  # made once
    small = (
        *("task={simulated: {entities: 60, events_per_entity: 16, folds: 2}}", "samples=20"),
        f"models.lightgbm.boosting={json.dumps(SMALL)}",
        f"models.late.boosting={json.dumps(SMALL)}",
        "models.sequence.finetuning.epochs=1",
        *(
            f"models.{name}.pretraining.{setting}"
            for name in ("sequence", "late")
            for setting in ("training={max_steps: 2, context: 64}", f"model={json.dumps(TINY)}")
        ),
    )
    outcome = invoke("evaluate", "--task", recipe.path, "--out", tmp_path / "out", "--json", *small)
    assert outcome.code == 0, outcome.err
    assert list(outcome.json["figures"]) == ["lightgbm", "sequence", "late"]


def test_a_run_or_a_task(refused):
    assert "one run folder, or a task file" in refused("evaluate")
