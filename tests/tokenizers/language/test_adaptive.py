"""AdaptiveTokenizer: which tier is chosen and why, refusals, files and the cache."""

from __future__ import annotations

import json

import pytest

from domainformer.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DomainformerError,
    FingerprintError,
    TokenizerError,
)
from domainformer.tokenizers import CharacterTokenizer
from domainformer.tokenizers.language import adaptive_tiers, pretrained
from domainformer.tokenizers.language.adaptive import AdaptiveTokenizer
from domainformer.tokenizers.language.adaptive_files import open_text_tokenizer
from domainformer.tokenizers.language.text_cache import content_hash
from domainformer.tokenizers.language.tiers import TIERS, Choice
from domainformer.tokenizers.language.validator import TokenizerValidator
from domainformer.tokenizers.language.view import view_of

from .samples import TEXTS, byte_level, hub_gpt, hub_python

PROBE = "to be, naïve 🐈 or not\n"


@pytest.fixture(scope="module")
def many():
    """Texts of enough different words for a BPE of 5,000 entries."""
    import random

    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(generator.choices(letters, k=generator.randint(4, 8))) for _ in range(1800)]
    return [" ".join(generator.choices(words, k=30)) for _ in range(300)]


@pytest.fixture
def folder(tmp_path):
    """A model's folder: a tokenizer of 300 entries, and a configuration of 304 rows."""
    path = tmp_path / "model"
    hub_gpt().save_pretrained(path)
    config = {"model_type": "gpt2", "vocab_size": 304, "n_embd": 8}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def no_hub(monkeypatch):
    """A hub that cannot be reached and an empty cache; tells what was asked."""
    import transformers

    asked = []

    def raising(name, *, local_files_only, **options):
        asked.append((name, local_files_only))
        raise OSError("We couldn't connect to 'https://hub' to load the files")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", raising)
    return asked


def verdicts(choice):
    return {one.tier: one.verdict for one in choice.considered}


# ── the choice ───────────────────────────────────────────────────────────────────────────────


def test_a_bpe_where_size_and_text_allow(many):
    tokenizer = AdaptiveTokenizer.fit(many, 5_000)
    choice = tokenizer.choice
    assert verdicts(choice) == {
        "pretrained": "not asked for",
        "bpe": "chosen",
        "characters": "not needed",
        "own": "not asked for",
    }
    assert len(tokenizer) == choice.size == 5_000
    assert "the text gives 5,000 entries" in choice.reason
    assert tokenizer.decode(tokenizer.encode(PROBE)) == PROBE
    assert tokenizer.encode_batch([PROBE, "to"]) == [
        tokenizer.encode(PROBE),
        tokenizer.encode("to"),
    ]
    assert tokenizer.special_id("pad") == tokenizer.to_hf().pad_token_id


@pytest.mark.parametrize(
    ("size", "why"),
    [(4_999, "5,000 to 100,000"), (6_000, "the text cannot give 6,000"), (100_001, "to 100,000")],
)
def test_characters_where_a_bpe_cannot(size, why):
    choice = AdaptiveTokenizer.fit(list(TEXTS), size).choice
    assert (choice.tier, choice.size) == ("characters", size)
    assert why in choice.why_not("bpe")
    assert choice.why_not("characters") is None


def test_no_tier_for_an_impossible_size():
    with pytest.raises(TokenizerError, match="no tier gives.*\n.*bpe: .*; characters: "):
        AdaptiveTokenizer.fit(list(TEXTS), 99)
    with pytest.raises(TokenizerError, match="no tier gives"):
        AdaptiveTokenizer.fit(list(TEXTS), 5_000, tier="bpe")


def test_a_size_suggests_and_never_decides(no_hub):
    choice = AdaptiveTokenizer.fit(list(TEXTS), 384).choice
    assert choice.tier == "characters"
    assert [one.split(":")[0] for one in choice.suggestions] == ["google/byt5-small"]
    assert "a size alone does not decide" in choice.why_not("pretrained")
    assert no_hub == []  # nothing was looked for
    assert AdaptiveTokenizer.fit(list(TEXTS), 333).choice.suggestions == ()


