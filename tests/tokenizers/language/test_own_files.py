"""A user's own files: ids as those of the libraries that wrote them, and clear refusals."""

from __future__ import annotations

import base64
import itertools
import json
import random

import pytest

from domainformer.errors import ArtifactError, DataError, DomainformerError, TokenizerError
from domainformer.tokenizers.language.own_files import open_own_file
from domainformer.tokenizers.language.tiktoken_file import PATTERNS
from domainformer.tokenizers.language.unicode_corpus import UNICODE_CORPUS
from domainformer.tokenizers.language.validator import TokenizerValidator

from .samples import TEXTS, byte_level, hub_gpt, word_pieces

CORPUS = list(UNICODE_CORPUS.values())


def ids_of(own, text):
    return own.to_hf()(text, add_special_tokens=False)["input_ids"]


# ── tokenizer.json ───────────────────────────────────────────────────────────────────────────


def test_a_tokenizer_json_is_taken_as_it_is(tmp_path):
    file = tmp_path / "any_name.json"
    trained = word_pieces()  # once: its trainer does not give equal ids twice
    trained.save(str(file))
    own = open_own_file(file)
    assert own.kind == "tokenizer.json"
    assert own.specials["mask"] == "[MASK]"
    assert "by their names" in own.notes[0]
    assert ids_of(own, TEXTS[0]) == trained.encode(TEXTS[0]).ids


def test_a_folder_says_the_roles_itself(tmp_path):
    hub_gpt().save_pretrained(tmp_path)
    own = open_own_file(tmp_path)
    assert (own.specials, own.notes) == ({"eos": "<|endoftext|>", "pad": "<pad>"}, ())
    assert own.to_hf().pad_token_id == hub_gpt().pad_token_id


# ── SentencePiece ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["unigram", "bpe", "bpe with bytes", "bare unigram"])
def pieces(request, tmp_path_factory):
    import sentencepiece

    folder = tmp_path_factory.mktemp("pieces")
    options = {
        "unigram": {"model_type": "unigram"},
        "bpe": {"model_type": "bpe"},
        "bpe with bytes": {
            "model_type": "bpe",
            "byte_fallback": True,
            "vocab_size": 400,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
        },
        "bare unigram": {"model_type": "unigram", "add_dummy_prefix": False, "pad_id": 3},
    }[request.param]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / "m"),
        **({"vocab_size": 75, "hard_vocab_limit": False, "minloglevel": 2} | options),
    )
    return folder / "m.model", sentencepiece.SentencePieceProcessor(str(folder / "m.model"))


def test_a_sentencepiece_model_gives_its_ids(pieces):
    path, processor = pieces
    own = open_own_file(path)
    assert own.kind == "SentencePiece model"
    assert own.backend.get_vocab_size() == processor.get_piece_size()
    assert own.specials["unk"] == "<unk>"
    hub = own.to_hf()
    words = " ".join(TEXTS).split()
    generator = random.Random(0)
    for _ in range(50):
        text = " ".join(generator.choices(words, k=6))
        assert ids_of(own, text) == processor.encode(text)
        assert hub.decode(ids_of(own, text)) == processor.decode(processor.encode(text))
    differing = [t for t in CORPUS if ids_of(own, t) != processor.encode(t)]
    told = own.notes[0]
    assert told.startswith(f"{len(differing) or len(CORPUS)} ")
    assert ("other ids" in told) == bool(differing)
    assert TokenizerValidator.validate(hub).passed


def test_a_wrong_translation_is_told(pieces, monkeypatch):
    from domainformer.tokenizers.language import sentencepiece_file

    monkeypatch.setattr(sentencepiece_file, "_normalizer", lambda spec: None)
    try:
        told = open_own_file(pieces[0]).notes[0]
    except TokenizerError as error:  # most of its ids would be wrong
        told = str(error)
    assert "other ids" in told


# ── tiktoken ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ranks():
    """Bytes, then merges learned in the plainest way."""
    found = {bytes([byte]): byte for byte in range(256)}
    words = [word.encode() for text in TEXTS for word in text.replace(" ", "  ").split(" ")]
    parts = [[bytes([byte]) for byte in b" " + word] for word in words if word]
    for _ in range(60):
        pairs = [pair for word in parts for pair in itertools.pairwise(word)]
        best = max(sorted(set(pairs)), key=pairs.count)
        found[best[0] + best[1]] = len(found)
        for word in parts:
            for i in range(len(word) - 1, 0, -1):
                if tuple(word[i - 1 : i + 1]) == best:
                    word[i - 1 : i + 1] = [best[0] + best[1]]
    return found


@pytest.fixture
def rank_file(ranks, tmp_path):
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    path = tmp_path / "mine.tiktoken"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("name", PATTERNS)
def test_a_tiktoken_file_gives_its_ids(ranks, rank_file, name):
    tiktoken = pytest.importorskip("tiktoken")
    oracle = tiktoken.Encoding(
        "mine", pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={}
    )
    own = open_own_file(rank_file, pattern=name)
    for text in [*CORPUS, *TEXTS]:
        assert own.backend.encode(text).ids == oracle.encode(text), text
    roles = {"eos": "<|end|>", "pad": "<|end|>"}
    hub = open_own_file(rank_file, pattern=name, special_tokens=roles).to_hf()
    assert (len(hub), hub.eos_token_id) == (len(ranks) + 1, len(ranks))
    assert TokenizerValidator.validate(hub, len(ranks) + 1).passed


