"""TokenizerValidator: what it says of good tokenizers, and a saboteur for every check."""

from __future__ import annotations

import pytest

from domainformer.errors import TokenizerError
from domainformer.tokenizers import CharacterTokenizer
from domainformer.tokenizers.language.unicode_corpus import UNICODE_CORPUS
from domainformer.tokenizers.language.validator import TokenizerValidator, embedding_rows
from domainformer.tokenizers.language.view import HubView, OwnView, RustView, view_of
from tokenizers import Tokenizer, models

from .samples import byte_level, hub_bert, hub_gpt, hub_python


def found(tokenizer, *arguments, **options):
    report = TokenizerValidator.validate(tokenizer, *arguments, **options)
    return {check.name: check for check in report.checks}


def statuses(tokenizer, *arguments, **options):
    checks = found(tokenizer, *arguments, **options)
    return {name: check.status for name, check in checks.items()}


GOOD = {
    "vocabulary size": "pass",
    "special tokens": "pass",
    "round trip": "pass",
    "id range": "pass",
    "offsets": "pass",
    "batch equals single": "pass",
    "embedding rows": "pass",
}


def test_a_byte_level_tokenizer_keeps_every_promise():
    assert statuses(hub_gpt(), 300, rows=300) == GOOD
    report = TokenizerValidator.validate(hub_gpt(), 300, rows=300, strict=True)
    assert report.passed
    assert report.exit_code == 0
    assert report.to_json()["checks"][2]["examined"] == len(UNICODE_CORPUS)


def test_a_bare_one_too_whatever_its_file_says_of_length():
    tokenizer = byte_level()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    wanted = GOOD | {"embedding rows": "skip"}
    assert statuses(tokenizer, 300) == wanted
    assert tokenizer.truncation["max_length"] == 3  # the user's stays as it was


def test_what_loses_case_and_words_is_told_and_strictly_refused():
    trip = found(hub_bert(), 120)["round trip"]
    assert trip.status == "warn"
    assert "normalised" in trip.reason
    assert "unknown" in trip.reason
    with pytest.raises(TokenizerError, match="round trip"):
        TokenizerValidator.validate(hub_bert(), 120, strict=True)


def test_a_python_tokenizer_has_no_offsets_and_that_is_said():
    checks = found(hub_python(), 384, rows=384)
    assert checks["offsets"].status == "skip"
    assert "Python" in checks["offsets"].reason
    assert {name for name, check in checks.items() if check.status == "fail"} == set()
    assert checks["round trip"].reason == "50 of 51 texts come back: 1 unknown"  # blanks at <s>


def test_our_own_is_compared_with_its_backend():
    checks = statuses(CharacterTokenizer.ascii(), 98)
    assert checks["round trip"] == "warn"  # it refuses what its alphabet lacks
    assert checks["batch equals single"] == "pass"
    assert isinstance(view_of(CharacterTokenizer.ascii()), OwnView)
    assert statuses(CharacterTokenizer.ascii(unknown="drop"), 98)["offsets"] != "skip"


def test_texts_of_ones_own_are_looked_at():
    wide = found(hub_gpt(), texts=["one", "two"])["round trip"].examined
    assert wide == len(UNICODE_CORPUS) + 2


# ── one saboteur per check ───────────────────────────────────────────────────────────────────


class Outside(HubView):
    def vocab(self):
        return super().vocab() | {"the": 300}


class Unnamed(HubView):
    def specials(self):
        return super().specials() | {"pad": ("<padding>", None)}


class Misnamed(HubView):
    def specials(self):
        return super().specials() | {"pad": ("<pad>", 7)}


class Shortening(HubView):
    def decode(self, ids):
        return super().decode(ids)[:-1]


class Forgetting(HubView):
    def decode(self, ids):
        return ""


class Falling(HubView):
    def encode(self, text):
        if "é" in text:
            raise KeyError(text)
        return super().encode(text)


class TooLarge(HubView):
    def encode(self, text):
        return [*super().encode(text)[:-1], 300] if text else []


class Shifted(HubView):
    def offsets(self, text):
        ids, spans = super().offsets(text)
        return ids, [(start + 1, stop + 1) for start, stop in spans]


class Backwards(HubView):
    def offsets(self, text):
        ids, spans = super().offsets(text)
        return ids, spans[::-1]


class Gap(HubView):
    def offsets(self, text):
        ids, spans = super().offsets(text)
        return ids, [(start, start) for start, _ in spans]