# ── pretrained ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [None, 300, 304])
def test_a_named_model_with_its_tokens_or_its_rows(folder, size):
    tokenizer = AdaptiveTokenizer.fit(list(TEXTS), size, model=folder)
    assert tokenizer.choice.tier == "pretrained"
    assert (len(tokenizer), tokenizer.choice.rows, tokenizer.model_rows) == (300, 304, 304)
    assert tokenizer.encode(PROBE) == hub_gpt()(PROBE)["input_ids"]
    assert "found in the folder: 300 tokens, 304 rows" in tokenizer.choice.reason


def test_a_named_model_of_another_size_is_an_error_or_falls_back(folder):
    with pytest.raises(TokenizerError, match="expected were 7,000.*304 rows") as caught:
        AdaptiveTokenizer.fit(list(TEXTS), 7_000, model=folder)
    assert "fallback=True (--fallback) for the next tier, bpe" in caught.value.next_step
    choice = AdaptiveTokenizer.fit(list(TEXTS), 7_000, model=folder, fallback=True).choice
    assert choice.tier == "characters"
    assert "expected were 7,000" in choice.why_not("pretrained")


def test_more_tokens_than_rows_is_told(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 299}))
    choice = AdaptiveTokenizer.fit(list(TEXTS), model=folder).choice
    assert "1 of its ids have no row" in choice.notes[0]


def test_the_hub_is_asked_after_the_cache_and_the_next_tier_offered(no_hub):
    with pytest.raises(TokenizerError, match="hub cannot be reached") as caught:
        AdaptiveTokenizer.fit(list(TEXTS), 600, model="openai-community/gpt2")
    assert no_hub == [("openai-community/gpt2", True), ("openai-community/gpt2", False)]
    assert "for the next tier, characters, from your texts" in caught.value.next_step
    with pytest.raises(TokenizerError, match="the hub was not asked"):
        AdaptiveTokenizer.fit(list(TEXTS), model="openai-community/gpt2", offline=True)
    assert no_hub[2:] == [("openai-community/gpt2", True)]
    taken = AdaptiveTokenizer.fit(list(TEXTS), 600, model="openai-community/gpt2", fallback=True)
    assert taken.choice.tier == "characters"
    assert "cannot be reached" in taken.choice.why_not("pretrained")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("You are trying to access a gated repo."), "asks for terms"),
        (OSError("x is not a local folder and is not a valid model identifier"), "does not know"),
        (ValueError("please pass trust_remote_code=True"), "code of its own"),
        (ImportError("needs sentencepiece"), "cannot be loaded"),
    ],
)
def test_each_refusal_of_the_hub_is_told_apart(monkeypatch, error, message):
    import transformers

    def raising(name, *, local_files_only, **options):
        raise OSError("not here") if local_files_only else error

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", raising)
    with pytest.raises(TokenizerError, match=message):
        pretrained.load_pretrained("openai-comunity/gpt2")


def test_a_known_name_is_measured_and_a_difference_told(monkeypatch):
    import transformers

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: hub_gpt())
    monkeypatch.setattr(pretrained, "_rows", lambda name, local: None)
    found = pretrained.load_pretrained("openai-community/gpt2")
    assert (found.origin, found.size, found.rows) == ("local cache", 300, 50_257)
    assert "KNOWN_TOKENIZERS has 50,257 tokens, this one 300" in found.notes


# ── own ──────────────────────────────────────────────────────────────────────────────────────


def test_an_own_file(tmp_path):
    byte_level().save(str(tmp_path / "mine.json"))
    tokenizer = AdaptiveTokenizer.fit(list(TEXTS), own=tmp_path / "mine.json")
    assert (tokenizer.choice.tier, len(tokenizer)) == ("own", 300)
    with pytest.raises(TokenizerError, match="does not have the size"):
        AdaptiveTokenizer.fit(list(TEXTS), 500, own=tmp_path / "mine.json")
    (tmp_path / "broken.json").write_text("prose")
    with pytest.raises(TokenizerError, match="no tokenizer that is known"):
        AdaptiveTokenizer.fit(list(TEXTS), 600, own=tmp_path / "broken.json")
    choice = AdaptiveTokenizer.fit(
        list(TEXTS), 600, own=tmp_path / "broken.json", fallback=True
    ).choice
    assert verdicts(choice)["own"] == "refused"
    assert choice.tier == "characters"


