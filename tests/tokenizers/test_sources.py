"""Events of several sources: all paths give the same ids, and the ids give the events back.

Random schemas (shared fields, optional fields, texts, budgets) and random wide tables, whose rows
also hold values of columns that their source does not read. The oracle builds each event from its
source's fields one by one, and shortens it in the plainest way.
"""

import datetime as dt
import itertools
import math
import tempfile

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from domainformer.data import EventTable
from domainformer.errors import TokenizerError
from domainformer.schema import DomainSchema, FieldSpec, FieldType, Source
from domainformer.schema.sources import least_tokens
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fields import ElapsedTimeTokenizer, TextTokenizer

PROPERTY = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NAMES = ["cards", "wire transfers", "app [v2]"]
FIELDS = {
    "amount": ("numerical_continuous", {"n_bins": 4}, "number"),
    "direction": ("sign", {"column": "amount"}, "number"),
    "size": ("numerical_continuous", {"column": "amount", "n_bins": 3}, "number"),
    "pieces": ("numerical_discrete", {}, "whole"),
    "shop": ("text", {"max_tokens": 9}, "text"),
    "note": ("text", {"max_tokens": 3}, "text"),
    "kind": ("categorical_fixed", {}, "label"),
    "at": ("temporal", {"calendar_fields": ("month", "hour"), "elapsed_bins": 3}, "time"),
}
COLUMNS = {
    "amount": (st.floats(-100, 100) | st.sampled_from([0.0, math.nan]), pl.Float64),
    "pieces": (st.integers(-2, 3), pl.Int64),
    "shop": (
        st.sampled_from(["corner shop", "[SOURCE=cards]", "żółw 😀", "", "aa bb cc"]),
        pl.String,
    ),
    "note": (st.sampled_from(["[NOTE]x", "thank you", "é"]), pl.String),
    "kind": (st.sampled_from(["a", "b", "[PAD]"]), pl.String),
}
times = st.datetimes(dt.datetime(2019, 1, 1), dt.datetime(2021, 1, 1))


@st.composite
def schemas(draw):
    chosen = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, min_size=1))
    specs = []
    for name in chosen:
        kind, options, _ = FIELDS[name]
        specs.append(FieldSpec(name, kind, optional=draw(st.booleans()), **options))
    known = {spec.name: spec for spec in specs}
    sources = {}
    for name in NAMES[: draw(st.integers(1, 3))]:
        sources[name] = draw(st.lists(st.sampled_from(chosen), unique=True, min_size=1))
    first = next(iter(sources))
    used = set(itertools.chain(*sources.values()))
    sources[first] += [name for name in chosen if name not in used]
    budgets = {}
    for name, fields in sources.items():
        least = least_tokens([known[field] for field in fields])
        most = draw(st.none() | st.integers(least, least + 6))
        budgets[name] = {"fields": fields, "max_tokens_per_event": most}
    column = draw(st.sampled_from(["source", "table"]))
    return DomainSchema("mixed", specs, sources=budgets, source_column=column)


@st.composite
def cases(draw):
    schema = draw(schemas())
    rows = draw(st.integers(1, 9))

    def column(values):
        return draw(st.lists(st.none() | values, min_size=rows, max_size=rows))

    data = {"who": sorted(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))}
    data["at"] = column(times)
    assume(data["at"] != [None] * rows)
    types = {"who": pl.Int64, "at": pl.Datetime("us")}
    names = st.sampled_from(list(schema.sources))
    data[schema.source_column] = draw(st.lists(names, min_size=rows, max_size=rows))
    for name, (values, dtype) in COLUMNS.items():
        data[name], types[name] = column(values), dtype
    frame = pl.DataFrame(data, schema_overrides=types)
    return schema, EventTable.of(frame, entity="who", time="at")


def previous_times(table):
    result, last = [], None
    for row in table.frame.select(table.entity, table.time).iter_rows():
        before = None if last is None or last[0] != row[0] else last[1]
        unknown = last is not None and last[0] == row[0] and last[1] is None
        result.append(math.nan if unknown else before)
        last = row
    return result


