"""transformers' common tokenizer tests, on each kind of tokenizer that this library saves."""

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import polars as pl
from distribution import folder
from transformers import AutoTokenizer

from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.language import (
    CharacterLevelTokenizer,
    CharacterTokenizer,
    FastBPETrainer,
)

sys.path.insert(0, str(folder()))
from transformers_tests.test_tokenization_common import TokenizerTesterMixin

# What the mixin writes its texts with, so that every tokenizer can say all of them.
TEXTS = [
    "This is a test 😊 I was born in 92000, and this is falsé. 生活的真谛是 ปี Hello unaffable,",
    "The quick brown fox jumps over the lazy dog: lower newer Sequence 0 1 2 3 4 5 6 7 8 9 (a) #",
    "Testing 123. System message User Assistant dummy [CLS] <s> </s> ^ ~ | { } \\ / @ $ % & * + =",
] * 40


class _Common(TokenizerTesterMixin):
    test_tokenizer_from_extractor = False  # builds a class from a vocabulary: ours are read
    test_seq2seq = False

    @classmethod
    def setUpClass(cls):
        cls.home = Path(tempfile.mkdtemp())
        cls.make(cls.home / "tokenizer")
        cls.from_pretrained_id = [str(cls.home / "tokenizer")]
        cls.tokenizer_class = type(AutoTokenizer.from_pretrained(cls.home / "tokenizer"))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.home, ignore_errors=True)


class TestBytePairs(_Common, unittest.TestCase):
    @classmethod
    def make(cls, path):
        FastBPETrainer(5000, parse_special_tokens=True).train(TEXTS).save_pretrained(path)


class TestCharactersOfUnicode(_Common, unittest.TestCase):
    @classmethod
    def make(cls, path):
        CharacterLevelTokenizer(2000, TEXTS, parse_special_tokens=True).save_pretrained(path)


class TestCharactersOfASCII(_Common, unittest.TestCase):
    @classmethod
    def make(cls, path):
        CharacterTokenizer.ascii(unknown="drop").save_pretrained(path)

    @unittest.skip("text that looks like a special token stays text, always")
    def test_tokenize_special_tokens(self):
        """The other tokenizers leave this to `parse_special_tokens`."""


class TestDomain(_Common, unittest.TestCase):
    @classmethod
    def make(cls, path):
        schema = DomainSchema(
            "cards",
            [FieldSpec("kind", "categorical_fixed"), FieldSpec("note", "text")],
        )
        events = pl.DataFrame({"kind": ["a", "b"] * 60, "note": TEXTS})
        DomainTokenizer(schema).fit(events).save_pretrained(path)


del _Common, TokenizerTesterMixin
