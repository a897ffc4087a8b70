"""CharacterLevelTokenizer: size met exactly, frequency first, offsets, and a true way back."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import TokenizerError
from domainformer.tokenizers import CharacterLevelTokenizer, SpecialTokens
from domainformer.tokenizers.language.character_level import spelled
from domainformer.tokenizers.language.unicode import (
    SCALARS,
    by_frequency,
    count_characters,
    unicode_order,
)

TEXT = "Größe und Größe: Ω漢字, 🐈 \t\n\u00a0"
SIZES = [(100, "unk"), (700, "bytes"), (700, "unk"), (3_000, "bytes")]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def made(request, tmp_path_factory):
    """A tokenizer, and what `AutoTokenizer` makes of its folder."""
    from transformers import AutoTokenizer

    size, unknown = request.param
    tokenizer = CharacterLevelTokenizer(size, [TEXT], unknown=unknown)
    folder = tokenizer.save_pretrained(tmp_path_factory.mktemp("characters") / "t")
    return tokenizer, AutoTokenizer.from_pretrained(folder, local_files_only=True), folder


def oracle(tokenizer, text):
    """Character by character, from the vocabulary alone."""
    vocab = tokenizer.backend.get_vocab()
    ids = []
    for char in text:
        letters = spelled(np.array([ord(char)], np.uint32))[0]
        if letters in vocab:
            ids.append(vocab[letters])
        elif tokenizer.unknown == "bytes":
            ids += [vocab[letter] for letter in letters]
        else:
            ids.append(vocab["<|unk|>"])
    return ids


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=40))
def test_ids_text_offsets_and_words(made, text):
    tokenizer, loaded, _ = made
    (encoding,) = tokenizer.encodings([text])
    assert encoding.ids == oracle(tokenizer, text)
    if tokenizer.unknown == "bytes" or not tokenizer.unknown_in(text):
        assert tokenizer.decode(encoding.ids) == text
    # Each character is a word, and all its ids point at it.
    assert [(begin, begin + 1) for begin in encoding.word_ids] == encoding.offsets
    assert sorted(set(encoding.word_ids)) == list(range(len(text)))
    batch = loaded(text, return_offsets_mapping=True)
    assert (batch["input_ids"], batch["offset_mapping"]) == (encoding.ids, encoding.offsets)
    assert batch.word_ids() == encoding.word_ids
    assert loaded.decode(encoding.ids) == tokenizer.decode(encoding.ids)


def test_size_is_exact_and_ids_are_dense(made):
    tokenizer, loaded, _ = made
    assert len(loaded) == len(tokenizer) == tokenizer.vocab_size in {size for size, _ in SIZES}
    assert sorted(tokenizer.backend.get_vocab().values()) == list(range(tokenizer.vocab_size))
    assert not any(char.isspace() for token in loaded.get_vocab() for char in token)


def test_frequent_characters_come_first():
    tokenizer = CharacterLevelTokenizer(100, ["bbb", "aa zz", "y"])
    vocab = tokenizer.backend.get_vocab()
    assert [vocab[char] for char in ("b", "a", "z", "Ġ", "y", "!")] == [3, 4, 5, 6, 7, 8]


def test_rare_characters_lose_their_place():
    text = "".join(chr(0x4E00 + index) * (300 - index) for index in range(300))
    small = CharacterLevelTokenizer(100, [text])
    assert (small.facts.kept, small.facts.distinct) == (97, 300)
    assert small.unknown_in(text)[0] == chr(0x4E00 + 97)
    assert small.facts.covered == sum(range(300, 203, -1))
    assert "97 of the text's 300 characters" in small.render()
    both = CharacterLevelTokenizer(512, [text], unknown="bytes")
    assert both.facts.kept == 512 - 2 - 256
    assert both.decode(both.encode(text + "\x00~")) == text + "\x00~"


def test_padding_truncation_and_masks(made):
    _, loaded, _ = made
    batch = loaded(["Gr", "Größe und"], padding=True, truncation=True, max_length=5)
    assert [len(row) for row in batch["input_ids"]] == [5, 5]
    assert batch["attention_mask"] == [[1, 1, 0, 0, 0], [1] * 5]
    assert batch["input_ids"][0][2:] == [loaded.pad_token_id] * 3


def test_what_looks_special_is_text(made):
    tokenizer, loaded, _ = made
    text = "<|endoftext|>"
    assert loaded(text)["input_ids"] == tokenizer.encode(text) == oracle(tokenizer, text)
    assert len(tokenizer.encode(text)) == len(text)
    parsed = CharacterLevelTokenizer(100, parse_special_tokens=True)
    assert parsed.encode(text) == [1]


def test_folder_comes_back(made):
    tokenizer, _, folder = made
    again = CharacterLevelTokenizer.from_pretrained(folder)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.unknown, again.facts) == (tokenizer.unknown, tokenizer.facts)
    assert again.characters == tokenizer.characters
    assert repr(again) == repr(tokenizer)


def test_the_default_treatment_is_declared():
    assert CharacterLevelTokenizer(511).unknown == "unk"
    whole = CharacterLevelTokenizer(512)
    assert whole.unknown == "bytes"
    assert "every text comes back" in whole.render()
    assert "does not come back" in CharacterLevelTokenizer(100).render()
    assert CharacterLevelTokenizer(100).special_tokens.unk == "<|unk|>"


def test_half_a_million_entries_are_fast():
    unicode_order()
    start = time.process_time()
    tokenizer = CharacterLevelTokenizer(500_000, [TEXT])
    used = time.process_time() - start
    assert tokenizer.vocab_size == 500_000
    assert not tokenizer.unknown_in("".join(map(chr, range(0x20, 0xD800))))
    assert used < 10, used  # about 1 s on a quiet machine


def test_texts_with_lone_surrogates_are_refused():
    with pytest.raises(TokenizerError, match=r"lone surrogate, U\+D83D"):
        CharacterLevelTokenizer(100, ["ok", "half \ud83d"])
    with pytest.raises(TokenizerError, match="lone surrogate"):
        CharacterLevelTokenizer(100).encode("\udc00")


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (99, {}, "99 entries cannot be made"),
        (500_001, {}, "500,001 entries"),
        (600.0, {}, "a whole number"),
        (600, {"texts": []}, "there is no text"),
        (257, {"unknown": "bytes"}, "no room for 'bytes'"),
        (600, {"unknown": "byte"}, "did you mean 'bytes'"),
        (600, {"special_tokens": SpecialTokens(mask="a")}, "spelled like a character"),
    ],
)
def test_settings_out_of_range(size, options, message):
    with pytest.raises(TokenizerError, match=message):
        CharacterLevelTokenizer(size, **options)


# ── which characters ─────────────────────────────────────────────────────────────────────────


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(st.text(max_size=30), max_size=4))
def test_counts_equal_the_slow_way(texts):
    slow = Counter("".join(texts))
    assert count_characters(texts) == slow
    assert by_frequency(slow) == [c for c, _ in sorted(slow.items(), key=lambda i: (-i[1], i[0]))]


def test_counts_of_long_texts_take_the_other_way():
    text = "abΩ🐈" * 10_000
    assert count_characters([text]) == Counter(text)


def test_order_has_each_scalar_once():
    order = unicode_order()
    assert len(order) == len(np.unique(order)) == SCALARS
    assert not ((order >= 0xD800) & (order < 0xE000)).any()
    where = {point: place for place, point in enumerate(order[:200_000].tolist())}
    assert where[ord("z")] < where[ord("\n")] < where[ord("é")] < where[ord("Ω")] < where[0x4E00]
    assert where[0x4E00] < where[0x01] < where[0xE000]