def oracle(tokenizer, event, previous):
    """Tokens of one event: its source's fields one after the other, shortened step by step."""
    schema = tokenizer.schema
    name = event[schema.source_column]
    blocks = {}
    for field in tokenizer.fields:
        blocks.setdefault(field.spec.name, []).append(field)
    parts = []  # [optional, tokens, text, tokenizer]
    for field in itertools.chain(*(blocks[f] for f in schema.sources[name].fields)):
        value = event[field.spec.source]
        if isinstance(field, TextTokenizer):
            text = field.truncate(value)
            tokens = [field.vocab[0 if text is None else 1]]
        else:
            text = None
            if isinstance(field, ElapsedTimeTokenizer):
                value = gap(value, previous)
            tokens = [field.vocab[i] for i in field.encode_one(value)]
        if field.spec.optional and tokens[0].endswith("_MISSING]"):
            continue
        parts.append([field.spec.optional, tokens, text, field])
    most = schema.sources[name].max_tokens_per_event
    if most is not None:
        shorten(parts, most)
    tokens = [f"[SOURCE={name.replace('[', '%5B').replace(']', '%5D').replace(' ', '%20')}]"]
    for _, own, text, field in parts:
        tokens += own + ([] if text is None else pieces(field, text))
    return tokens


def pieces(field, text):
    return [field.bpe.tokens[i] for i in field.bpe.encode(text)]


def excess(parts, most):
    whole = sum(
        len(own) + (0 if text is None else len(pieces(f, text))) for _, own, text, f in parts
    )
    return 1 + whole - most


def shorten(parts, most):
    for part in reversed(parts):
        over = excess(parts, most)
        if part[2] is not None and over > 0:
            room = max(0, len(pieces(part[3], part[2])) - over)
            part[2] = part[3].bpe.truncate([part[2]], room)[0].text
    for part in reversed(list(parts)):
        if part[0] and excess(parts, most) > 0:
            parts.remove(part)
    assert excess(parts, most) <= 0


def gap(value, previous):
    if value is None or (previous is not None and previous != previous):
        return math.nan
    return None if previous is None else (value - previous).total_seconds()


def event_ids(encoded):
    ids, ends = encoded.ids.tolist(), encoded.event_offsets.tolist()
    return [ids[start:stop] for start, stop in itertools.pairwise(ends)]


def load(tokenizer):
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        saved = tokenizer.save_pretrained(f"{folder}/tokenizer")
        return AutoTokenizer.from_pretrained(saved), DomainTokenizer.from_pretrained(saved)


@PROPERTY
@given(cases())
def test_columns_events_and_hugging_face_agree(case):
    schema, table = case
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=270).fit(table)
    hugging_face, loaded = load(tokenizer)
    columnar = event_ids(tokenizer.encode(table, compiled=False))
    assert event_ids(loaded.encode(table)) == columnar
    assert loaded.fingerprint == tokenizer.fingerprint
    vocab = tokenizer.vocab
    events = table.frame.iter_rows(named=True)
    for ids, event, previous in zip(columnar, events, previous_times(table), strict=True):
        tokens = oracle(tokenizer, event, previous)
        assert [vocab[i] for i in ids] == tokens
        assert tokenizer.encode_event(event, previous) == ids
        assert loaded.tokenize_event(event, previous) == tokens
        assert hugging_face(tokenizer.render_event(event, previous))["input_ids"] == ids


@PROPERTY
@given(cases())
def test_decode_gives_the_events_back(case):
    schema, table = case
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=270).fit(table)
    encoded = tokenizer.encode(table)
    decoded = tokenizer.decode(encoded.ids, intervals=True)
    names = table.frame[schema.source_column].to_list()
    title = next(name for name in decoded.columns if decoded[name].to_list() == names)
    assert title in (schema.source_column, f"{schema.source_column}_")
    # Padding, BOS and EOS may stand between events.
    spread = [0, 1, *itertools.chain(*([*ids, 2, 0] for ids in event_ids(encoded)))]
    assert tokenizer.decode(spread, intervals=True).equals(decoded)
    for name, field in (("kind", "kind"), ("pieces", "pieces")):
        users = [n for n, s in schema.sources.items() if field in s.fields]
        if not users:
            continue
        most = {n: schema.sources[n].max_tokens_per_event for n in users}
        for value, source, found in zip(table.frame[name], names, decoded[name], strict=True):
            if source not in users:
                assert found is None
            elif most[source] is None:
                assert found == value


