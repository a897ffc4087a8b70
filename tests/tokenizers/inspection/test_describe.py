"""Positions and tokens as data and as tables."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from domainformer.errors import TokenizerError
from domainformer.tokenizers import describe_tokenizer, describe_vocabulary, render_vocabulary


def printed(renderable, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_every_id_is_described_once(tokenizer):
    fields = [spec.name for spec in tokenizer.schema.fields]
    rows = [row for name in fields for row in describe_vocabulary(tokenizer, field=name)]
    vocab = tokenizer.vocab
    assert [row["id"] for row in rows] == list(range(4, tokenizer.layout.first_bpe))
    assert all(vocab[row["id"]] == row["token"] for row in rows)
    assert all(row["meaning"] for row in rows)


def test_meanings_tell_tokens_of_a_field_apart(tokenizer):
    for spec in tokenizer.schema.fields:
        said = [row["meaning"] for row in describe_vocabulary(tokenizer, field=spec.name)]
        parts = len(spec.calendar_fields) + 1 if spec.name == "time" else 1
        # Only the missing tokens of a field's parts say the same.
        assert len(said) - len(set(said)) == parts - 1, spec.name


def test_a_glance_is_plain_data_and_fits_100_columns(tokenizer, table):
    glance = describe_tokenizer(tokenizer, table)
    plain = json.loads(json.dumps(glance.to_json()))
    assert plain["vocab_size"] == tokenizer.vocab_size
    assert sum(row["tokens"] for row in plain["slots"]) == tokenizer.vocab_size - 4
    text = printed(glance.render())
    assert all(len(line.rstrip()) <= 100 for line in text.splitlines())
    for name in ("kind", "time.dow", "time.elapsed", "shop", "(text)"):
        assert name in text
    assert "Mon · Tue · Wed · … · Sun" in text
    assert "4 fields" not in text
    assert "6 fields fill 10 positions" in text


def test_a_narrow_terminal_keeps_what_tells_positions_apart(tokenizer):
    text = printed(render_vocabulary(describe_vocabulary(tokenizer)), width=70)
    assert "time.elapsed" in text
    assert all(len(line.rstrip()) <= 70 for line in text.splitlines())


def test_tokens_with_brackets_are_printed_as_they_are(tokenizer):
    text = printed(render_vocabulary(describe_vocabulary(tokenizer, field="kind")))
    assert "[KIND=50%25%20off%20%5BA%5D]" in text
    assert "50% off [A]" in text


def test_an_unknown_field_gives_the_nearest(tokenizer):
    with pytest.raises(TokenizerError, match="did you mean 'amount'"):
        describe_vocabulary(tokenizer, field="amonut")