def test_the_patterns_are_those_of_tiktoken():
    """Ours are without possessive quantifiers, which `tokenizers` reads otherwise."""
    regex = pytest.importorskip("regex")
    public = pytest.importorskip("tiktoken_ext.openai_public")
    import inspect

    source = inspect.getsource(public)
    assert "\\p{N}{1,3}" in source
    theirs = public.r50k_pat_str
    for text in [*CORPUS, *TEXTS]:
        assert regex.findall(PATTERNS["r50k"], text) == regex.findall(theirs, text)


def test_a_tiktoken_file_needs_a_pattern(rank_file):
    with pytest.raises(TokenizerError, match="cut into words.*\n.*316 ranks"):
        open_own_file(rank_file)
    with pytest.raises(TokenizerError, match="no regular expression"):
        open_own_file(rank_file, pattern="(")


# ── vocabulary and merges ────────────────────────────────────────────────────────────────────


def test_a_vocabulary_with_merges(tmp_path):
    tokenizer = byte_level()
    tokenizer.model.save(str(tmp_path))
    for path in (tmp_path, tmp_path / "vocab.json"):
        own = open_own_file(path)
        assert own.kind == "vocabulary and merges"
        assert [ids_of(own, t) for t in CORPUS] == [
            tokenizer.encode(t, add_special_tokens=False).ids for t in CORPUS
        ]
        assert own.specials["pad"] == "<pad>"


# ── refusals ─────────────────────────────────────────────────────────────────────────────────


def damaged(folder, name):
    path = folder / name
    if name == "merges":
        byte_level().model.save(str(folder))
        (folder / "merges.txt").write_text("#version: 0.2\nzz qq\n")
        return folder
    content = {
        "picture.model": b"\x89PNG\r\n\x00\x00",
        "tokenizer.json": b'{"model": {"type": "Nothing"}}',
        "lonely.json": b'{"a": 0}',
        "some.tiktoken": b"IQ== 0\nIg== 1\n",
        "broken.tiktoken": b"IQ== 0\n??? 1\n",
        "prose.txt": b"to be or not to be",
        "empty": b"",
    }[name]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("picture.model", "no SentencePiece model"),
        ("tokenizer.json", "cannot be read"),
        ("lonely.json", "no merges.txt beside it"),
        ("some.tiktoken", "0x00 has no rank"),
        ("broken.tiktoken", "line 2"),
        ("prose.txt", "no tokenizer that is known"),
        ("empty", "no tokenizer that is known"),
        ("merges", "do not go together"),
    ],
)
def test_what_is_no_tokenizer_is_refused_with_the_reason(tmp_path, name, message):
    with pytest.raises(DomainformerError, match=message):
        open_own_file(damaged(tmp_path, name), pattern="r50k")


def test_more_refusals(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        open_own_file(tmp_path / "nothing")
    with pytest.raises(TokenizerError, match="no such file"):
        open_own_file(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"the": 0, "a</w>": 1}))
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(TokenizerError, match="not the vocabulary of a byte-level"):
        open_own_file(tmp_path)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="'end'"):
        open_own_file(tmp_path, special_tokens={"end": "<e>"})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError):
        open_own_file(tmp_path)


def test_patterns_and_ranks_that_would_give_other_ids_in_silence(tmp_path):
    ranks = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    file = tmp_path / "mine.tiktoken"
    file.write_bytes(b"\n".join(ranks))
    with pytest.raises(TokenizerError, match="did you mean 'o200k'"):
        open_own_file(file, pattern="o200")
    for line in (b"YWI= -5", b"YWI= 256\nYWI= 257"):
        file.write_bytes(b"\n".join([*ranks, line]))
        with pytest.raises(TokenizerError, match="no tiktoken file"):
            open_own_file(file, pattern="o200k")
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="leave the pattern out"):
        open_own_file(tmp_path / "tokenizer.json", pattern="o200k")
    for token in ("", None, "two words"):
        with pytest.raises(TokenizerError, match="cannot be a special token"):
            open_own_file(tmp_path / "tokenizer.json", special_tokens={"pad": token})


def test_a_translation_that_is_mostly_wrong_is_refused(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "mine"), vocab_size=120,
        hard_vocab_limit=False, treat_whitespace_as_suffix=True, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(TokenizerError, match="cannot be translated"):
        open_own_file(tmp_path / "mine.model")


def test_without_sentencepiece_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    from domainformer.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "m.model").write_bytes(b"\x0a\x0e\x00")
    with pytest.raises(MissingExtraError, match="domainformer\\[sentencepiece\\]"):
        open_own_file(tmp_path / "m.model")