@PROPERTY
@given(cases(), st.data())
def test_what_is_no_event_is_told_with_its_position(case, data):
    """A walk token by token, with sets and no arrays, is the oracle of the parser."""
    schema, table = case
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=270).fit(table)
    ids = tokenizer.encode(table).ids.tolist()
    at = data.draw(st.integers(0, len(ids) - 1))
    change = data.draw(st.sampled_from(["drop", "replace", "insert", "cut"]))
    other = data.draw(st.integers(0, tokenizer.vocab_size - 1))
    changed = {
        "drop": ids[:at] + ids[at + 1 :],
        "replace": [*ids[:at], other, *ids[at + 1 :]],
        "insert": [*ids[:at], other, *ids[at:]],
        "cut": ids[:at],
    }[change]
    wrong = first_wrong(tokenizer, changed)
    if wrong is None:
        tokenizer.decode(changed)
        return
    with pytest.raises(TokenizerError) as caught:
        tokenizer.decode(changed)
    assert caught.value.where == f"position {wrong}"


def test_an_event_does_not_go_on_behind_a_special():
    """A source whose fields are all optional is an event by itself, and padding ends it."""
    amount = FieldSpec("amount", FieldType.NUMERICAL_CONTINUOUS, n_bins=4, optional=True)
    schema = DomainSchema(
        "mixed", [amount], sources={"cards": Source(fields=("amount",))}, source_column="source"
    )
    frame = pl.DataFrame({"who": [0, 0], "source": ["cards"] * 2, "amount": [1.0, None]})
    tokenizer = DomainTokenizer(schema).fit(EventTable.of(frame, entity="who"))
    whole = tokenizer.encode(EventTable.of(frame, entity="who")).ids.tolist()
    assert tokenizer.decode([*whole, 0])["amount"].to_list() == [1.0, None]
    with pytest.raises(TokenizerError) as caught:
        tokenizer.decode([whole[0], 0, *whole[1:]])
    assert caught.value.where == "position 2"


def first_wrong(tokenizer, ids):
    vocab, schema = tokenizer.vocab, tokenizer.schema
    slots = {i: slot for slot in tokenizer.slots for i in slot.ids.tolist()}
    bpe = set(range(*tokenizer.bpe_range))
    optional = {spec.name: spec.optional for spec in schema.fields}
    left, text = [], False  # what may still come in this event, and whether a text is open
    for position, index in enumerate(ids):
        if index in bpe:
            if not text:
                return position
            continue
        text = False
        may_end = all(optional[group[0].field] and not group.begun for group in left)
        if index < 4:
            if index == 3 or not may_end:
                return position
            left = []
            continue
        slot = slots[index]
        if slot.field == "source":
            if not may_end or vocab[index] == "[SOURCE_MISSING]":
                return position
            name = list(schema.sources)[index - slot.start - 1]
            left = groups(tokenizer, schema.sources[name].fields)
            continue
        while left and left[0][0] != slot:
            if left[0].begun or not optional[left[0][0].field]:
                return position
            left = left[1:]
        if not left or (optional[slot.field] and index == slot.missing):
            return position
        rest = Group(left[0][1:])
        rest.begun = True
        left = ([rest] if rest else []) + left[1:]
        text = slot.ragged and index != slot.missing
    done = all(optional[group[0].field] and not group.begun for group in left)
    return None if done else len(ids)


class Group(list):
    """Slots of one block that stand together, or not at all."""

    begun = False


def groups(tokenizer, fields):
    found = []
    for name in fields:
        for block in tokenizer.layout.blocks:
            if block.spec.name == name:
                found.append(Group(block.slots))
    return found


def small(**sources):
    schema = DomainSchema(
        "bank",
        [
            FieldSpec("amount", "numerical_continuous", column="value", n_bins=4),
            FieldSpec("wired", "numerical_continuous", column="value", n_bins=4),
            FieldSpec("shop", "text", max_tokens=8, optional=True),
        ],
        sources={
            "cards": {"fields": ["amount", "shop"], **sources.get("cards", {})},
            "wires": {"fields": ["wired"]},
        },
    )
    frame = pl.DataFrame(
        {
            "source": ["cards", "wires"] * 20,
            "value": [float(i if i % 2 else 1000 * i) for i in range(1, 41)],
            "shop": ["corner shop", None] * 20,
        }
    )
    return schema, frame


