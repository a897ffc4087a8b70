"""The compiled byte-pair encoder: equal to Hugging Face's model, text by text."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.fields.bytepair import BytePairModel, train_bpe
from domainformer.tokenizers.kernels import encode_plain, merging

pytest.importorskip("numba")

CORPUS = [
    "TESCO STORES 3217 LONDON GB",
    "it's the shop that we've been to, isn't it",
    "low lower lowest newer newest wider",
    "aaaa aaa aa a bbbb abab",
    "12.50 EUR -- ref 2024/03/29 !!!",
]
MARKER = 60_000
ALPHABET = "abelortvsmd ' TESCO12.,!ab"
PLAIN = st.one_of(
    st.text(alphabet=ALPHABET, max_size=60),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.sampled_from(["", " ", "  ", "   x", "x  ", "'s 't", " 's", "'ll've'RE", "'", "a" * 64]),
)


@pytest.fixture(scope="module", params=[256, 300, 420])
def model(request):
    return BytePairModel(train_bpe(CORPUS, [50] * len(CORPUS), request.param), fast=False)


def rows(model, texts, budget):
    array = pl.Series(texts, dtype=pl.String).to_arrow()
    _, ends, data = array.buffers()
    text = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    names = np.concatenate([[MARKER], np.arange(len(model.tokens))]).astype(np.uint16)
    found = encode_plain(text, np.frombuffer(ends, np.int64), budget, model.merges, names)
    ends = found.offsets.tolist()
    values = found.values.tolist()
    return [
        values[start:stop] if plain else None
        for start, stop, plain in zip(ends, ends[1:], found.plain.tolist(), strict=False)
    ]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(PLAIN, min_size=1, max_size=20), st.sampled_from([1, 2, 5, 16]))
def test_plain_texts_are_encoded_as_by_hugging_face(model, texts, budget):
    wanted = model.truncate(texts, budget)
    for text, ids, row in zip(texts, rows(model, texts, budget), wanted, strict=True):
        if ids is None:
            kept = text[: budget * model.longest]
            longest = max(map(len, kept.split(" ")))
            assert "[" in kept or longest >= merging._LONGEST_WORD or " " * 64 in kept
        else:
            assert ids == [MARKER, *row.ids]


@pytest.mark.parametrize("text", ["é", "x [PAD]", "tab\there", "a" * 65, "\x7f", "\ue000", "日本"])
def test_other_texts_are_left_to_hugging_face(model, text):
    assert rows(model, ["ab", text, "ab"], 99)[1] is None
    assert rows(model, ["ab", text, "ab"], 99)[2] == rows(model, ["ab"], 99)[0]


def test_a_merge_that_is_out_of_order_is_found(monkeypatch):
    """The twin of the test above: with ranks reversed the ids differ."""
    model = BytePairModel(train_bpe(CORPUS, [50] * len(CORPUS), 420), fast=False)
    before = rows(model, CORPUS, 99)
    used = model.merges.keys != merging._NONE
    late = model.merges.made ^ np.uint64(0xFFFF << 32)
    made = np.where(used, late, model.merges.made)
    made.flags.writeable = False
    monkeypatch.setitem(model.__dict__, "merges", model.merges._replace(made=made))
    assert rows(model, CORPUS, 99) != before
