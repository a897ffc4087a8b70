"""Frequency order, canonical texts, the tail."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal

import polars as pl
import pytest

from domainformer.schema import FieldSpec
from domainformer.tokenizers.fields import CategoricalTokenizer, EntityIdTokenizer, hash_bucket


def category(column, **options):
    spec = FieldSpec("k", "categorical_fixed", **options)
    return CategoricalTokenizer(spec).fit(pl.Series(column))


def test_most_frequent_first_ties_by_text():
    column = ["b", "c", "a", "c", "", None, "b"]
    assert category(column).values == ["b", "c", "", "a"]
    assert category(column, min_frequency=2).values == ["b", "c"]
    assert category(column, vocab_size=1).values == ["b"]


@pytest.mark.parametrize(
    "column",
    [
        pl.Series(["3", "10", None]),
        pl.Series([3, 10, None]),
        pl.Series([3.0, 10.0, None]),
        pl.Series([3.0, 10.0, float("nan")]),
        pl.Series([3, 10, None], dtype=pl.Int128),
        pl.Series([Decimal("3.00"), Decimal("10.00"), None]),
        pl.Series(["3", "10", None], dtype=pl.Categorical),
        pl.Series(["3", "10", None], dtype=pl.Enum(["10", "3"])),
    ],
    ids=lambda column: str(column.dtype)[:12],
)
def test_one_value_has_one_text_whatever_its_type(column):
    tokenizer = category(["3", "3", "10"])
    assert tokenizer.encode(column).tolist() == [[2], [3], [0]]
    assert [tokenizer.encode_one(value) for value in column] == [(2,), (3,), (0,)]
    assert category(column).values == ["10", "3"]


def test_short_floats_dates_and_booleans():
    assert category(pl.Series([0.1], dtype=pl.Float32)).values == ["0.1"]
    assert category([1e300]).values == ["1e+300"]
    assert category([dt.date(2024, 2, 29)]).values == ["2024-02-29"]
    nanoseconds = pl.Series([1_700_000_000_123_456_789]).cast(pl.Datetime("ns"))
    assert category(nanoseconds).values == ["2023-11-14T22:13:20.123456"]
    assert category([True, True, False]).values == ["true", "false"]


def test_values_with_the_same_text_are_counted_together():
    column = pl.Series([3.0, -0.0, 0.0, 0.0, 3.0, 3.0, 1.0])
    assert category(column, min_frequency=3).values == ["0", "3"]


def test_the_tail_goes_to_stable_buckets():
    tokenizer = category(["a", "a", "b"], min_frequency=2, hash_buckets=5)
    assert tokenizer.vocab[2:] == ["[K=a]", *(f"[K_HASH={i:02d}]" for i in range(5))]
    (local,) = tokenizer.encode_one("b")
    assert tokenizer.describe(local) == {
        "token": f"[K_HASH={hash_bucket('b', 5):02d}]",
        "kind": "hash",
        "bucket": hash_bucket("b", 5),
    }
    assert tokenizer.encode_one("\ud800")[0] >= 3  # a lone surrogate still has a bucket


def test_hash_is_the_same_in_every_process():
    code = "from domainformer.tokenizers.fields import hash_bucket; print(hash_bucket('é', 97))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{hash_bucket('é', 97)}\n".encode()}


def test_entities_are_categories_with_their_own_name():
    spec = FieldSpec("product", "categorical_entity", vocab_size=2)
    tokenizer = EntityIdTokenizer(spec).fit(pl.Series([7, 7, 8, 9]))
    assert tokenizer.vocab[2:] == ["[PRODUCT=7]", "[PRODUCT=8]"]
    assert tokenizer.state()["kind"] == "entity"
