"""The shared BPE model: training, escaping, truncation, and equal ids on every path."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers.base import Ragged
from domainformer.tokenizers.fields import (
    BytePairModel,
    TextTokenizer,
    bytepair,
    train_bpe,
    unescape,
)
from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.statistics import Limits, TextSketch

SPECIALS = ["[PAD]", "[NOTE]", "[KIND=a%20b]", "[KIND=é]"]
WORDS = [
    "corner",
    "shop",
    "payment",
    "transfer",
    "cafés",
    "日本",
    "it's",
    "2024",
    "--",
    "🙂",
    "שלום",
]
MAKER = random.Random(0)
CORPUS = sorted({" ".join(MAKER.choices(WORDS, k=4)) for _ in range(400)})
HF = train_bpe(CORPUS, [1 + len(text) % 5 for text in CORPUS], 600, SPECIALS)
BPE = BytePairModel(HF)
SLOW = BytePairModel(HF, fast=False)
PIECES = st.sampled_from(
    [*SPECIALS, *WORDS, " ", "  ", "[", "]", "[[", "\ue000", "PAD]", "\n", "'s"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=30
)
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


def test_ids_are_specials_then_bytes_then_merges():
    assert [HF.id_to_token(i) for i in range(4)] == SPECIALS
    assert BPE.first_id == 4
    assert 256 < len(BPE.tokens) <= 600
    assert len(BPE.tokens[255]) == 1
    assert all(len(token) > 1 for token in BPE.tokens[256:])


@SETTINGS
@given(text=TEXTS)
def test_escaping_is_undone_and_hides_every_token(text):
    escaped = BPE.escape(text)
    assert unescape(escaped) == text
    assert not any(special in escaped for special in SPECIALS)


@SETTINGS
@given(text=TEXTS)
def test_decode_undoes_encode(text):
    assert BPE.decode(BPE.encode(text)) == text


@SETTINGS
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_ids_are_the_same_alone_and_between_special_tokens(texts):
    rendered = "[NOTE]" + "[NOTE]".join(BPE.escape(text) for text in texts) + "[PAD]"
    want = []
    for text in texts:
        want += [1, *(token + BPE.first_id for token in BPE.encode(text))]
    assert HF.encode(rendered, add_special_tokens=False).ids == [*want, 0]


def test_without_escaping_a_text_would_become_a_token():
    """The twin of the test above: the guard is what keeps text apart from tokens."""
    assert 0 in HF.encode("pay [PAD]").ids
    assert 0 not in HF.encode(BPE.escape("pay [PAD]")).ids


ASCII = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=60)


@pytest.mark.skipif(BPE._fast is None, reason="needs tiktoken (extra fast)")
@SETTINGS
@given(texts=st.lists(TEXTS | ASCII, max_size=5))
def test_the_fast_path_gives_the_same_ids(texts):
    assert BPE.encode_batch(texts) == SLOW.encode_batch(texts)


@pytest.mark.skipif(BPE._fast is None, reason="needs tiktoken (extra fast)")
def test_the_fast_path_is_refused_where_it_cannot_be_proven():
    """Sabotage: merges in another order than their tokens, or a token its merges cannot reach."""
    tokens, spelt = BPE.tokens, BPE.spelt
    vocab = {token: index for index, token in enumerate(tokens)}
    model = bytepair.json.loads(HF.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    assert bytepair._tiktoken(spelt, vocab, merges) is not None
    assert bytepair._tiktoken(spelt, vocab, merges[::-1]) is None
    assert bytepair._tiktoken(spelt, vocab, merges[:-1]) is None
    swapped = [merges[1], merges[0], *merges[2:]]
    assert bytepair._tiktoken(spelt, vocab, swapped) is None
    # abc is learned as a·bc, but ab, learned first, always takes the b.
    small = {**{token: i for i, token in enumerate(tokens[:256])}, "ab": 256, "bc": 257, "abc": 258}
    bad = [("a", "b"), ("b", "c"), ("a", "bc")]
    assert bytepair._tiktoken([*spelt[:256], b"ab", b"bc", b"abc"], small, bad) is None


@SETTINGS
@given(text=TEXTS | TEXTS.map(lambda t: t * 40), budget=st.integers(1, 12))
def test_truncation_keeps_a_prefix_within_budget(text, budget):
    ((kept, ids),) = BPE.truncate([text], budget)
    full = BPE.encode(text)
    assert text.startswith(kept)
    assert len(ids) <= budget
    assert ids == BPE.encode(kept)
    assert BPE.truncate([kept], budget) == [(kept, ids)]
    if len(full) <= budget:
        assert kept == text
    assert SLOW.truncate([text], budget) == [(kept, ids)]


def test_truncation_stays_near_the_budget():
    for text in CORPUS[:50]:
        assert len(BPE.truncate([text * 3], 7)[0].ids) >= 6


def test_very_long_texts_are_cut_before_they_are_encoded():
    text = "corner shop " * 1_000_000
    assert len(BPE.truncate([text], 16)[0].ids) == 16


def test_training_weighs_texts_by_count_in_any_order():
    often = train_bpe(["ab", "xy"], [1, 9], 257)
    assert BytePairModel(often).tokens[-1] == "xy"
    texts = ["corner shop", "corner café", "shop"]
    one = train_bpe(texts, [3, 2, 9], 280)
    other = train_bpe(texts[::-1], [9, 2, 3], 280)
    assert one.to_str() == other.to_str()


def test_huge_counts_are_scaled(monkeypatch):
    monkeypatch.setattr(bytepair, "_MOST_TEXTS", 100)
    repeated = list(bytepair._repeated(["a", "b", "c"], [10**9, 10**9, 1]))
    assert [repeated.count(text) for text in "abc"] == [50, 50, 1]


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(TokenizerError, match="255 tokens is too small"):
        train_bpe(["a"], [1], 255)


def test_training_on_nothing_gives_the_bytes():
    bpe = BytePairModel(train_bpe([], [], 4096))
    assert len(bpe.tokens) == 256
    assert bpe.decode(bpe.encode("né 🙂")) == "né 🙂"


def test_texts_are_counted_over_columns():
    sketch = TextSketch(Limits())
    for column in (
        pl.Series(["b", None, "a", "b"]),
        pl.Series(["a", "a"], dtype=pl.Categorical),
    ):
        sketch.add(count_texts(column, field="note"))
    assert sketch.counts() == {"a": 3, "b": 2}


def text_tokenizer(**options):
    return TextTokenizer(FieldSpec("note", "text", **options)).bind(BPE)


def test_null_empty_and_text():
    rows = text_tokenizer().encode(pl.Series([None, "", "shop"])).rows()
    assert rows == [[0], [1], [1, *(token + 2 for token in BPE.encode("shop"))]]


def test_decode_gives_the_texts_back():
    tokenizer = text_tokenizer(max_tokens=200)
    column = pl.Series("note", [None, "", "[PAD]", "\ue000", *CORPUS[:20]])
    assert tokenizer.decode(tokenizer.encode(column)).to_list() == column.to_list()


@pytest.mark.parametrize("row", [[], [0, 5], [5], [1, 1], [1, 602], [1, -1]])
def test_decoding_what_is_no_text_is_an_error(row):
    with pytest.raises(TokenizerError, match="are no text") as caught:
        text_tokenizer().decode(Ragged.of([[0], row]))
    assert "row 1" in str(caught.value)


def test_pieces_are_described():
    tokenizer = text_tokenizer()
    piece = tokenizer.encode_one(" shop")[1]
    assert tokenizer.describe(piece) == {"token": "Ġshop", "kind": "piece", "text": " shop"}
    assert tokenizer.describe(1) == {"token": "[NOTE]", "kind": "marker"}


def test_numbers_are_read_as_text_and_lone_surrogates_replaced():
    tokenizer = text_tokenizer()
    assert tokenizer.encode_one(2024) == tokenizer.encode_one("2024")
    assert tokenizer.encode(pl.Series([2024])).rows()[0] == list(tokenizer.encode_one("2024"))
    assert tokenizer.encode_one("a\ud800") == tokenizer.encode_one("a?")
    assert tokenizer.truncate("a\ud800") == "a?"
    assert tokenizer.truncate(None) is None


def test_a_tokenizer_without_a_model_says_so():
    tokenizer = TextTokenizer(FieldSpec("note", "text"))
    assert not tokenizer.fitted
    for use in (
        lambda: tokenizer.encode(pl.Series(["a"])),
        lambda: tokenizer.encode_one("a"),
        lambda: tokenizer.decode(Ragged.of([[0]])),
        lambda: tokenizer.escape("a"),
        lambda: tokenizer.truncate("a"),
        lambda: tokenizer.describe(2),
    ):
        with pytest.raises(TokenizerError, match="no BPE model"):
            use()


def test_remembered_texts_are_bounded(monkeypatch):
    from domainformer.tokenizers.fields import text as module

    monkeypatch.setattr(module, "_MOST_REMEMBERED", 3)
    tokenizer = text_tokenizer()
    fresh = text_tokenizer()
    for text in CORPUS[:20]:
        assert tokenizer.encode_one(text) == fresh.encode_one(text)
        assert len(tokenizer._remembered) <= 4


def test_fit_trains_a_model_of_its_own():
    tokenizer = TextTokenizer(FieldSpec("note", "text"), bpe_vocab_size=300)
    tokenizer.fit(pl.Series(CORPUS))
    assert tokenizer.bpe is not None
    assert tokenizer.bpe.specials == {"[NOTE]", "[NOTE_MISSING]"}
    assert len(tokenizer.bpe.tokens) == 300