def test_what_breaks_its_promises_is_not_chosen(monkeypatch):
    class Forgetful(CharacterTokenizer):
        def decode(self, ids, **options):
            return "?"

    found = adaptive_tiers.Found(Forgetful.ascii(), "")
    monkeypatch.setattr(adaptive_tiers, "_characters", lambda asked: found)
    with pytest.raises(TokenizerError, match="breaks 1 of its promises"):
        AdaptiveTokenizer.fit(list(TEXTS), 600)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size of the vocabulary is missing"),
        ({"vocab_size": 0}, "at least 1"),
        ({"vocab_size": "600"}, "a whole number"),
        ({"vocab_size": 600, "pattern": "o200k"}, "own="),
        ({"vocab_size": 6_000, "min_frequency": 0}, "min_frequency"),
        ({"vocab_size": 600, "tier": "bpee"}, "no tier 'bpee'"),
        ({"vocab_size": 600, "tier": "own"}, "needs own="),
        ({"vocab_size": 600, "tier": "bpe", "model": "gpt2"}, "of no use"),
        ({"model": "a", "own": "b"}, "exclude each other"),
        ({"model": "a", "special_tokens": {"pad": "<p>"}}, "its own special tokens"),
        ({"vocab_size": 600, "special_tokens": {"end": "<|p|>"}}, "no special token 'end'"),
    ],
)
def test_arguments_that_make_no_sense(options, message):
    with pytest.raises((ConfigError, TokenizerError), match=message):
        AdaptiveTokenizer.fit(list(TEXTS), **options)


def test_a_text_that_cannot_be_read_is_the_fault_of_no_tier(tmp_path):
    (tmp_path / "empty.txt").touch()
    for texts, message in ((tmp_path, "is empty"), ("to be or not to be " * 50, r"\[text\]")):
        with pytest.raises(DataError, match=message):
            AdaptiveTokenizer.fit(texts, 600)


# ── files ────────────────────────────────────────────────────────────────────────────────────


def of_every_kind(many, tmp_path):
    hub_python().save_pretrained(tmp_path / "python")
    lines = (b"%s %d" % (__import__("base64").b64encode(bytes([b])), b) for b in range(256))
    (tmp_path / "mine.tiktoken").write_bytes(b"\n".join(lines))
    yield AdaptiveTokenizer.fit(many, 5_000)
    yield AdaptiveTokenizer.fit(many, 700, special_tokens={"mask": "[MASK]"})
    yield AdaptiveTokenizer.fit(many, model=tmp_path / "python")
    tokens = {"eos": "<|end|>", "pad": "<|pad|>"}
    own = tmp_path / "mine.tiktoken"
    yield AdaptiveTokenizer.fit(many, own=own, pattern="cl100k", special_tokens=tokens)


def test_every_kind_is_saved_and_read(many, tmp_path):
    from transformers import AutoTokenizer

    for number, before in enumerate(of_every_kind(many, tmp_path)):
        path = before.save_pretrained(tmp_path / f"saved{number}")
        after = AdaptiveTokenizer.from_pretrained(path)
        assert after.choice == before.choice
        assert after.fingerprint == before.fingerprint
        assert after.encode(PROBE) == before.encode(PROBE)
        assert after.view.specials() == before.view.specials()
        hub = AutoTokenizer.from_pretrained(path)
        text = PROBE + " <|endoftext|> <|end|>"
        assert hub(text, add_special_tokens=False)["input_ids"] == before.encode(text)
        opened, rows = open_text_tokenizer(path)
        assert view_of(opened).encode(text) == before.encode(text)
        assert rows == before.choice.rows
        assert TokenizerValidator.validate(opened, len(before), rows=rows).passed
        with pytest.raises(ArtifactError, match="exists already"):
            before.save_pretrained(path)


