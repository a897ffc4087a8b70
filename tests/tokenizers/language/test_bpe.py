"""FastBPETrainer: equal to the Rust trainer fed plainly, exact both ways, clear where it cannot."""

import json
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.text import Document
from domainformer.errors import ArtifactError, DataError, FingerprintError, TokenizerError
from domainformer.tokenizers import FastBPETrainer, SpecialTokens, TrainedBPE
from domainformer.tokenizers.language import backed, bpe, streams
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

CORPUS = {
    "empty": "",
    "blanks": "  two  blanks\n\n\ttab \u00a0\u2003 ends ",
    "scripts": "Straße, ἀρχή, הַתְחָלָה, 人工知能, हिन्दी, ไทย",
    "emoji": "👩🏽‍🚀 🇧🇷 e\u0301 \u200d\u200b\ufeff",
    "control": "\x00\x01\x1b\x7f\x85\u2028\ue000\ufffe\U0010ffff",
    "special": "<|endoftext|> <|pad|> [MASK] Ġ▁ <|reserved_0|>",
}


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Small batches: handing them out to several cores costs more than it gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


def words(count, seed=0):
    """Texts with many different words."""
    rng = random.Random(seed)
    return [
        " ".join("".join(rng.choices("abcdefghié漢", k=rng.randint(1, 9))) for _ in range(80))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def trained():
    return FastBPETrainer(5_000).train([*words(30), *words(30), *CORPUS.values()])


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    return trained.save_pretrained(tmp_path_factory.mktemp("bpe") / "tokenizer")


@pytest.fixture(scope="module")
def loaded(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def plainly(texts, size, specials):
    """The oracle: the Rust trainer, fed text by text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def model_of(tokenizer):
    return json.loads(tokenizer.to_str())["model"]


# ── the same as the plain trainer, however the text arrives ──────────────────────────────────


def test_training_equals_the_rust_trainer_fed_plainly(trained):
    texts = [*words(30), *words(30), *CORPUS.values()]
    plain = plainly(texts, 5_000, trained.special_tokens.tokens)
    assert model_of(trained.backend)["merges"] == model_of(plain)["merges"]
    assert model_of(trained.backend)["vocab"] == model_of(plain)["vocab"]


def test_lists_streams_documents_and_files_give_equal_tokenizers(tmp_path, monkeypatch):
    texts = words(12)
    monkeypatch.setattr(streams, "PIECE", 40)
    monkeypatch.setattr(streams, "BATCH", 300)
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02}.txt").write_text(text, "utf-8")
    trainer = FastBPETrainer(5_000)
    sources = {
        "list": texts,
        "stream": iter(texts),
        "documents": [Document("d", text) for text in texts],
        "folder": tmp_path,
        "pattern": tmp_path / "*.txt",
        "mixed": [*texts[:5], *sorted(tmp_path.glob("*.txt"))[5:]],
    }
    made = {name: trainer.train(source) for name, source in sources.items()}
    assert len({item.fingerprint for item in made.values()}) == 1
    assert {item.facts.texts for item in made.values()} == {12}


def test_training_twice_gives_equal_tokenizers(trained):
    again = FastBPETrainer(5_000).train([*words(30), *words(30), *CORPUS.values()])
    assert again.fingerprint == trained.fingerprint
    other = FastBPETrainer(5_000).train(words(30, seed=1))
    assert other.fingerprint != trained.fingerprint


SPLITTER = pre_tokenizers.ByteLevel(add_prefix_space=False)
MIXED = st.text(st.sampled_from("ab é漢1,'s  \n\t\r\x1c\x85\u00a0\u2003\u200b"), max_size=60)


def cut_words(parts):
    return [word for part in parts for word, _ in SPLITTER.pre_tokenize_str(part)]


@settings(max_examples=100, deadline=None)
@given(text=MIXED, size=st.integers(1, 12))
def test_pieces_have_the_words_of_the_whole(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PIECE", size)
        parts = list(streams.pieces(text))
    assert "".join(parts) == text
    assert cut_words(parts) == cut_words([text])


def test_pieces_cut_anywhere_would_have_other_words():
    """The sabotage twin: a cut inside a row of blanks changes the words."""
    assert cut_words(["a ", "  b"]) != cut_words(["a   b"])


@pytest.mark.parametrize("before", [None, "true", "false"])
def test_the_environment_is_as_it_was(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    else:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    seen = []
    FastBPETrainer(5_000).train(
        words(2), progress=lambda now: seen.append(os.environ.get("TOKENIZERS_PARALLELISM"))
    )
    assert seen[0] == (before or "true")  # counting
    assert seen[1] == "false"  # merging
    with pytest.raises(TokenizerError):
        FastBPETrainer(5_000).train([1])
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


# ── size ─────────────────────────────────────────────────────────────────────────────────────


def test_the_size_is_exact_where_the_text_gives_it():
    full = FastBPETrainer(5_000, min_frequency=1).train(words(150))
    assert (full.vocab_size, full.is_exact, full.facts.shortfall) == (5_000, True, None)
    assert full.facts.learned == 5_000 - 256 - 2


def test_a_small_text_says_what_it_gives():
    short = FastBPETrainer(5_000).train(["low lower lowest"] * 3)
    assert not short.is_exact
    assert short.facts.shortfall.startswith("the text cannot give 5,000 entries: after")
    assert f"after {short.vocab_size:,} " in short.facts.shortfall
    assert short.facts.shortfall in short.render()
    with pytest.raises(TokenizerError, match="cannot give 5,000 entries"):
        FastBPETrainer(5_000, when_short="error").train(["low lower lowest"])


def test_reserved_entries_fill_up_and_no_text_makes_them(tmp_path):
    texts = ["low lower lowest <|reserved_0|>"] * 3
    short = FastBPETrainer(5_000).train(texts)
    full = FastBPETrainer(5_000, when_short="reserve").train(texts)
    assert full.is_exact
    assert full.facts.reserved == 5_000 - short.vocab_size
    for text in (*texts, *CORPUS.values()):
        assert full.encode(text) == short.encode(text)
        assert max(full.encode(text), default=0) < short.vocab_size
    again = TrainedBPE.from_pretrained(full.save_pretrained(tmp_path / "full"))
    assert again.fingerprint == full.fingerprint


def test_reserved_entries_leave_a_special_token_of_that_name_alone():
    special = SpecialTokens(extra=("<|reserved_1|>",))
    made = FastBPETrainer(5_000, special_tokens=special, when_short="reserve").train(["a b"])
    assert made.is_exact
    assert sorted(made.backend.get_vocab().values()) == list(range(5_000))
    assert made.backend.token_to_id("<|reserved_1|>") == 2


def test_longest_token_is_held():
    text = ["=" * 40 + " internationalisation"] * 4
    kept = FastBPETrainer(5_000, max_token_length=8).train(text)
    assert max(map(len, set(kept.backend.get_vocab()) - set(kept.special_tokens.tokens))) <= 8


# ── exact both ways ──────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back_and_offsets_point_at_it(trained, text):
    (encoding,) = trained.encodings([text])
    assert trained.decode(encoding.ids) == text
    covered = set()
    for begin, end in encoding.offsets:
        covered.update(range(begin, end))
    assert covered == set(range(len(text)))


@pytest.mark.parametrize("name", CORPUS)
def test_auto_tokenizer_gives_equal_ids_text_and_offsets(trained, loaded, name):
    text = CORPUS[name]
    batch = loaded(text, return_offsets_mapping=True)
    (encoding,) = trained.encodings([text])
    assert batch["input_ids"] == encoding.ids
    assert loaded.decode(batch["input_ids"]) == trained.decode(encoding.ids) == text
    assert batch["offset_mapping"] == encoding.offsets
    assert batch.word_ids() == encoding.word_ids
    assert trained.to_hf()(text)["input_ids"] == encoding.ids


def test_loaded_knows_the_special_tokens(trained, loaded):
    assert (loaded.pad_token, loaded.eos_token, loaded.bos_token) == (
        "<|pad|>",
        "<|endoftext|>",
        "<|endoftext|>",
    )
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (0, 1, trained.vocab_size)
    batch = loaded(["a", "a bb ccc ddd eee"], padding=True, truncation=True, max_length=6)
    assert len(set(map(len, batch["input_ids"]))) == 1
    assert batch["attention_mask"][0].count(0) == batch["input_ids"][0].count(0) > 0


def test_text_becomes_special_only_where_it_was_asked_for(tmp_path):
    from transformers import AutoTokenizer

    parsed = FastBPETrainer(
        5_000, parse_special_tokens=True, special_tokens=SpecialTokens(extra=("<|user|>",))
    ).train(words(3))
    assert parsed.encode("<|user|>") == [2]
    loaded = AutoTokenizer.from_pretrained(parsed.save_pretrained(tmp_path / "p"))
    assert loaded("<|user|>")["input_ids"] == [2]
    assert loaded.extra_special_tokens == ["<|user|>"]
    plain = FastBPETrainer(5_000).train(words(3))
    assert len(plain.encode("<|endoftext|>")) > 1


def test_no_merge_makes_a_special_token():
    with pytest.raises(TokenizerError, match="looks like a word"):
        FastBPETrainer(5_000, special_tokens=SpecialTokens(mask="MASK"))


# ── progress, files, errors ──────────────────────────────────────────────────────────────────


def test_progress_tells_what_was_read(monkeypatch):
    monkeypatch.setattr(streams, "BATCH", 1_000)
    told = []
    texts = words(20)
    FastBPETrainer(5_000).train(iter(texts), progress=told.append)
    stages = [item.stage for item in told]
    assert stages.count("reading") > 3
    assert stages[-2:] == ["merging", "done"]
    assert told[-1].texts == 20
    assert told[-1].characters == sum(map(len, texts))
    assert [item.characters for item in told] == sorted(item.characters for item in told)


def test_folder_comes_back(trained, folder):
    again = TrainedBPE.from_pretrained(folder)
    assert again.fingerprint == trained.fingerprint
    assert (again.facts, again.special_tokens) == (trained.facts, trained.special_tokens)


def test_a_changed_folder_is_refused(trained, tmp_path):
    folder = trained.save_pretrained(tmp_path / "t")
    path = folder / "tokenizer.json"
    path.write_text(
        path.read_text("utf-8").replace('"fuse_unk": false', '"fuse_unk": true'), "utf-8"
    )
    with pytest.raises(ArtifactError, match="damaged"):
        TrainedBPE.from_pretrained(folder)
    with pytest.raises(FingerprintError, match="not made together"):
        TrainedBPE.read_files(folder)
    (folder / backed.STATE_FILE).write_text("{}", "utf-8")
    with pytest.raises(ArtifactError, match="cannot be read"):
        TrainedBPE.read_files(folder)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], TokenizerError, "no text"),
        ("one text", TokenizerError, "this is one text"),
        (["good", "bad \ud800"], TokenizerError, r"text 1 holds a lone surrogate, U\+D800"),
        (["good", 7], TokenizerError, "text 1 is int"),
        (7, TokenizerError, "int is no source of texts"),
    ],
)
def test_what_is_no_text_is_told(texts, error, message):
    with pytest.raises(error, match=message):
        FastBPETrainer(5_000).train(texts)


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"one\ntwo\nna\xefve")
    for part in (tmp_path / "latin.txt", tmp_path / "nothing", tmp_path / "*.md"):
        with pytest.raises(DataError):
            FastBPETrainer(5_000).train(part)


MANY = SpecialTokens(extra=tuple(f"<|{number}|>" for number in range(4_800)))


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (4_999, {}, "4,999 entries cannot be made"),
        (100_001, {}, "100,001 entries"),
        ("5000", {}, "a whole number, but is '5000'"),
        (5_000, {"special_tokens": MANY}, "no room for the special tokens"),
        (5_000, {"min_frequency": 0}, "min_frequency is at least 1"),
        (5_000, {"max_token_length": 0}, "max_token_length is at least 1"),
        (5_000, {"when_short": "rserve"}, "did you mean 'reserve'"),
    ],
)
def test_settings_out_of_range(size, options, message):
    with pytest.raises(TokenizerError, match=message):
        FastBPETrainer(size, **options)


def test_encoding_and_decoding_errors(trained):
    with pytest.raises(TokenizerError, match="text 0 holds a lone surrogate"):
        trained.encode("a\udfff")
    with pytest.raises(TokenizerError, match="a list of texts"):
        trained.encode_batch("abc")
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        trained.decode([0, trained.vocab_size])
    assert trained.decode([1, 1], skip_special_tokens=True) == ""


@pytest.mark.parametrize("token", ["", "two words", "tab\t", "\ud800", "\x00"])
def test_special_tokens_are_words(token):
    with pytest.raises(TokenizerError, match="cannot be a special token"):
        SpecialTokens(pad=token)
    with pytest.raises(TokenizerError, match="there twice"):
        SpecialTokens(extra=("<|x|>", "<|x|>"))
    assert bpe.added(["<s>"])[0].special
    assert SpecialTokens(extra="<|x|>").extra == ("<|x|>",)
