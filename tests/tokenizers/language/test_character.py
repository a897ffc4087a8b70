"""CharacterTokenizer: exact both ways, equal to Hugging Face, clear where it cannot encode."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data import policy_characters
from domainformer.errors import ArtifactError, ConfigError, FingerprintError, TokenizerError
from domainformer.tokenizers import CharacterTokenizer
from domainformer.tokenizers.language import files

POLICIES = ("printable", "printable+newline+tab", "strict")
TREATMENTS = ("error", "replace", "drop")
TEXT = "  To be,\tor not\n\nto be? <|endoftext|> x \n"


def oracle(tokenizer, text):
    """Character by character."""
    ids = {char: index for index, char in enumerate(tokenizer.alphabet, start=1)}
    if tokenizer.unknown == "drop":
        return [ids[char] for char in text if char in ids]
    if tokenizer.unknown == "replace":
        return [ids.get(char, ids["?"]) for char in text]
    return [ids[char] for char in text]


def texts(policy="printable+newline+tab", **sizes):
    return st.text(st.sampled_from(policy_characters(policy)), **sizes)


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """A tokenizer and what `AutoTokenizer` makes of its folder, per policy and treatment."""
    from transformers import AutoTokenizer

    made = {}
    for policy in POLICIES:
        for unknown in TREATMENTS:
            tokenizer = CharacterTokenizer.ascii(policy, unknown=unknown)
            if unknown != "error":  # an alphabet in an order of its own, with gaps
                tokenizer = CharacterTokenizer("?] x-^\\a[", policy=policy, unknown=unknown)
            folder = tmp_path_factory.mktemp("saved") / "tokenizer"
            tokenizer.save_pretrained(folder)
            made[policy, unknown] = tokenizer, AutoTokenizer.from_pretrained(folder)
    return made


# ── round trips ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_text_comes_back_as_it_was(policy, data):
    text = data.draw(texts(policy))
    tokenizer = CharacterTokenizer.ascii(policy)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 0 not in tokenizer.encode(text)


@settings(max_examples=60, deadline=None)
@given(text=texts(min_size=1), other=st.text())
@pytest.mark.parametrize("unknown", ["replace", "drop"])
def test_encoding_equals_the_slow_way(unknown, text, other):
    tokenizer = CharacterTokenizer.fit([text], unknown=unknown)
    assert tokenizer.encode(text) == oracle(tokenizer, text)
    assert tokenizer.encode(text + other) == oracle(tokenizer, text + other)
    assert tokenizer.encode_array(other).dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_auto_tokenizer_gives_equal_ids_and_text(hugging_face, data):
    policy, unknown = data.draw(st.sampled_from(POLICIES)), data.draw(st.sampled_from(TREATMENTS))
    tokenizer, loaded = hugging_face[policy, unknown]
    text = data.draw(texts(policy) if unknown == "error" else st.text(max_size=30))
    ids = tokenizer.encode(text)
    assert loaded.encode(text) == ids
    assert loaded.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    "text", [TEXT, " ", "\n", "\t", "<|endoftext|>", "a  b", "\n\n \t\n", "'s"]
)
def test_blanks_and_what_looks_special_stay_text(hugging_face, text):
    tokenizer, loaded = hugging_face["printable+newline+tab", "error"]
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert loaded.encode(text) == loaded(text)["input_ids"] == ids
    assert tokenizer.backend.encode(text).ids == ids
    assert loaded.decode(ids) == tokenizer.decode(ids) == text


def test_text_would_become_special_without_the_setting(hugging_face):
    """The sabotage twin: the setting in tokenizer_config.json is what holds it."""
    tokenizer, loaded = hugging_face["printable+newline+tab", "error"]
    assert loaded.encode("<|endoftext|>", split_special_tokens=False) == [0]
    assert 0 not in loaded.encode("<|endoftext|>")
    assert tokenizer.eos_id == tokenizer.pad_id == loaded.eos_token_id == loaded.pad_token_id == 0
    assert len(loaded) == tokenizer.vocab_size == len(tokenizer.vocab)


def test_document_ends_are_spelt_or_left_out(hugging_face):
    tokenizer, loaded = hugging_face["printable+newline+tab", "error"]
    a, b = tokenizer.encode("a"), tokenizer.encode("b ")
    for ids in ([0, *a, 0, 0, *b, 0], [0], a, [*a, 0], []):
        for skip in (False, True):
            expected = loaded.decode(ids, skip_special_tokens=skip)
            assert tokenizer.decode(ids, skip_special_tokens=skip) == expected
    assert tokenizer.decode([*a, 0, *b]) == "a<|endoftext|>b "
    assert tokenizer.decode(np.array([*a, 0, *b]), skip_special_tokens=True) == "ab "


# ── fitting ───────────────────────────────────────────────────────────────────────────────────


def test_fit_sorts_the_distinct_characters_of_all_texts():
    tokenizer = CharacterTokenizer.fit(text for text in ["cab\n", "a b", ""])
    assert tokenizer.alphabet == ("\n", " ", "a", "b", "c")
    assert tokenizer.vocab == ["<|endoftext|>", "\n", " ", "a", "b", "c"]
    assert CharacterTokenizer.fit(["é?ba"], unknown="drop").alphabet == ("?", "a", "b")
    assert CharacterTokenizer.fit(["éba"], unknown="replace").alphabet == ("?", "a", "b")


def test_fingerprints_follow_the_ids():
    one = CharacterTokenizer("ab")
    assert one.fingerprint == CharacterTokenizer(["a", "b"]).fingerprint
    others = [CharacterTokenizer("ba"), CharacterTokenizer("abc")]
    others.append(CharacterTokenizer("ab", unknown="drop"))
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4


# ── files ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unknown", TREATMENTS)
def test_saved_and_loaded_tokenizers_are_equal(tmp_path, unknown):
    tokenizer = CharacterTokenizer.fit([TEXT], unknown=unknown)
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = CharacterTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.alphabet, loaded.policy, loaded.unknown) == (
        tokenizer.alphabet,
        tokenizer.policy,
        unknown,
    )
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)


def test_a_folder_is_replaced_only_on_request(tmp_path):
    CharacterTokenizer("ab").save_pretrained(tmp_path / "saved")
    with pytest.raises(ArtifactError, match="exists already"):
        CharacterTokenizer("abc").save_pretrained(tmp_path / "saved")
    CharacterTokenizer("abc").save_pretrained(tmp_path / "saved", overwrite=True)
    assert CharacterTokenizer.from_pretrained(tmp_path / "saved").vocab_size == 4


@pytest.mark.parametrize("name", files.FILES)
def test_a_damaged_folder_is_refused(tmp_path, name):
    folder = CharacterTokenizer("ab").save_pretrained(tmp_path / "saved")
    whole = (folder / name).read_text()
    (folder / name).write_text(whole.replace("a", "e", 1))
    with pytest.raises(ArtifactError, match="damaged"):
        CharacterTokenizer.from_pretrained(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match="missing"):
        CharacterTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alphabet": "ba"}, FingerprintError, "not the one that was saved"),
        ({"alphabet": "aa"}, ArtifactError, "more than once"),
        ({"unknown": "guess"}, ArtifactError, "guess"),
        ({"version": 9}, ArtifactError, "version 9"),
        ({"kind": "other"}, ArtifactError, "'other'"),
    ],
)
def test_a_changed_state_is_refused_even_without_a_manifest(tmp_path, change, error, message):
    CharacterTokenizer("ab").write_files(tmp_path)
    path = tmp_path / files.STATE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=message):
        CharacterTokenizer.read_files(tmp_path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no folder"):
        CharacterTokenizer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="incomplete"):
        CharacterTokenizer.from_pretrained(tmp_path)
    (tmp_path / files.STATE_FILE).write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        CharacterTokenizer.read_files(tmp_path)


# ── bad input ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text", ["ab\nac", "ab\na\N{LATIN SMALL LETTER E WITH ACUTE}", "ab\na\u2019"]
)
def test_an_unknown_character_is_named_with_its_place(text):
    with pytest.raises(TokenizerError) as caught:
        CharacterTokenizer("ab\n").encode(text)
    assert f"U+{ord(text[-1]):04X}" in caught.value.what
    assert caught.value.where == "line 2, column 2"
    assert caught.value.why is None
    with pytest.raises(TokenizerError, match="lacks 2 characters"):
        CharacterTokenizer("ab\n").encode(text + "zz")


def test_hugging_face_refuses_the_same_characters(hugging_face):
    _, loaded = hugging_face["printable", "error"]
    for text in ("é", "\n", "a\x00", "\u2028"):
        with pytest.raises(Exception, match="UNK"):
            loaded.encode(text)


def test_fit_names_the_text_that_a_policy_does_not_admit():
    with pytest.raises(TokenizerError, match="does not admit") as caught:
        CharacterTokenizer.fit(["fine", "two\nlines\r"])
    assert caught.value.where == "text 1, line 2, column 6"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alphabet": ""}, TokenizerError, "empty"),
        ({"alphabet": "aba"}, TokenizerError, "'a' more than once"),
        ({"alphabet": ["ab"]}, TokenizerError, "'ab' cannot be part"),
        ({"alphabet": "aé"}, TokenizerError, "entry 1"),
        ({"alphabet": "a\n", "policy": "printable"}, TokenizerError, "policy printable"),
        ({"alphabet": "a", "unknown": "replace"}, TokenizerError, r"lacks"),
        ({"alphabet": "a", "unknown": "dropp"}, ConfigError, "did you mean 'drop'"),
        ({"alphabet": "a", "policy": "strikt"}, ConfigError, "did you mean 'strict'"),
    ],
)
def test_what_is_no_alphabet_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        CharacterTokenizer(**arguments)
    with pytest.raises(TokenizerError, match="empty"):
        CharacterTokenizer.fit([])


@pytest.mark.parametrize(
    ("ids", "message"),
    [([1, 2, 5], "id 5 .*\n.*position 2"), ([-1], "id -1"), ([[1]], "flat"), ([0.5], "float")],
)
def test_what_is_no_id_is_refused(ids, message):
    with pytest.raises(TokenizerError, match=message):
        CharacterTokenizer("ab").decode(ids)


# ── real text ─────────────────────────────────────────────────────────────────────────────────


def test_real_text_comes_back(data_root):
    text = (data_root / "text" / "tinyshakespeare.txt").read_text()
    tokenizer = CharacterTokenizer.fit([text])
    ids = tokenizer.encode_array(text)
    assert (len(ids), tokenizer.vocab_size, int(ids.min())) == (1_115_394, 66, 1)
    assert tokenizer.decode(ids) == text
    assert np.array_equal(ids[:5000], oracle(tokenizer, text[:5000]))
