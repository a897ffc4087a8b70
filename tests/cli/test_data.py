"""simulate, schema infer, schema check; and tables that cannot be used."""

from __future__ import annotations

import polars as pl
import pytest

from domainformer.schema import DomainSchema


def test_simulated_tables_are_the_same_for_the_same_seed(invoke, table, tmp_path):
    again = tmp_path / "again.parquet"
    outcome = invoke("simulate", "finance", again, "--entities", 80, "--events", 16)
    assert outcome.code == 0
    assert outcome.out.strip() == str(again)
    assert "next: domainformer schema infer" in outcome.err
    assert pl.read_parquet(again).equals(pl.read_parquet(table))


def test_existing_files_are_kept_unless_told_otherwise(invoke, refused, tmp_path):
    path = tmp_path / "events.parquet"
    path.write_text("mine")
    arguments = ("simulate", "health", path, "--entities", 5)
    assert "exists already next: pass --overwrite" in refused(*arguments)
    assert path.read_text() == "mine"
    assert invoke(*arguments, "--overwrite").code == 0
    assert pl.read_parquet(path).height


def test_an_unknown_domain_gives_the_nearest(refused, tmp_path):
    assert "did you mean 'finance'?" in refused("simulate", "finanse", tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_infer_prints_evidence_and_schema(invoke, table):
    outcome = invoke("schema", "infer", table)
    assert outcome.code == 0
    assert "because" in outcome.out
    assert "field_type: sign" in outcome.out
    assert "--entity client_id --time timestamp" in outcome.err


def test_infer_as_json_is_json_alone(invoke, table):
    outcome = invoke("schema", "infer", table, "--label", "label", "--json")
    assert outcome.code == 0
    fields = outcome.json["schema"]["fields"]
    assert "label" not in {field.get("column", field["name"]) for field in fields}
    assert outcome.json["entity"] == "client_id"


def test_an_inferred_schema_can_be_written_and_checked(invoke, refused, table, tmp_path):
    path = tmp_path / "schema.yaml"
    assert invoke("schema", "infer", table, "--output", path).code == 0
    assert DomainSchema.from_yaml(path).field("amount").source == "amount"
    outcome = invoke("schema", "check", path, table)
    assert outcome.code == 0
    assert "fits" in outcome.err
    other = tmp_path / "other.parquet"
    pl.read_parquet(table).rename({"amount": "amuont"}).write_parquet(other)
    message = refused("schema", "check", path, other)
    assert "there is no column 'amount' (did you mean 'amuont'?)" in message


def test_a_wrong_schema_file_is_told_whole(refused, tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text("name: s\nfields:\n- {name: a, field_type: sgin}\n- {name: b, bins: 3}\n")
    message = refused("schema", "check", path)
    assert "did you mean 'sign'?" in message
    assert "bins: unknown key (did you mean 'n_bins'?)" in message
    assert str(path) in message


def _truncated(path, frame):
    frame.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])


def _nothing(path, frame):
    path.write_bytes(b"")


def _no_rows(path, frame):
    frame.clear().write_parquet(path)


def _text(path, frame):
    path.write_text("these are not columns")


@pytest.mark.parametrize("damage", [_truncated, _nothing, _no_rows, _text])
@pytest.mark.parametrize(
    "verb", [("schema", "infer"), ("tokenizer", "fit"), ("quickstart", "--data"), ("init",)]
)
def test_tables_that_cannot_be_used(refused, table, tmp_path, monkeypatch, damage, verb):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "damaged.parquet"
    damage(path, pl.read_parquet(table))
    message = refused(*verb, path, "--entity", "client_id", "--time", "timestamp")
    assert "error: " in message
    assert "damaged.parquet" in message
    assert {entry.name for entry in tmp_path.iterdir()} == {"damaged.parquet"}


@pytest.mark.parametrize("verb", [("schema", "infer"), ("tokenizer", "fit"), ("init",)])
def test_a_missing_column_gives_the_nearest(refused, table, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    message = refused(*verb, table, "--entity", "client_di", "--time", "timestamp")
    assert "did you mean 'client_id'?" in message


def test_columns_that_cannot_be_guessed_are_asked_for(refused, tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("a,b\nx,1\nx,2\ny,3\n")
    message = refused("tokenizer", "fit", path, "--output", tmp_path / "tokenizer")
    assert "which column is the entity?" in message
    assert "--entity COLUMN" in message


def test_a_missing_file_is_named(refused, tmp_path):
    assert "absent.csv" in refused("schema", "infer", tmp_path / "absent.csv")
