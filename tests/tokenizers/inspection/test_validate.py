"""The report on a user's own events, and broken tokenizers that it must catch."""

from __future__ import annotations

import io
import json

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from domainformer.data import EventTable
from domainformer.errors import DataError, SchemaError, TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, validate_tokenizer
from domainformer.tokenizers.fields import (
    BytePairModel,
    CategoricalTokenizer,
    MagnitudeBucketTokenizer,
)
from domainformer.tokenizers.inspection import checks


def test_every_promise_is_kept(tokenizer, table):
    calls = []
    report = validate_tokenizer(tokenizer, table, progress=lambda *done: calls.append(done))
    assert report.ok
    assert report.exit_code == 0
    assert report.n_events == table.n_events
    assert report.n_tokens == len(tokenizer.encode(table).ids)
    assert calls[-1] == (len(report.checks), len(report.checks))
    fields = {field.field: field for field in report.fields}
    assert fields["kind"].missing == 8
    assert fields["kind"].unknown == 0
    texts = table.frame["shop"]
    cut = [tokenizer.fields[-1].truncate(text) != text for text in texts]
    assert fields["shop"].cut == sum(cut) > 0


def test_the_report_is_plain_data_and_a_table(tokenizer, table):
    report = validate_tokenizer(tokenizer, table)
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["ok"] is True
    assert len(plain["checks"]) == 8
    console = Console(file=io.StringIO(), width=100)
    console.print(report.render())
    text = console.file.getvalue()
    assert "every promise is kept" in text
    assert all(check.name in text for check in report.checks)


def test_a_sample_is_drawn_by_its_seed(tokenizer, table):
    draw = lambda seed: checks.Sample.draw(tokenizer, table, 10, seed)  # noqa: E731
    assert draw(1).ids == draw(1).ids
    assert draw(1).events != draw(2).events
    assert len(draw(1).rows) == 10
    assert draw(1).table.n_entities < table.n_entities


def test_what_the_fit_did_not_see_is_counted_and_no_fault(tokenizer, table):
    frame = table.frame.with_columns(kind=pl.lit("unheard of"))
    other = EventTable.of(frame, entity="card", time="time")
    report = validate_tokenizer(tokenizer, other)
    assert report.ok
    assert {f.field: f.unknown for f in report.fields}["kind"] == table.n_events


def test_labels_of_32_bit_floats_are_what_a_caller_writes():
    frame = pl.DataFrame({"who": [1, 1], "code": pl.Series([0.1, 2.0], dtype=pl.Float32)})
    events = EventTable.of(frame, entity="who")
    schema = DomainSchema("s", [FieldSpec("code", "categorical_fixed")])
    assert validate_tokenizer(DomainTokenizer(schema).fit(events), events).ok


def test_a_frame_is_one_history():
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    frame = pl.DataFrame({"kind": ["tea", None, "gin"], "entity": [1, 2, 3]})
    report = validate_tokenizer(DomainTokenizer(schema).fit(frame), frame)
    assert report.ok
    assert (report.n_events, report.n_entities) == (3, 1)


@pytest.mark.parametrize("table", [None, "cards.parquet", pl.DataFrame({"kind": []})])
def test_what_holds_no_events_is_refused(table):
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    fitted = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["tea"]}))
    with pytest.raises((DataError, TokenizerError), match="events"):
        validate_tokenizer(fitted, table)


def test_bad_requests_are_refused(tokenizer, table):
    with pytest.raises(DataError, match="0 events cannot be looked at"):
        validate_tokenizer(tokenizer, table, events=0)
    without = EventTable.of(table.frame.drop("shop"), entity="card", time="time")
    with pytest.raises(SchemaError, match="does not fit the schema"):
        validate_tokenizer(tokenizer, without)


ENCODE, ENCODE_EVENT = DomainTokenizer.encode, DomainTokenizer.encode_event
DESCRIBE, DECODE = MagnitudeBucketTokenizer.describe, CategoricalTokenizer.decode


def without_first(self, event, previous_time=None):
    return [self.slots[0].missing, *ENCODE_EVENT(self, event, previous_time)[1:]]


def swapped(self, table, **options):
    encoded = ENCODE(self, table, **options)
    encoded.ids[:2] = encoded.ids[1::-1]
    return encoded


def empty(self, index):
    return DESCRIBE(self, index) | {"low": 1e9, "high": 1e9}


def differing(self, table, *, compiled=None, **options):
    encoded = ENCODE(self, table, compiled=compiled, **options)
    if compiled:
        encoded.ids[0] = self.slots[0].missing + 1
    return encoded


SABOTAGE = {
    "escape": (BytePairModel, "escape", lambda self, text: text, "injection"),
    "event": (DomainTokenizer, "encode_event", without_first, "single events"),
    "columns": (DomainTokenizer, "encode", swapped, "id ranges"),
    "compiled": (DomainTokenizer, "encode", differing, "compiled path"),
    "describe": (MagnitudeBucketTokenizer, "describe", empty, "meaning"),
    "decode": (CategoricalTokenizer, "decode", lambda s, i: DECODE(s, i).str.reverse(), "decode"),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_tokenizer_fails(tokenizer, table, monkeypatch, name):
    owner, attribute, broken, caught = SABOTAGE[name]
    monkeypatch.setattr(owner, attribute, broken)
    tokenizer = DomainTokenizer(tokenizer.schema, bpe_vocab_size=280).fit(table)
    report = validate_tokenizer(tokenizer, table)
    assert caught in [check.name for check in report.checks if not check.ok]
    assert report.exit_code == 1
    assert all(check.examples for check in report.checks if not check.ok)
    console = Console(file=io.StringIO(), width=100)
    console.print(report.render())
    assert "broken" in console.file.getvalue()


def test_specials_inside_an_event_are_found(tokenizer, table):
    sample = checks.Sample.draw(tokenizer, table, 5, 0)
    sample.ids[2] = [1, *sample.ids[2]]
    assert checks.check_specials(sample).failures == 1
    assert checks.check_ranges(sample).failures == 1
    sample.ids[3] = sample.ids[3][1:]
    assert checks.check_ranges(sample).failures == 2
    sample.ids[4] = [tokenizer.vocab_size, *sample.ids[4]]
    assert checks.check_ranges(sample).failures == 3


def test_without_numba_its_path_is_skipped(tokenizer, table, monkeypatch):
    monkeypatch.setattr(checks, "numba_available", lambda: False)
    report = validate_tokenizer(tokenizer, table)
    skipped = [check for check in report.checks if check.skipped]
    assert [check.name for check in skipped] == ["compiled path"]
    assert "numba is not installed" in skipped[0].skipped
    assert report.ok


def test_on_real_cards(data_root):
    path = data_root / "finance" / "birmingham_cards_2014_2018.parquet"
    cards = EventTable.read(path, entity="card", time="date")
    few = cards.take_entities(np.arange(0, cards.n_entities, 25))
    tokenizer = DomainTokenizer(DomainSchema.infer(few), bpe_vocab_size=512).fit(few)
    assert validate_tokenizer(tokenizer, cards, events=1_000).ok
