"""Distinct texts and what is remembered of them between calls."""

import numpy as np
import polars as pl
import pytest

from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, spans

pytest.importorskip("numba")

SCHEMA = DomainSchema("s", [FieldSpec("x", "text", max_tokens=4)])
WORDS = ["corner shop", "bakery", None, "é", "[PAD]", ""]


def encoded(tokenizer, column):
    return tokenizer.encode(pl.DataFrame({"x": column}), compiled=True).ids.tolist()


def plain(tokenizer, column):
    return tokenizer.encode(pl.DataFrame({"x": column}), compiled=False).ids.tolist()


@pytest.fixture
def tokenizer():
    return DomainTokenizer(SCHEMA, bpe_vocab_size=270).fit(pl.DataFrame({"x": WORDS}))


@pytest.fixture
def calls(monkeypatch):
    real, counted = spans.encode_plain, []
    monkeypatch.setattr(spans, "encode_plain", lambda *args: counted.append(1) or real(*args))
    return counted


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
def test_a_dictionary_that_comes_again_is_not_encoded_again(tokenizer, calls, kind):
    first, again = pl.Series(WORDS * 3, dtype=kind), pl.Series(WORDS * 9, dtype=kind)
    assert encoded(tokenizer, first) == plain(tokenizer, first)
    assert encoded(tokenizer, again) == plain(tokenizer, again)
    assert len(calls) == 1


def test_other_dictionaries_are_encoded(tokenizer, calls):
    columns = [pl.Series([*WORDS, f"shop {i}"] * 3) for i in range(7)]
    for column in [*columns, pl.Series(WORDS[::-1] * 3)]:
        assert encoded(tokenizer, column) == plain(tokenizer, column)
    assert len(calls) == 8
    assert len(tokenizer.fields[0].tables) == 4


def test_large_dictionaries_are_not_kept(tokenizer, monkeypatch):
    monkeypatch.setattr(spans, "_MOST_REMEMBERED", 2)
    column = pl.Series(WORDS * 3)
    assert encoded(tokenizer, column) == plain(tokenizer, column)
    assert not tokenizer.fields[0].tables


def test_another_model_forgets_them(tokenizer):
    encoded(tokenizer, pl.Series(WORDS * 3))
    tokenizer.fields[0].bind(tokenizer.fields[0].bpe)
    assert not tokenizer.fields[0].tables


def test_a_table_of_other_texts_would_be_found(tokenizer):
    """The twin: were tables not compared by their texts, the ids would differ."""
    column = pl.Series(WORDS * 3)
    encoded(tokenizer, column)
    (seen,) = tokenizer.fields[0].tables
    lie = pl.Series(["bakery", "corner shop", *WORDS[3:], None])
    tokenizer.fields[0].tables[0] = seen._replace(texts=lie)
    wrong = pl.Series([*lie.drop_nulls(), None] * 3)
    assert encoded(tokenizer, wrong) != plain(tokenizer, wrong)


def test_all_nulls_and_no_rows(tokenizer):
    for column in (pl.Series([None] * 5, dtype=pl.String), pl.Series([], dtype=pl.String)):
        assert encoded(tokenizer, column) == plain(tokenizer, column)


def test_ids_do_not_depend_on_how_strings_are_stored(tokenizer):
    rng = np.random.default_rng(0)
    words = pl.Series([f"shop number {i % 40} of {'many' * (i % 7)}" for i in range(200)])
    column = words.gather(rng.integers(0, 200, 3_000))
    wanted = plain(tokenizer, column)
    assert encoded(tokenizer, column) == wanted
    assert encoded(tokenizer, column.cast(pl.Categorical)) == wanted
    assert encoded(tokenizer, pl.Series(column.to_list())) == wanted
    assert encoded(tokenizer, pl.concat([column[:7], column[7:]], rechunk=False)) == wanted