def test_a_field_is_fitted_on_the_rows_of_its_sources():
    schema, frame = small()
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260).fit(frame)
    amount, wired = (field for field in tokenizer.fields if field.kind == "magnitude")
    assert max(amount.edges) < 100 < 1000 < min(wired.edges[1:])
    decoded = tokenizer.decode(tokenizer.encode(frame).ids)
    assert decoded.columns == ["source", "value", "shop"]  # two fields, one column again
    assert decoded["value"].null_count() == 0


def test_fitted_on_all_rows_the_bins_are_others(monkeypatch):
    """The twin of the test above: it does see a fit that reads the rows of other sources."""
    from domainformer.tokenizers import sources

    monkeypatch.setattr(sources.FieldRows, "take", lambda self, field, column: column)
    schema, frame = small()
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260).fit(frame)
    amount, wired = (field for field in tokenizer.fields if field.kind == "magnitude")
    assert amount.edges.tolist() == wired.edges.tolist()


@pytest.mark.parametrize("wrong", ["crads", None])
def test_an_unknown_source_is_told_on_all_paths(wrong):
    schema, frame = small()
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260).fit(frame)
    bad = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(wrong)).otherwise("source").alias("source")
    )
    message = "no source" if wrong is None else "there is no source 'crads'"
    with pytest.raises(TokenizerError, match=message) as caught:
        tokenizer.encode(bad)
    assert "event 7" in str(caught.value.where)
    with pytest.raises(TokenizerError, match=message):
        tokenizer.encode_event({"source": wrong, "value": 1.0})
    with pytest.raises(TokenizerError, match=message):
        DomainTokenizer(schema, bpe_vocab_size=260).fit(bad)


def test_one_event_needs_the_columns_of_its_source_alone():
    schema, frame = small()
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260).fit(frame)
    assert tokenizer.tokenize_event({"source": "wires", "value": 0.0})[0] == "[SOURCE=wires]"
    with pytest.raises(TokenizerError, match="the event has no 'shop'"):
        tokenizer.encode_event({"source": "cards", "value": 1.0})


def test_the_order_of_the_rows_and_large_passes_do_not_matter(monkeypatch):
    from domainformer.tokenizers import sources, trimming

    schema, frame = small(cards={"max_tokens_per_event": 4})
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260).fit(frame)
    whole = tokenizer.encode(frame)
    monkeypatch.setattr(sources, "_EVENTS_PER_PASS", 7)
    monkeypatch.setattr(trimming, "_EVENTS_PER_PASS", 3)
    again = tokenizer.encode(frame)
    assert np.array_equal(again.ids, whole.ids)
    assert np.array_equal(again.event_offsets, whole.event_offsets)
    monkeypatch.setattr(trimming, "_ODD", np.zeros_like(trimming._ODD))  # all sums collide
    assert np.array_equal(tokenizer.encode(frame).ids, whole.ids)
    shuffled = np.random.default_rng(0).permutation(frame.height)
    rows, mixed = event_ids(whole), event_ids(tokenizer.encode(frame[shuffled]))
    assert mixed == [rows[i] for i in shuffled]


def test_optional_fields_without_sources():
    schema = DomainSchema(
        "lab",
        [
            FieldSpec("code", "categorical_fixed"),
            FieldSpec("value", "numerical_continuous", n_bins=4, optional=True),
        ],
    )
    frame = pl.DataFrame({"code": ["na", "sex", "k"], "value": [140.0, None, 4.0]})
    tokenizer = DomainTokenizer(schema).fit(frame)
    encoded = tokenizer.encode(frame)
    assert np.diff(encoded.event_offsets).tolist() == [2, 1, 2]
    decoded = tokenizer.decode(encoded.ids)
    assert decoded["code"].to_list() == ["na", "sex", "k"]
    assert decoded["value"].is_null().to_list() == [False, True, False]
    ids = tokenizer.encode_event({"code": "sex", "value": float("nan")})
    assert tokenizer.to_hf()("[CODE=sex]")["input_ids"] == ids
