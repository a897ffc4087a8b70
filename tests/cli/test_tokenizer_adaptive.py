"""tokenizer adaptive, and tokenizer validate of tokenizers of plain text."""

from __future__ import annotations

import pytest

from domainformer.tokenizers import AdaptiveTokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "poem.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 4)
    return path


@pytest.fixture(scope="module")
def folder(invoke, text, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizers") / "adaptive"
    outcome = invoke("tokenizer", "adaptive", text, "--vocab-size", 600, "--output", path)
    assert outcome.code == 0, outcome.err
    assert "characters: 600 ids" in outcome.out
    assert "a BPE has 5,000 to 100,000 entries" in outcome.out
    assert f"next: domainformer tokenizer validate {path} {text}" in outcome.err
    return path


def test_the_folder_is_a_tokenizer_that_knows_why(folder):
    tokenizer = AdaptiveTokenizer.from_pretrained(folder)
    assert (len(tokenizer), tokenizer.choice.tier) == (600, "characters")


def test_for_programs_and_with_an_own_file(invoke, folder, text, tmp_path):
    own = folder / "tokenizer.json"
    arguments = ("tokenizer", "adaptive", text, "--own", own, "--output", tmp_path / "own")
    told = invoke(*arguments, "--json").json
    assert (told["tier"], told["size"], told["considered"][1]["verdict"]) == (
        "own",
        600,
        "not needed",
    )


def test_bad_input(refused, folder, text, tmp_path):
    target = ("--output", tmp_path / "new")
    assert "is missing" in refused("tokenizer", "adaptive", text, *target)
    assert "exists already" in refused("tokenizer", "adaptive", text, "--output", folder)
    message = refused("tokenizer", "adaptive", text, "--model", "./nowhere", *target)
    assert "there is no folder ./nowhere" in message
    assert "give a vocab_size" in message
    assert "no tier gives" in refused(
        "tokenizer", "adaptive", text, "--vocab-size", 5000, "--tier", "bpe", *target
    )
    assert not (tmp_path / "new").exists()


def test_validate_takes_text_tokenizers(invoke, folder, text):
    shown = invoke("tokenizer", "validate", folder, text)
    assert shown.code == 0, shown.err
    assert "no check failed" in shown.out
    told = invoke("tokenizer", "validate", folder, "--vocab-size", 600, "--json")
    assert told.json["passed"]
    wrong = invoke("tokenizer", "validate", folder / "tokenizer.json", "--vocab-size", 500)
    assert (wrong.code, "expected were 500" in wrong.out) == (1, True)
    strict = invoke("tokenizer", "validate", folder, "--vocab-size", 610, "--strict", "--json")
    assert (strict.code, strict.json["strict"]) == (1, True)


def test_validate_of_nothing(refused, tmp_path):
    assert "no" in refused("tokenizer", "validate", tmp_path / "nothing")