class OtherIds(HubView):
    def offsets(self, text):
        ids, spans = super().offsets(text)
        return ids[::-1], spans


class Mixed(HubView):
    def encode_all(self, texts):
        return super().encode_all(texts)[::-1]


class OneShort(HubView):
    def encode_all(self, texts):
        return super().encode_all(texts)[1:]


class Unmasked(HubView):
    def padded(self, texts):
        ids, mask = super().padded(texts)
        return ids, [[1] * len(row) for row in mask]


@pytest.mark.parametrize(
    ("saboteur", "check"),
    [
        (Outside, "vocabulary size"),
        (Unnamed, "special tokens"),
        (Misnamed, "special tokens"),
        (Shortening, "round trip"),
        (Forgetting, "round trip"),
        (Falling, "round trip"),
        (TooLarge, "id range"),
        (Shifted, "offsets"),
        (Backwards, "offsets"),
        (Gap, "offsets"),
        (OtherIds, "offsets"),
        (Mixed, "batch equals single"),
        (OneShort, "batch equals single"),
        (Unmasked, "batch equals single"),
    ],
)
def test_a_saboteur_is_caught(saboteur, check):
    assert found(hub_gpt())[check].status == "pass"
    caught = found(saboteur(hub_gpt()))[check]
    assert caught.status == "fail"
    assert caught.reason


@pytest.mark.parametrize(
    ("expected", "rows", "status"),
    [(300, None, "pass"), (304, None, "warn"), (299, None, "fail"), (400, None, "fail"),
     (400, 400, "pass"), (400, 500, "fail")],
)  # fmt: skip
def test_sizes(expected, rows, status):
    assert found(hub_gpt(), expected, rows=rows)["vocabulary size"].status == status


def test_rows_below_the_ids_fail_and_above_pass():
    assert found(hub_gpt(), rows=299)["embedding rows"].status == "fail"
    spare = found(hub_gpt(), rows=320)["embedding rows"]
    assert (spare.status, "20 more" in spare.reason) == ("pass", True)


def test_a_model_is_asked_for_its_rows():
    import torch

    class Model:
        def get_input_embeddings(self):
            return torch.nn.Embedding(299, 2)

    assert embedding_rows(Model()) == 299
    assert found(hub_gpt(), model=Model())["embedding rows"].status == "fail"
    with pytest.raises(TokenizerError, match="rows="):
        embedding_rows(object())


def test_strictly_one_error_lists_all_failures():
    with pytest.raises(TokenizerError) as caught:
        TokenizerValidator.validate(Mixed(Shifted(hub_gpt()).tokenizer), 7, strict=True, rows=9)
    for name in ("vocabulary size", "batch equals single", "embedding rows"):
        assert f"{name}: " in str(caught.value)
    assert "fails 3 of 7" in caught.value.what


def test_a_table_shows_examples_and_remedies():
    from rich.console import Console

    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(TokenizerValidator.validate(Shortening(hub_gpt()), 20).render())
    shown = console.export_text()
    assert "2 of 7 checks failed" in shown
    assert "resize the model's embeddings" in shown
    assert "English: " in shown


def test_missing_padding_warns_and_so_does_padding_that_ends():
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="<|endoftext|>")
    check = found(bare)["special tokens"]
    assert (check.status, "pad_token" in check.remedy) == ("warn", True)
    bare.pad_token = bare.eos_token
    assert "mask it" in found(bare)["special tokens"].reason


class Raising:
    """What a foreign tokenizer may do: other types, and errors of its own."""

    def __init__(self):
        self.backend, self.vocab_size = byte_level(), byte_level().get_vocab_size()
        self.special_tokens = None

    def encode(self, text):
        return ["no", "ids"]

    def decode(self, ids):
        raise RuntimeError("gone")


def test_errors_of_a_foreign_tokenizer_are_findings():
    report = TokenizerValidator.validate(Raising())
    failed = {check.name: check.reason for check in report.failures}
    assert "TypeError" in failed["id range"]
    assert "round trip" in failed
    assert len(report.checks) == 7


def test_letters_that_become_nothing_are_lost():
    report = TokenizerValidator.validate(Tokenizer(models.BPE()))
    (trip,) = (check for check in report.checks if check.name == "round trip")
    assert trip.status == "fail"


def test_what_is_no_tokenizer_is_refused():
    for thing in (object(), "folder", {"a": 1}):
        with pytest.raises(TokenizerError, match="no text tokenizer"):
            TokenizerValidator.validate(thing)
    assert isinstance(view_of(byte_level()), RustView)
