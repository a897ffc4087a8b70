"""The main job: what it makes, what it chooses, what it refuses before it costs anything."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import polars as pl
import pytest

from domainformer.data import write_simulated
from domainformer.errors import ConfigError, DataError, MissingExtraError, SchemaError
from domainformer.evaluation.baselines import POPULAR
from domainformer.inference import load_bundle
from domainformer.quickstart import DEMO_ENTITIES, quickstart, read_events
from domainformer.run import read_run
from domainformer.start import write_start

SMALL = (
    "model.overrides={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",
    "tokenizer.bpe_vocab_size=256",
    "training.context=128",
    "training.batch_tokens=2048",
    "training.max_steps=2",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "events.parquet"
    return write_simulated("finance", path, entities=70, events_per_entity=16, seed=1)


@pytest.fixture(scope="module")
def result(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    lines = []
    made = quickstart(table, label="label", output=folder, overrides=SMALL, say=lines.append)
    return made, lines


def test_everything_lies_in_one_folder(result):
    made, _ = result
    names = {path.name for path in made.run_dir.iterdir()}
    assert {
        "run.json",
        "config.yaml",
        "schema.yaml",
        "schema_evidence.json",
        "tokenizer",
        "store",
        "checkpoints",
        "metrics.jsonl",
        "model",
        "embeddings.parquet",
        "evaluation.json",
        "report.html",
    } <= names
    assert made.report == made.run_dir / "report.html"
    assert read_run(made.run_dir).status == "finished"


def test_its_parts_belong_together(result, table):
    made, _ = result
    bundle = load_bundle(made.model_dir)
    assert read_run(made.run_dir).tokenizer_fingerprint == bundle.tokenizer.fingerprint
    assert "label" not in bundle.schema.columns
    embeddings = pl.read_parquet(made.run_dir / "embeddings.parquet")
    assert embeddings.height == pl.read_parquet(table)["client_id"].n_unique()
    assert made.evaluation.probe.label == "label"
    written = json.loads((made.run_dir / "evaluation.json").read_text())
    assert written["next_event"]["events"] == made.evaluation.next_event.events


def test_it_tells_each_step_and_how_long_it_took(result):
    made, lines = result
    steps = [line for line in lines if line[0].isdigit()]
    assert [line.split(".")[0] for line in steps] == [str(n + 1) for n in range(len(steps))]
    assert len(made.seconds) == len(steps) == 7
    assert any("client_id" not in line and "70 entities" in line for line in lines)


def test_the_tokenizer_has_seen_training_events_only(result, table):
    made, _ = result
    cut = read_run(made.run_dir).split["validation_from"]
    events = pl.read_parquet(table)
    late = events.filter(pl.col("timestamp") >= pl.lit(cut).str.to_datetime())["category"]
    early = events.filter(pl.col("timestamp") < pl.lit(cut).str.to_datetime())["category"]
    unseen = set(late.drop_nulls()) - set(early.drop_nulls())
    assert unseen
    vocab = set(load_bundle(made.model_dir).tokenizer.vocab)
    assert not {f"[CATEGORY={name}]" for name in unseen} & vocab


def test_an_old_run_survives_until_the_new_one_can_begin(result, table, tmp_path):
    made, _ = result
    for arguments in ({"label": "lable"}, {"entity": "client"}, {"overrides": ("model.x=1",)}):
        with pytest.raises((ConfigError, DataError, SchemaError)):
            quickstart(table, output=made.run_dir, overwrite=True, say=len, **arguments)
        assert made.report.is_file()
    with pytest.raises(ConfigError, match="exists already"):
        quickstart(table, output=made.run_dir, say=len)


def test_a_label_that_varies_is_refused_before_training(table, tmp_path):
    events = pl.read_parquet(table).with_columns(pl.int_range(pl.len()).alias("label") % 2)
    path = tmp_path / "varies.parquet"
    events.write_parquet(path)
    with pytest.raises(DataError, match="varies within"):
        quickstart(path, label="label", output=tmp_path / "run", say=len)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["altair", "vl_convert", "lightgbm"])
def test_a_missing_extra_is_told_before_training(table, tmp_path, monkeypatch, package):
    find = importlib.util.find_spec
    absent = lambda name, *rest: None if name == package else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(MissingExtraError, match="pip install"):
        quickstart(table, label="label", output=tmp_path / "run", say=len)


def _frame(**columns):
    rng = np.random.default_rng(0)
    n = 200
    base = {"customer_id": rng.integers(0, 20, n), "kind": rng.choice(["a", "b", "c"], n)}
    return pl.DataFrame(base | {name: make(rng, n) for name, make in columns.items()})


def _few_statements(rng, n):
    return pl.Series(rng.integers(0, 6, n) * 30).cast(pl.Date)


def _many_days(rng, n):
    return pl.Series(rng.integers(0, 300, n)).cast(pl.Date)


@pytest.mark.parametrize(
    ("make", "kind"), [(_few_statements, "entity"), (_many_days, "time")], ids=["few", "many"]
)
def test_later_time_is_held_out_where_there_is_enough_of_it(tmp_path, make, kind):
    path = tmp_path / "events.parquet"
    _frame(date=make).write_parquet(path)
    config, _ = write_start(path, tmp_path)
    assert f"kind: {kind}" in config.read_text()


def test_start_files_are_never_replaced(table, tmp_path):
    (tmp_path / "schema.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_start(table, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["schema.yaml"]


def test_columns_are_taken_from_the_model_before_they_are_guessed(result, table, tmp_path):
    made, _ = result
    events = pl.read_parquet(table).with_columns(pl.col("channel").alias("account_id"))
    two = tmp_path / "two.parquet"
    events.write_parquet(two)
    with pytest.raises(SchemaError, match="which column is the entity"):
        read_events(two)
    known = read_events(two, model=made.model_dir)
    assert (known.entity, known.time) == ("client_id", "timestamp")
    named = read_events(two, entity="account_id", model=made.model_dir)
    assert (named.entity, named.time) == ("account_id", "timestamp")


def test_columns_are_guessed_where_names_make_it_plain(table):
    guessed = read_events(table)
    assert (guessed.entity, guessed.time) == ("client_id", "timestamp")
    assert read_events(table, model="nowhere").fingerprint() == guessed.fingerprint()


def _of_itself(page):
    """Whether a page loads nothing from elsewhere (names of XML dialects are no addresses)."""
    return "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_job_as_make_demo_runs_it(tmp_path):
    made = quickstart(output=tmp_path / "demo", say=len)
    table = read_events(made.source)
    assert table.n_entities == DEMO_ENTITIES
    assert made.evaluation.probe is not None
    headline = made.evaluation.next_event.view("history_only")
    ahead = [slot.name for slot in headline if slot.log_loss["model"] < slot.log_loss[POPULAR]]
    assert len(ahead) >= len(headline) / 2, ahead
    assert _of_itself(made.report.read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("domain", ["ecommerce", "health"])
def test_the_whole_job_in_other_domains(tmp_path, domain):
    """With hardly any training: every step must work, the figures may be poor."""
    steps = ("training.max_steps=5", "training.eval_every=5", "training.eval_rows=16")
    made = quickstart(domain=domain, output=tmp_path / domain, overrides=steps, say=len)
    assert made.evaluation.probe.label == "label"
    assert len(made.evaluation.next_event.view("history_only")) >= 5
    assert _of_itself(made.report.read_text())
