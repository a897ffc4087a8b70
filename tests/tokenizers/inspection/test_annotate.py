"""One event, token by token."""

from __future__ import annotations

import json

import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, annotate_event
from domainformer.tokenizers.inspection import example_event
from domainformer.tokenizers.inspection.annotate import event_at
from domainformer.tokenizers.inspection.typical import typical_event


def test_the_tokens_are_those_of_the_event(tokenizer, table):
    for row in range(table.n_events):
        event, before = event_at(table, row)
        annotated = annotate_event(tokenizer, event, before)
        assert [token.id for token in annotated.tokens] == tokenizer.encode_event(event, before)
        heads = [token.token for token in annotated.tokens if not token.piece]
        vocab = tokenizer.tokenize_event(event, before)
        assert heads == [token for token in vocab if token in heads]


def test_pieces_spell_the_text(tokenizer):
    event, before = typical_event(tokenizer)
    event |= {"shop": "corner é"}
    tokens = annotate_event(tokenizer, event, before).tokens
    assert "".join(token.token for token in tokens if token.piece).startswith("corner")
    assert "bytes of a character" in [token.meaning for token in tokens]


def test_predecessors(table):
    assert event_at(table, 0)[1] is None
    assert event_at(table, 8)[1] is None
    assert event_at(table, 9)[1] == table.frame["time"][8]
    frame = pl.DataFrame({"who": [1, 1], "at": [None, 5]})
    unknown = event_at(EventTable.of(frame, entity="who", time="at"), 1)[1]
    assert unknown != unknown


def test_an_example_shows_as_much_as_it_can(tokenizer, table):
    example = example_event(tokenizer, table)
    assert not {"no value", "the first event of its history"} & {t.meaning for t in example.tokens}
    assert "row" in example.origin
    assert json.loads(json.dumps(example.to_json()))["tokens"][0]["id"] == example.tokens[0].id


def test_a_made_up_example_needs_no_table(tokenizer):
    example = example_event(tokenizer)
    assert "made up" in example.origin
    assert not {"no value", "a value that the fit did not keep"} & {
        token.meaning for token in example.tokens
    }


@pytest.mark.parametrize("time", [[3, 9, 20], ["2024-01-01", "2024-01-03", "2024-02-01"]])
def test_made_up_times_are_of_the_tables_kind(time):
    frame = pl.DataFrame({"who": [1, 1, 1], "at": time})
    if isinstance(time[0], str):
        frame = frame.with_columns(pl.col("at").str.to_date())
    parts = () if isinstance(time[0], int) else ("year",)
    spec = FieldSpec("at", "temporal", calendar_fields=parts, elapsed_bins=4)
    events = EventTable.of(frame, entity="who", time="at")
    tokenizer = DomainTokenizer(DomainSchema("s", [spec])).fit(events)
    assert example_event(tokenizer).tokens[-1].token.startswith("[AT_ELAPSED=B0")


def test_a_tokenizer_fitted_on_nothing_but_nulls_has_an_example():
    fields = [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("count", "numerical_discrete"),
        FieldSpec("amount", "numerical_continuous"),
        FieldSpec("note", "text"),
    ]
    schema = {"kind": pl.String, "count": pl.Int64, "amount": pl.Float64, "note": pl.String}
    frame = pl.DataFrame({name: [None] for name in schema}, schema=schema)
    tokenizer = DomainTokenizer(DomainSchema("s", fields), bpe_vocab_size=256).fit(frame)
    assert len(example_event(tokenizer).tokens) >= 4
    assert len(example_event(tokenizer, frame).tokens) == 4


def test_a_missing_column_is_named(tokenizer):
    with pytest.raises(TokenizerError, match="the event has no"):
        annotate_event(tokenizer, {"kind": "fuel"})


def test_events_of_sources_show_their_own_fields():
    schema = DomainSchema(
        "bank",
        [FieldSpec("amount", "sign"), FieldSpec("screen", "categorical_fixed")],
        sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}},
    )
    frame = pl.DataFrame(
        {"source": ["cards", "app"], "amount": [1.0, None], "screen": [None, "home"]}
    )
    tokenizer = DomainTokenizer(schema).fit(frame)
    shown = annotate_event(tokenizer, frame.row(1, named=True)).tokens
    assert [token.token for token in shown] == ["[SOURCE=app]", "[SCREEN=home]"]
    assert example_event(tokenizer).tokens[0].token == "[SOURCE=cards]"
