"""One small fitted tokenizer with every kind of field."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer


@pytest.fixture(scope="package")
def table():
    day = dt.datetime(2024, 3, 29, 9, 30)
    rows = 40
    frame = pl.DataFrame(
        {
            "card": [i // 8 for i in range(rows)],
            "time": [day + dt.timedelta(hours=5 * i) for i in range(rows)],
            "kind": ["fuel", "food", "50% off [A]", None, "rent"] * (rows // 5),
            "amount": [(-1) ** i * float(i % 13) for i in range(rows)],
            "items": [i % 4 for i in range(rows)],
            "shop": ["corner shop", "", None, "[PAD] the other shop, Kraków 17"] * (rows // 4),
        }
    )
    return EventTable.of(frame, entity="card", time="time")


@pytest.fixture(scope="package")
def tokenizer(table):
    schema = DomainSchema(
        "cards",
        [
            FieldSpec("kind", "categorical_fixed", hash_buckets=2),
            FieldSpec("sign", "sign", column="amount"),
            FieldSpec("amount", "numerical_continuous", n_bins=4),
            FieldSpec("items", "numerical_discrete"),
            FieldSpec("time", "temporal", elapsed_bins=4),
            FieldSpec("shop", "text", max_tokens=8),
        ],
    )
    return DomainTokenizer(schema, bpe_vocab_size=280).fit(table)
