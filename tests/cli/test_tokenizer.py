"""tokenizer fit, tokenizer show, tokenize."""

from __future__ import annotations

import pytest

from domainformer.data import TokenStore
from domainformer.tokenizers import DomainTokenizer


@pytest.fixture(scope="module")
def folder(invoke, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "cards"
    outcome = invoke("tokenizer", "fit", table, "--output", path, "--bpe-vocab-size", 300)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(path)
    assert f"next: domainformer tokenizer show {path}" in outcome.err
    return path


def test_fit_writes_a_tokenizer(folder):
    tokenizer = DomainTokenizer.from_pretrained(folder)
    assert "label" not in tokenizer.schema.columns
    assert tokenizer.schema.field("timestamp").elapsed_bins


def test_fit_keeps_an_existing_folder(refused, invoke, folder, table, tmp_path):
    assert "exists already" in refused("tokenizer", "fit", table, "--output", folder)
    schema = tmp_path / "schema.yaml"
    schema.write_text("name: s\nfields:\n- {name: amount, field_type: sign}\n")
    target = tmp_path / "other"
    arguments = ("tokenizer", "fit", table, "--schema", schema, "--output", target)
    assert invoke(*arguments).code == 0
    assert invoke(*arguments, "--overwrite").code == 0
    assert DomainTokenizer.from_pretrained(target).vocab[5] == "[AMOUNT=NEG]"


def test_a_byte_level_vocabulary_has_a_least_size(refused, table, tmp_path):
    message = refused(
        "tokenizer", "fit", table, "--output", tmp_path / "t", "--bpe-vocab-size", 100
    )
    assert "too small" in message


def test_show_for_people_and_programs(invoke, folder):
    shown = invoke("tokenizer", "show", folder)
    assert shown.code == 0
    assert "amount_sign" in shown.out
    described = invoke("tokenizer", "show", folder, "--field", "amount_sign", "--json")
    assert [row["token"] for row in described.json][1:] == [
        "[AMOUNT_SIGN=NEG]",
        "[AMOUNT_SIGN=POS]",
    ]


def test_show_takes_a_run_folder_too(invoke, run):
    assert invoke("tokenizer", "show", run, "--json").code == 0


def test_show_of_a_wrong_field_or_folder(refused, folder, tmp_path):
    message = refused("tokenizer", "show", folder, "--field", "ammount")
    assert "did you mean 'amount'?" in message
    assert "nowhere" in refused("tokenizer", "show", tmp_path / "nowhere")


def test_tokenize_writes_a_store(invoke, refused, folder, table, tmp_path):
    path = tmp_path / "store"
    arguments = ("tokenize", table, "--tokenizer", folder, "--output", path)
    outcome = invoke(*arguments)
    assert outcome.code == 0
    assert outcome.out.strip() == str(path)
    store = TokenStore.open(path, verify=True)
    assert f"{store.n_events:,} events" in outcome.err
    assert store.tokenizer_fingerprint == DomainTokenizer.from_pretrained(folder).fingerprint
    assert "exists already" in refused(*arguments)
    assert invoke(*arguments, "--overwrite").code == 0
