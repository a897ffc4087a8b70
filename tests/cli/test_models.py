"""pretrain, finetune, evaluate, embed, generate: on one tiny run."""

from __future__ import annotations

import json

import polars as pl
import pytest

from domainformer.run import read_run


def test_pretrain_prints_json_alone_and_names_the_next_command(trained):
    result = trained.outcome.json
    assert result["run"] == str(trained.folder)
    assert result["steps"] == 2
    assert f"next: domainformer evaluate {trained.folder}" in trained.outcome.err
    assert read_run(trained.folder).status == "finished"


def test_pretrain_from_a_file_with_overrides(invoke, run, tmp_path):
    outcome = invoke(
        "pretrain",
        run / "config.yaml",
        f"schema={run / 'schema.yaml'}",
        f"output.root={tmp_path}",
        "output.name=again",
    )
    assert outcome.code == 0, outcome.err
    assert "eval_loss: " in outcome.out
    assert read_run(tmp_path / "again").tokenizer_fingerprint == read_run(run).tokenizer_fingerprint


def test_pretrain_keeps_an_existing_run(refused, run):
    message = refused("pretrain", run / "config.yaml")
    assert "exists already" in message
    assert "training.resume=true" in message


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("training.max_stpes=3", "training.max_stpes: unknown key (did you mean 'max_steps'?)"),
        ("trainig.max_steps=3", "trainig: unknown key (did you mean 'training'?)"),
        ("training.context=two", "training.context"),
        ("model.preset=tyni", "choose one of: 24m, 24m-wide-heads, 330m, tiny"),
        ("model.overrides.hidden_sise=3", "did you mean 'hidden_size'?"),
        ("training.max_steps", "not of the form key.key=value"),
        ("split.kind=tiem", "split.kind"),
    ],
)
def test_wrong_overrides_are_refused_before_anything_is_written(refused, tmp_path, override, hint):
    recipe = tmp_path / "run.yaml"
    recipe.write_text(f"data: {{path: absent.parquet}}\noutput: {{root: {tmp_path}, name: r}}\n")
    assert hint in refused("pretrain", recipe, override)
    assert not (tmp_path / "r").exists()


def test_pretrain_without_a_table_or_file(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "data.path" in refused("pretrain")
    assert "there is no file absent.yaml" in refused("pretrain", "absent.yaml")


def test_evaluate_prints_the_contest_and_writes_it(invoke, run):
    outcome = invoke("evaluate", run, "--events", 12, "--samples", 2)
    assert outcome.code == 0, outcome.err
    assert "amount_sign" in outcome.out
    assert f"next: domainformer report {run}" in outcome.err
    assert json.loads((run / "evaluation.json").read_text())["next_event"]["events"] == 12


def test_evaluate_with_a_probe_as_json(invoke, run):
    arguments = ("evaluate", run, "--events", 8, "--samples", 2, "--label", "label", "--json")
    outcome = invoke(*arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.json["probe"]["label"] == "label"


def test_evaluate_of_a_wrong_label_or_folder(refused, run, tmp_path):
    message = refused("evaluate", run, "--events", 4, "--label", "labl")
    assert "did you mean 'label'?" in message
    assert "neither a run nor a model" in refused("evaluate", tmp_path)
    assert "Invalid value for '--events'" in refused("evaluate", run, "--events", 0)


def test_embed_one_row_per_entity(invoke, refused, run, table, tmp_path):
    path = tmp_path / "embeddings.parquet"
    arguments = ("embed", run, table, "--output", path)
    outcome = invoke(*arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(path)
    frame = pl.read_parquet(path)
    assert frame.columns == ["client_id", "n_events", "embedding"]
    assert frame.height == pl.read_parquet(table)["client_id"].n_unique()
    assert "exists already" in refused(*arguments)
    assert invoke(*arguments, "--how", "mean", "--overwrite").code == 0
    assert not pl.read_parquet(path).equals(frame)
    assert "in one order" in refused(*arguments, "--permutations", 2, "--overwrite")


def test_a_table_with_other_column_names(invoke, refused, run, table, tmp_path):
    events = pl.read_parquet(table)
    named = tmp_path / "named.parquet"
    events.rename({"client_id": "customer_id", "timestamp": "date"}).write_parquet(named)
    message = refused("embed", run, named, "--output", tmp_path / "e.parquet")
    assert "field 'timestamp': there is no column 'timestamp'" in message
    other = tmp_path / "other.parquet"
    events.rename({"client_id": "customer_id"}).write_parquet(other)
    target = tmp_path / "embeddings.parquet"
    outcome = invoke("embed", run, other, "--output", target)
    assert outcome.code == 0, outcome.err
    assert pl.read_parquet(target).columns[0] == "customer_id"


def test_embed_without_a_model(refused, table, tmp_path):
    message = refused("embed", tmp_path, table, "--output", tmp_path / "e.parquet")
    assert str(tmp_path) in message


def test_generate_rows_to_stdout_or_a_file(invoke, run, table, tmp_path):
    asked = ("--entities", 2, "--events", 2, "--samples", 2, "--seed", 3)
    outcome = invoke("generate", run, table, *asked)
    assert outcome.code == 0, outcome.err
    printed = pl.read_csv(outcome.out.encode())
    assert printed.height == 8
    assert printed.columns[:3] == ["client_id", "sample", "step"]
    path = tmp_path / "future.parquet"
    assert invoke("generate", run, table, *asked, "--output", path).out.strip() == str(path)
    written = pl.read_parquet(path)
    assert written["category"].to_list() == printed["category"].to_list()


def test_generate_refuses_impossible_settings(refused, run, table):
    assert "Invalid value for '--events'" in refused("generate", run, table, "--events", 0)
    assert "top_p" in refused("generate", run, table, "--entities", 1, "--top-p", 1.5)
    assert "temperature" in refused("generate", run, table, "--entities", 1, "--temperature", -1)


def test_finetune_a_classifier(invoke, run, table, tmp_path):
    output = tmp_path / "classifier"
    steps = ("--set", "training.max_steps=2")
    outcome = invoke(
        "finetune", run, table, "--label", "label", "--mode", "head", "--output", output, *steps
    )
    assert outcome.code == 0, outcome.err
    assert "test_auroc" in outcome.out
    assert (output / "model" / "domainformer.json").is_file()
    assert pl.read_parquet(output / "predictions.parquet").columns[0] == "client_id"


def test_finetune_on_a_wrong_label_or_key(refused, run, table, tmp_path):
    output = ("--output", tmp_path / "classifier")
    assert "did you mean 'label'?" in refused("finetune", run, table, "--label", "lable", *output)
    message = refused(
        "finetune", run, table, "--label", "label", "--set", "training.epohcs=3", *output
    )
    assert "did you mean 'epochs'?" in message
    message = refused("finetune", run, table, "--label", "amount", *output)
    assert "is a field of the model's schema" in message
    assert not (tmp_path / "classifier").exists()
