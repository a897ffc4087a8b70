"""KNOWN_TOKENIZERS against transformers' own defaults; a size suggests and never decides."""

from __future__ import annotations

import dataclasses

import pytest

from domainformer.errors import TokenizerError
from domainformer.tokenizers.language.known import (
    KNOWN_TOKENIZERS,
    KnownTokenizer,
    known_tokenizer,
    suggest,
)
from domainformer.tokenizers.language.known_table import ROWS


def default_rows(model_type):
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type).vocab_size


def agrees(known: KnownTokenizer) -> bool:
    """Whether what the table says of the class's default is so."""
    return (default_rows(known.model_type) == known.rows) == known.rows_are_default


def test_there_are_enough_and_each_once():
    lines = ROWS.strip().splitlines()
    assert len(KNOWN_TOKENIZERS) == len(lines) >= 40
    assert sum(known.rows_are_default for known in KNOWN_TOKENIZERS.values()) >= 40


@pytest.mark.parametrize("known", KNOWN_TOKENIZERS.values(), ids=KNOWN_TOKENIZERS)
def test_rows_are_those_of_transformers_where_the_table_says_so(known):
    assert agrees(known), (known, default_rows(known.model_type))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("microsoft/mpnet-base", "MPNetTokenizer"),
        ("google/bigbird-roberta-base", "BigBirdTokenizer"),
        ("microsoft/deberta-base", "DebertaTokenizer"),
        ("microsoft/deberta-v3-base", "DebertaV2Tokenizer"),
        ("google-bert/bert-base-uncased", "BertTokenizer"),
    ],
)
def test_special_tokens_are_those_of_the_tokenizer_class(name, kind):
    import inspect

    import transformers

    given = inspect.signature(getattr(transformers, kind)).parameters
    for role, token in KNOWN_TOKENIZERS[name].specials.items():
        assert str(given[f"{role}_token"].default) == token


@pytest.mark.parametrize(
    "change", [{"rows": 50_258}, {"rows_are_default": False}], ids=["rows", "claim"]
)
def test_a_wrong_row_is_caught(change):
    assert not agrees(dataclasses.replace(KNOWN_TOKENIZERS["openai-community/gpt2"], **change))


def test_entries_are_told_whole():
    for known in KNOWN_TOKENIZERS.values():
        assert "/" in known.name
        assert known.license
        assert known.specials
        assert set(known.specials) <= {"bos", "eos", "unk", "sep", "pad", "cls", "mask"}
    short = [known.name for known in KNOWN_TOKENIZERS.values() if known.padding < 0]
    assert short == ["google/gemma-3-1b-pt"]  # its image token has no row in the text model


def test_a_size_suggests_by_both_sizes():
    both = {s.known.name: s.match for s in suggest(50_257)}
    assert both["openai-community/gpt2"] == "tokenizer and rows"
    padded = {s.known.name: s.match for s in suggest(151_936)}
    assert padded["Qwen/Qwen3-0.6B"] == "rows"
    assert {s.known.name: s.match for s in suggest(151_669)} == {"Qwen/Qwen3-0.6B": "tokenizer"}
    matches = [s.match for s in suggest(50_280)]
    assert matches == sorted(matches, key=["tokenizer and rows", "tokenizer", "rows"].index)


def test_suggestions_agree_with_a_plain_search():
    sizes = {size for known in KNOWN_TOKENIZERS.values() for size in (known.size, known.rows)}
    for size in sizes | {1, 12_345}:
        plain = {k.name for k in KNOWN_TOKENIZERS.values() if size in (k.size, k.rows)}
        assert {s.known.name for s in suggest(size)} == plain
        assert all(f"{s.known.name}: " in s.describe() for s in suggest(size))


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(TokenizerError, match="openai-community/gpt2"):
        known_tokenizer("openai-comunity/gpt2")