def test_a_choice_survives_json():
    choice = AdaptiveTokenizer.fit(list(TEXTS), 384).choice
    assert Choice.from_json(json.loads(json.dumps(choice.to_json()))) == choice
    assert [one.tier for one in choice.considered] == list(TIERS)


def test_damage_is_found(tmp_path):
    saved = AdaptiveTokenizer.fit(list(TEXTS), 600)
    path = saved.save_pretrained(tmp_path / "one")
    other = AdaptiveTokenizer.fit(["Ωmega"], 600).save_pretrained(tmp_path / "two")
    (path / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    with pytest.raises((ArtifactError, FingerprintError)):
        AdaptiveTokenizer.from_pretrained(path)
    with pytest.raises(ArtifactError):
        AdaptiveTokenizer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(DomainformerError):
        open_text_tokenizer(tmp_path / "nothing")


def test_any_folder_is_opened(folder, tmp_path):
    opened, rows = open_text_tokenizer(folder)
    assert (len(opened), rows) == (300, 304)
    plain = CharacterTokenizer.fit(TEXTS)
    opened, rows = open_text_tokenizer(plain.save_pretrained(tmp_path / "characters"))
    assert (opened.alphabet, rows) == (plain.alphabet, None)
    trained = AdaptiveTokenizer.fit(list(TEXTS), 600).tokenizer
    opened, _ = open_text_tokenizer(trained.save_pretrained(tmp_path / "trained"))
    assert opened.fingerprint == trained.fingerprint
    byte_level().save(str(tmp_path / "tokenizer.json"))
    assert len(open_text_tokenizer(tmp_path)[0]) == 300
    assert len(open_text_tokenizer(tmp_path / "tokenizer.json")[0]) == 300


# ── the cache ────────────────────────────────────────────────────────────────────────────────


def test_equal_texts_are_trained_on_once(many, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = AdaptiveTokenizer.fit(many, 5_000, cache=cache)
    assert "kept in the cache" in first.choice.notes[0]
    monkeypatch.setattr(adaptive_tiers.FastBPETrainer, "train", None)
    again = AdaptiveTokenizer.fit(iter(many), 5_000, cache=cache)
    assert "from the cache" in again.choice.notes[0]
    assert again.fingerprint == first.fingerprint
    # Each of these has to train, which is not possible now.
    for texts, size, options in (
        ([*many, "more"], 5_000, {}),
        (many[::-1], 5_000, {}),
        (many, 5_001, {}),
        (many, 5_000, {"min_frequency": 3}),
        (many, 5_000, {"special_tokens": {"pad": "<|p|>"}}),
    ):
        with pytest.raises(TypeError):
            AdaptiveTokenizer.fit(texts, size, cache=cache, **options)


def test_a_damaged_entry_is_mended(tmp_path):
    first = AdaptiveTokenizer.fit(list(TEXTS), 600, cache=tmp_path)
    entry = next(tmp_path.iterdir())
    (entry / "tokenizer.json").write_text("{}")
    again = AdaptiveTokenizer.fit(list(TEXTS), 600, cache=tmp_path)
    assert "mended" in again.choice.notes[0]
    assert again.fingerprint == first.fingerprint
    assert "from the cache" in AdaptiveTokenizer.fit(TEXTS, 600, cache=tmp_path).choice.notes[0]


def test_content_hashes_see_texts_bounds_and_order_and_not_where_they_are(tmp_path):
    hashes = [content_hash(texts) for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])]
    assert len(set(hashes)) == 4
    (tmp_path / "a.txt").write_text("ab")
    (tmp_path / "b.txt").write_text("c")
    assert content_hash(tmp_path) == hashes[0]
    tokenizer = AdaptiveTokenizer.fit(str(tmp_path), 600)
    assert tokenizer.encode("ab") == AdaptiveTokenizer.fit(["ab", "c"], 600).encode("ab")
