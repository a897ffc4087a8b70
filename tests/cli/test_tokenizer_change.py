"""Verbs on fitted tokenizers: validate, extend, diff, drift, semantic-ids, merges; bad input."""

from __future__ import annotations

import json
import shutil
import sys

import polars as pl
import pytest

from domainformer.artifacts import staged_directory
from domainformer.data import TokenStore
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.merges import ActionPieceMerges, MergeTable, encoding, fitting

SCHEMA = """name: s
fields:
- {name: category, field_type: categorical_fixed}
- {name: amount, field_type: numerical_continuous, n_bins: 6}
- {name: timestamp, field_type: temporal, calendar_fields: [dow], elapsed_bins: 6}
"""


@pytest.fixture(scope="module")
def home(invoke, table, tmp_path_factory):
    """A schema without text, a tokenizer fitted by it, and a store."""
    home = tmp_path_factory.mktemp("change")
    (home / "schema.yaml").write_text(SCHEMA)
    outcome = invoke(
        "tokenizer", "fit", table, "--schema", home / "schema.yaml", "--output", home / "fitted"
    )
    assert outcome.code == 0, outcome.err
    outcome = invoke(
        "tokenize", table, "--tokenizer", home / "fitted", "--output", home / "store", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["tokens"] == TokenStore.open(home / "store").n_tokens
    assert "next: domainformer tokenizer merges" in outcome.err
    return home


# ── what they do ──────────────────────────────────────────────────────────────────────────────


def test_show_has_an_example_of_the_table(invoke, home, table):
    made_up = invoke("tokenizer", "show", home / "fitted")
    assert "made up of typical values" in made_up.out
    shown = invoke("tokenizer", "show", home / "fitted", table)
    assert "An event, row" in shown.out
    assert f"next: domainformer tokenizer validate {home / 'fitted'} {table}" in shown.err
    plain = invoke("tokenizer", "show", home / "fitted", table, "--json").json
    assert [row["slot"] for row in plain["slots"]][:2] == ["category", "amount"]
    assert plain["example"]["tokens"][0]["column"] == "category"


def test_validate_keeps_its_promise(invoke, home, table):
    arguments = ("tokenizer", "validate", home / "fitted", table, "--events", 100)
    outcome = invoke(*arguments)
    assert outcome.code == 0, outcome.err
    assert "every promise is kept" in outcome.out
    assert invoke(*arguments, "--json").json["ok"] is True


def test_validate_ends_with_1_where_a_promise_is_broken(invoke, home, table, monkeypatch):
    right = DomainTokenizer.encode_event
    monkeypatch.setattr(
        DomainTokenizer, "encode_event", lambda self, *event: right(self, *event)[::-1]
    )
    outcome = invoke("tokenizer", "validate", home / "fitted", table, "--events", 20, "--json")
    assert outcome.code == 1
    assert outcome.json["ok"] is False


def test_extend_diff_and_drift(invoke, home, table, tmp_path):
    new = tmp_path / "new.parquet"
    frame = pl.read_parquet(table).with_columns(category=pl.lit("zeppelins"))
    frame.write_parquet(new)
    drifted = invoke("tokenizer", "drift", home / "fitted", new, "--json")
    assert drifted.code == 0, drifted.err
    assert drifted.json["verdict"] != "fine"
    same = invoke("tokenizer", "drift", home / "fitted", new, "--reference", new, "--json")
    assert same.json["slots"][0]["unknown"] == 1.0
    target = tmp_path / "extended"
    extended = invoke("tokenizer", "extend", home / "fitted", new, "--output", target)
    assert extended.code == 0, extended.err
    old, now = (DomainTokenizer.from_pretrained(p) for p in (home / "fitted", target))
    assert now.vocab[: old.vocab_size] == old.vocab
    assert now.vocab[-1] == "[CATEGORY=zeppelins]"
    compared = invoke("tokenizer", "diff", home / "fitted", target)
    assert "zeppelins" in compared.out
    shown = invoke("tokenizer", "show", target, "--field", "category", "--json")
    assert shown.json[-1]["id"] == old.vocab_size
    assert "+1" in invoke("tokenizer", "show", target).out
    assert invoke("tokenizer", "validate", target, new, "--events", 50).code == 0


def test_tables_of_several_files_are_looked_at_in_parts(invoke, home, table, tmp_path):
    events = pl.read_parquet(table)
    parts = tmp_path / "parts"
    parts.mkdir()
    for number, part in enumerate(events.iter_slices(events.height // 2 + 1)):
        part.write_parquet(parts / f"{number}.parquet")
    for verb in (("validate", "--events", 60), ("drift",)):
        name, *options = verb
        asked = ("tokenizer", name, home / "fitted")
        whole = invoke(*asked, table, *options, "--json")
        outcome = invoke(*asked, parts, *options, "--json")
        assert "streaming" in outcome.err
        assert "streaming" not in whole.err
        assert outcome.json == whole.json


def test_a_model_grows_with_its_tokenizer(invoke, run, table, tmp_path):
    new = tmp_path / "new.parquet"
    pl.read_parquet(table).with_columns(category=pl.lit("zeppelins")).write_parquet(new)
    target = tmp_path / "grown"
    outcome = invoke("tokenizer", "extend", run, new, "--output", target, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["model"]["new_size"] > outcome.json["model"]["old_size"]
    embeddings = tmp_path / "e.parquet"
    assert invoke("embed", target, new, "--output", embeddings).code == 0


def test_merges_are_learned_and_told(invoke, home, tmp_path, monkeypatch):
    for module in (fitting, encoding):  # compiling takes longer than so few merges
        monkeypatch.setattr(module, "numba_available", lambda: False)
    base = DomainTokenizer.from_pretrained(home / "fitted").vocab_size
    file, merged = tmp_path / "merges.json", tmp_path / "merged"
    outcome = invoke(
        *("tokenizer", "merges", home / "store", "--tokenizer", home / "fitted"),
        *("--output", file, "--merged", merged, "--vocab-size", base + 20),
    )
    assert outcome.code == 0, outcome.err
    assert "20 merges learned" in outcome.out
    before, after = TokenStore.open(home / "store"), TokenStore.open(merged)
    assert after.n_tokens < before.n_tokens
    assert after.vocab_size == base + 20
    shown = invoke("tokenizer", "show", home / "fitted", "--merges", file)
    assert "20 merges make" in shown.out
    rows = invoke("tokenizer", "show", home / "fitted", "--merges", file, "--json").json["rows"]
    assert len(rows) == 20
    assert "+" in rows[0]["token"] or "▸" in rows[0]["token"]


def test_semantic_ids_go_into_a_fit(invoke, home, table, tmp_path):
    codes = tmp_path / "codes"
    outcome = invoke(
        *("tokenizer", "semantic-ids", table, "--field", "category", "--output", codes),
        *("--method", "kmeans", "--levels", 2, "--codes", 3),
    )
    assert outcome.code == 0, outcome.err
    schema = tmp_path / "schema.yaml"
    schema.write_text(
        "name: s\nfields:\n- {name: category, field_type: categorical_entity, "
        "semantic_levels: 2, semantic_codes: 3}\n"
    )
    target = tmp_path / "fitted"
    arguments = ("tokenizer", "fit", table, "--schema", schema, "--output", target)
    assert invoke(*arguments, "--semantic-ids", f"category={codes}").code == 0
    assert invoke("tokenizer", "validate", target, table, "--events", 50).code == 0
    assert "category.code1" in invoke("tokenizer", "show", target).out
    new = tmp_path / "new.parquet"
    frame = pl.read_parquet(table)
    frame.with_columns(pl.col("category").replace(frame["category"][0], "new")).write_parquet(new)
    continued = invoke(
        *("tokenizer", "semantic-ids", new, "--field", "category", "--extends", codes),
        *("--output", tmp_path / "more", "--json"),
    )
    assert continued.code == 0, continued.err
    assert continued.json["new"] == 1
    extend = ("tokenizer", "extend", target, new, "--json", "--output", tmp_path / "extended")
    before = invoke(*extend).json["fields"][0]
    assert before["unknown_after"] == before["unknown_before"] > 0
    assert "--semantic-ids" in before["why"]
    given = ("--semantic-ids", f"category={tmp_path / 'more'}", "--overwrite")
    assert invoke(*extend, *given).json["fields"][0]["unknown_after"] == 0


def test_streamed_and_whole_fits_are_the_same(invoke, home, table, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    frame = pl.read_parquet(table).sample(fraction=1.0, shuffle=True, seed=1)
    for part in range(3):
        frame[part::3].write_parquet(folder / f"{part}.parquet")
    target = tmp_path / "streamed"
    arguments = ("tokenizer", "fit", folder, "--schema", home / "schema.yaml", "--json")
    outcome = invoke(*arguments, "--output", target)
    assert outcome.code == 0, outcome.err
    assert "streaming" in outcome.err
    for name in ("tokenizer.json", "domain_tokenizer.json"):
        assert (target / name).read_bytes() == (home / "fitted" / name).read_bytes()
    assert not target.with_name("streamed.partial").exists()
    store = tmp_path / "store"
    outcome = invoke(
        *("tokenize", folder, "--tokenizer", target, "--output", store, "--memory", "64MB"),
        *("--validation-from", "2023-06-01", "--test-from", "2023-09-01"),
    )
    assert outcome.code == 0, outcome.err
    streamed, whole = TokenStore.open(store), TokenStore.open(home / "store")
    assert streamed.n_tokens == whole.n_tokens
    assert streamed.n_events == whole.n_events
    events = streamed.events()
    assert len(set(events.roles.tolist())) == 3


def test_a_large_table_without_a_schema_is_inferred_from_a_sample(invoke, table, tmp_path):
    outcome = invoke(
        "tokenizer", "fit", table, "--output", tmp_path / "t", "--work", tmp_path / "work"
    )
    assert outcome.code == 0, outcome.err
    assert "schema inferred from a sample" in outcome.err


# ── bad input: one message that teaches, exit code 2 ──────────────────────────────────────────


@pytest.mark.parametrize("verb", ["show", "validate", "drift", "extend", "diff"])
@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_damaged_folder_is_refused_by_every_verb(refused, home, table, tmp_path, verb, harm):
    folder = tmp_path / "damaged"
    shutil.copytree(home / "fitted", folder)
    path = folder / "domain_tokenizer.json"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(b" " + path.read_bytes()[1:])
    further = {"show": [], "diff": [home / "fitted"], "extend": [table, "--output", tmp_path / "x"]}
    message = refused("tokenizer", verb, folder, *further.get(verb, [table]))
    assert "is damaged" in message
    assert "where: domain_tokenizer.json" in message
    assert "next: restore the folder from a copy" in message


def test_a_newer_format_is_refused(refused, home, table, tmp_path):
    folder = tmp_path / "newer"
    with staged_directory(folder) as staging:
        for path in (home / "fitted").iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, staging / path.name)
        state = json.loads((staging / "domain_tokenizer.json").read_text())
        state |= {"version": 99, "domainformer": "9.9"}
        (staging / "domain_tokenizer.json").write_text(json.dumps(state))
    for arguments in (("tokenizer", "show", folder), ("tokenizer", "validate", folder, table)):
        message = refused(*arguments)
        assert "has version 99" in message
        assert "next: use domainformer 9.9, which wrote it" in message
    message = refused("tokenize", table, "--tokenizer", folder, "--output", tmp_path / "s")
    assert "has version 99" in message


def test_a_schema_that_does_not_fit_is_refused(refused, home, table, tmp_path):
    other = tmp_path / "other.parquet"
    pl.read_parquet(table).drop("amount").write_parquet(other)
    for verb in ("validate", "drift"):
        message = refused("tokenizer", verb, home / "fitted", other)
        assert "amount" in message
        assert "next:" in message
    fit = ("tokenizer", "fit", other, "--schema", home / "schema.yaml")
    for further in ((), ("--work", tmp_path / "work")):
        assert "amount" in refused(*fit, "--output", tmp_path / "t", *further)
    tokenize = ("tokenize", other, "--tokenizer", home / "fitted", "--output", tmp_path / "s")
    assert "amount" in refused(*tokenize)
    assert not (tmp_path / "t").exists()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("spark", "pyspark")])
def test_an_engine_that_is_not_installed_is_named(
    refused, home, table, tmp_path, monkeypatch, engine, package
):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(
        *("tokenize", table, "--tokenizer", home / "fitted", "--output", tmp_path / "s"),
        *("--engine", engine),
    )
    assert f"needs {package}" in message or f"{package}, which is not installed" in message
    assert f"pip install 'domainformer[{engine}]'" in message


def test_other_bad_input(refused, invoke, home, table, tmp_path):
    fit = ("tokenizer", "fit", table, "--output", tmp_path / "t")
    assert "no usable memory budget" in refused(*fit, "--memory", "tiny")
    assert "write it as FIELD=FOLDER" in refused(*fit, "--semantic-ids", "merchant")
    assert "'dask' is not one of" in refused(*fit, "--engine", "dask")
    csv = tmp_path / "events.csv"
    pl.read_parquet(table).write_csv(csv)
    streamed = ("tokenizer", "fit", csv, "--output", tmp_path / "t", "--workers", 2)
    assert "large tables are read from Parquet" in refused(*streamed)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(table.read_bytes()[:1000])
    message = refused("tokenizer", "fit", damaged, "--output", tmp_path / "t")
    assert "cannot be read" in message
    assert "tokenizer fitted" not in message
    other = tmp_path / "other"
    assert invoke("tokenizer", "fit", table, "--output", other, "--bpe-vocab-size", 300).code == 0
    file = tmp_path / "merges.json"
    merges = ActionPieceMerges(MergeTable.of(9, [[5, 6, 0]]), base_fingerprint="f00d")
    merges.save(file)
    message = refused("tokenizer", "show", other, "--merges", file)
    assert "not learned with this tokenizer" in message
