"""The worst a table can hold, through every path; and broken tokenizers, which the fuzz must catch.

The fuzz itself is ``benchmarks/fuzz.py``; a million rows run under the slow mark.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fields import (
    BytePairModel,
    CategoricalTokenizer,
    DiscreteTokenizer,
    MagnitudeBucketTokenizer,
    SemanticIdTokenizer,
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twenty_thousand_rows(fuzz):
    result = fuzz.fuzz(20_000, seed=0, chunk=5_000)
    assert result["problems"] == []
    assert result["rows"] == 20_000
    assert result["checked"]["injection"] >= 800


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_rows(fuzz):
    result = fuzz.fuzz(1_000_000, seed=1)
    assert result["problems"] == []
    assert result["rows"] == 1_000_000


def test_equal_seeds_draw_equal_tables(fuzz):
    draw = lambda seed: fuzz.random_table(np.random.default_rng(seed), 50)  # noqa: E731
    assert draw(3).fingerprint() == draw(3).fingerprint()
    assert draw(3).fingerprint() != draw(4).fingerprint()


def test_every_oddity_is_drawn(fuzz):
    generator = np.random.default_rng(0)
    assert set(fuzz.texts(generator, 12_000, 0.0)) >= set(fuzz.LONG)
    tables = [fuzz.random_table(generator, 100) for _ in range(12)]
    kinds = {str(table.frame["due"].dtype) for table in tables}
    assert "Date" in kinds
    assert sum("time_zone='" in kind for kind in kinds) >= 3
    schemas = [fuzz.random_schema(generator, tables[0]) for _ in range(20)]
    assert any(schema.sources for schema in schemas)
    assert any(spec.optional for schema in schemas for spec in schema.fields)
    assert {spec.semantic_levels for schema in schemas for spec in schema.fields} >= {1, 2, 4}


def test_semantic_ids_are_drawn_with_collisions(fuzz):
    generator = np.random.default_rng(0)
    table = fuzz.random_table(generator, 300)
    schemas = [fuzz.random_schema(generator, table) for _ in range(8)]
    made = [fuzz.random_semantic_ids(generator, schema, table)["item"] for schema in schemas]
    assert max(one.numbers for one in made) > 1
    assert all(len(one.entities) > 5 for one in made)


# ── sabotage ──────────────────────────────────────────────────────────────────────────────────

RIGHT = {
    "decode": CategoricalTokenizer.decode,
    "decode semantic ids": SemanticIdTokenizer.decode,
    "describe": MagnitudeBucketTokenizer.describe,
    "encode": DomainTokenizer.encode,
    "encode_event": DomainTokenizer.encode_event,
}


def higher(self, index):
    """Every bin says twice what it holds."""
    facts = RIGHT["describe"](self, index)
    ends = {end: 2 * facts[end] for end in ("low", "high") if facts.get(end)}
    return facts | ends


def swapped(self, table, **options):
    """The first two tokens of the first event stand in each other's place."""
    encoded = RIGHT["encode"](self, table, **options)
    encoded.ids[:2] = encoded.ids[1::-1]
    return encoded


def without_first(self, event, previous_time=None):
    """The first field is missing, whatever its value."""
    return [self.slots[0].missing, *RIGHT["encode_event"](self, event, previous_time)[1:]]


SABOTAGE = {
    "look-alikes are not guarded": (BytePairModel, "escape", lambda self, text: text),
    "single events lose a field": (DomainTokenizer, "encode_event", without_first),
    "columns are in another order": (DomainTokenizer, "encode", swapped),
    "bins say twice what they hold": (MagnitudeBucketTokenizer, "describe", higher),
    "labels decode to others": (
        CategoricalTokenizer,
        "decode",
        lambda self, ids: RIGHT["decode"](self, ids).str.reverse(),
    ),
    "semantic ids decode to others": (
        SemanticIdTokenizer,
        "decode",
        lambda self, ids: RIGHT["decode semantic ids"](self, ids).str.reverse(),
    ),
    "whole numbers say another number": (
        DiscreteTokenizer,
        "describe",
        lambda self, index: {"token": self.vocab[index], "kind": "value", "value": -99},
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_tokenizer_is_caught(fuzz, monkeypatch, name):
    owner, attribute, broken = SABOTAGE[name]
    monkeypatch.setattr(owner, attribute, broken)
    assert fuzz.fuzz(400, seed=11, chunk=200)["problems"]
