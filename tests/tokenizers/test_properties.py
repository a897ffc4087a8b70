"""The promise of the package: columns, single events and Hugging Face give the same ids.

Random schemas and random data, with blanks, quotes, emoji, right-to-left text, 10 kB strings, text
that looks like tokens, nulls, NaN and infinities. The oracle here spells each event's tokens in
the plainest way, from what `describe` says of each id.
"""

import datetime as dt
import itertools
import math
import tempfile
from functools import cache

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainformer.data import EventTable
from domainformer.errors import TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer, encoder
from domainformer.tokenizers.fields import BytePairModel
from domainformer.tokenizers.kernels import numba_available

PROPERTY = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

LOOK_ALIKES = [
    "[PAD]",
    "[BOS]shop[EOS]",
    "[UNK]",
    "[F0_MISSING]",
    "[F1]",
    "[F0=B01] and [F1=a]",
    "[F2=NEG][F2=POS]",
    "[[PAD]]",
    "[",
    "\ue000",
    "[\ue000PAD]",
    "\ue000\ue000[F1]\ue000",
    "[F3_MONTH=01",
]
PLAIN = [
    "",
    " ",
    "corner shop",
    " lead and trail ",
    'say "hi", it\'s',
    "tab\tnew\nline\r\n",
    "caffè élan naïve",
    "日本語の店",
    "😀👍🏽👨‍👩‍👧",
    "مرحبا بالعالم",
    "שלום עולם",
    "\u202eright\u202c",
    "a" * 10_000,
    "żółw 😀 " * 900,
    "1234567.89 ¡¿",
    "\x00\x07",
]
words = st.one_of(
    st.sampled_from(PLAIN),
    st.sampled_from(LOOK_ALIKES),
    st.text(max_size=12),
    st.lists(st.sampled_from(LOOK_ALIKES + PLAIN[:8]), max_size=3).map("".join),
)
numbers = st.one_of(
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, 0.99]),
)
categories = st.sampled_from(["a", "b", "c c", "[PAD]", "50%", "é\u00a0x", "", "[F1]"])
times = st.datetimes(dt.datetime(1999, 1, 1), dt.datetime(2031, 1, 1))


@st.composite
def specs_and_values(draw, name):
    """A field and a strategy for the values of its column."""
    kinds = ["number", "sign", "whole", "label", "entity", "semantic", "date", "text"]
    kind = draw(st.sampled_from(kinds))
    if kind == "number":
        how = draw(st.sampled_from([{}, {"n_bins": 3}, {"binning": "log", "n_bins": 5}]))
        return FieldSpec(name, "numerical_continuous", **how), numbers, pl.Float64
    if kind == "sign":
        return FieldSpec(name, "sign"), numbers, pl.Float64
    if kind == "whole":
        cap = draw(st.sampled_from([None, 2]))
        return FieldSpec(name, "numerical_discrete", vocab_size=cap), st.integers(-3, 4), pl.Int64
    if kind in ("label", "entity"):
        how = {"label": "categorical_fixed", "entity": "categorical_entity"}[kind]
        options = draw(st.sampled_from([{}, {"min_frequency": 2}, {"hash_buckets": 3}]))
        return FieldSpec(name, how, **options), categories, pl.String
    if kind == "semantic":
        levels = draw(st.integers(1, 3))
        spec = FieldSpec(name, "categorical_entity", semantic_levels=levels, semantic_codes=2)
        return spec, categories, pl.String
    if kind == "date":
        parts = draw(st.permutations(["month", "dow", "dom", "hour", "quarter", "year"]))
        chosen = tuple(parts[: draw(st.integers(1, 6))])
        return FieldSpec(name, "temporal", calendar_fields=chosen), times, pl.Datetime("us")
    budget = draw(st.sampled_from([1, 3, 16]))
    return FieldSpec(name, "text", max_tokens=budget), words, pl.String


@st.composite
def cases(draw):
    """A schema, the events to fit on, and all events (of one or two entities, in order)."""
    drawn = [draw(specs_and_values(f"f{i}")) for i in range(draw(st.integers(1, 5)))]
    specs = [spec for spec, _, _ in drawn]
    rows = draw(st.integers(1, 8))
    data = {"who": sorted(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))}
    data["at"] = draw(st.lists(st.one_of(st.none(), times), min_size=rows, max_size=rows))
    if data["at"] == [None] * rows:
        data["at"][0] = dt.datetime(2024, 2, 29, 23, 59, 59, 1)
    schema = {"who": pl.Int64, "at": pl.Datetime("us")}
    for spec, values, dtype in drawn:
        column = st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows)
        data[spec.name], schema[spec.name] = draw(column), dtype
    if draw(st.booleans()):
        specs.append(FieldSpec("at", "temporal", calendar_fields=("hour",), elapsed_bins=4))
    table = EventTable.of(pl.DataFrame(data, schema=schema), entity="who", time="at")
    seen = (
        EventTable.of(table.frame.head(max(1, rows // 2)), entity="who", time="at")
        if (table.frame["at"].head(max(1, rows // 2)).null_count() < max(1, rows // 2))
        else table
    )
    return DomainSchema("random", specs), seen, table


def fit(case):
    schema, seen, _ = case
    given = {spec.name: semantic_ids(spec) for spec in schema.fields if spec.semantic_levels}
    return DomainTokenizer(schema, bpe_vocab_size=280).fit(seen, semantic_ids=given)


CODED = ["", "50%", "[F1]", "[PAD]", "a", "b"]


def codes_of(spec, place):
    """Codes of the entities in CODED: the bits of their places, so that some collide."""
    return [place >> level & 1 for level in range(spec.semantic_levels)]


def semantic_ids(spec):
    codes = [codes_of(spec, place) for place in range(len(CODED))]
    return SemanticIdTokenizer.of_codes(spec, CODED, codes)


def semantic_tokens(spec, name, value):
    if value not in CODED:
        values = ["_MISSING" if value is None else "_UNK"] * (spec.semantic_levels + 1)
    else:
        place = CODED.index(value)
        codes = codes_of(spec, place)
        number = sum(codes_of(spec, before) == codes for before in range(place))
        values = [f"={code:02d}" for code in (*codes, number)]
    positions = [*range(1, spec.semantic_levels + 1), "N"]
    return [f"[{name}_{at}{shown}]" for at, shown in zip(positions, values, strict=True)]


def previous_times(table):
    """What `encode_event` is told about each event's predecessor."""
    result, last = [], None
    for row in table.frame.select(table.entity, table.time).iter_rows():
        if last is None or last[0] != row[0]:
            result.append(None)
        else:
            result.append(math.nan if last[1] is None else last[1])
        last = row
    return result


def oracle(tokenizer, event, previous):
    """The tokens of an event, spelt field by field without any of the code under test."""
    tokens = []
    for field in tokenizer.fields:
        spec, value = field.spec, event[field.spec.source]
        missing = value is None or value != value
        name = spec.name.upper()
        if field.kind == "calendar":
            tokens += [calendar_token(name, part, value, field) for part in spec.calendar_fields]
        elif field.kind == "elapsed":
            tokens.append(elapsed_token(name, value, previous, field))
        elif field.kind == "semantic":
            tokens += semantic_tokens(spec, name, value)
        elif missing:
            tokens.append(f"[{name}_MISSING]")
        elif field.kind == "sign":
            tokens.append(f"[{name}={'NEG' if value < 0 else 'POS'}]")
        elif field.kind == "magnitude":
            tokens.append(f"[{name}=B{sum(edge <= abs(value) for edge in field.edges):02d}]")
        elif field.kind == "discrete":
            known = f"[{name}={value}]"
            tokens.append(known if known in field.vocab else f"[{name}_UNK]")
        elif field.kind in ("categorical", "entity"):
            ids = [i for i in range(len(field.vocab)) if field.describe(i).get("value") == value]
            unknown = f"[{name}_UNK]"
            if spec.hash_buckets:
                unknown = field.vocab[field.encode_one(value)[0]]
                assert unknown.startswith(f"[{name}_HASH=") or ids
            tokens.append(field.vocab[ids[0]] if ids else unknown)
        else:
            cut = field.truncate(value)
            assert value.startswith(cut)
            pieces = tokenizer.backend.encode(field.escape(cut), add_special_tokens=False).tokens
            assert len(pieces) <= spec.max_tokens
            tokens += [f"[{name}]", *pieces]
    return tokens


def calendar_token(name, part, value, field):
    if value is None:
        return f"[{name}_{part.upper()}_MISSING]"
    shown = {
        "month": f"{value.month:02d}",
        "dow": f"{value.isoweekday()}",
        "dom": f"{value.day:02d}",
        "hour": f"{value.hour:02d}",
        "quarter": f"{(value.month - 1) // 3 + 1}",
        "year": f"{min(max(value.year - field.anchor, 0), 9)}",
    }
    return f"[{name}_{part.upper()}={shown[part]}]"


def elapsed_token(name, value, previous, field):
    if value is None or (previous is not None and previous != previous):
        return f"[{name}_ELAPSED_MISSING]"
    if previous is None:
        return f"[{name}_ELAPSED=FIRST]"
    seconds = (value - previous).total_seconds()
    # The first edge only parts a first event from the others.
    return f"[{name}_ELAPSED=B{sum(edge <= seconds for edge in field.edges[1:]):02d}]"


def load_hf(tokenizer):
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        saved = tokenizer.save_pretrained(f"{folder}/tokenizer")
        return AutoTokenizer.from_pretrained(saved), DomainTokenizer.from_pretrained(saved)


def event_ids(encoded):
    ids, ends = encoded.ids.tolist(), encoded.event_offsets.tolist()
    return [ids[start:stop] for start, stop in itertools.pairwise(ends)]


@PROPERTY
@given(cases())
def test_columns_events_and_hugging_face_agree(case):
    tokenizer, table = fit(case), case[2]
    hugging_face, loaded = load_hf(tokenizer)
    columnar = event_ids(tokenizer.encode(table, compiled=False))
    assert event_ids(loaded.encode(table)) == columnar
    if numba_available():
        assert event_ids(tokenizer.encode(table, compiled=True)) == columnar
        with pytest.MonkeyPatch.context() as patch:
            # Also the path of columns whose strings do not repeat.
            patch.setattr(encoder, "known_values", lambda column: None)
            assert event_ids(tokenizer.encode(table, compiled=True)) == columnar
    vocab = tokenizer.vocab
    events = table.frame.iter_rows(named=True)
    for ids, event, previous in zip(columnar, events, previous_times(table), strict=True):
        tokens = oracle(tokenizer, event, previous)
        assert [vocab[i] for i in ids] == tokens
        assert tokenizer.encode_event(event, previous) == ids
        assert tokenizer.tokenize_event(event, previous) == tokens
        assert hugging_face.convert_tokens_to_ids(tokens) == ids
        assert hugging_face(tokenizer.render_event(event, previous))["input_ids"] == ids


@PROPERTY
@given(cases())
def test_decode_gives_the_events_back(case):
    tokenizer, table = fit(case), case[2]
    decoded = tokenizer.decode(tokenizer.encode(table).ids, intervals=True)
    assert decoded.height == table.n_events
    for field in tokenizer.fields:
        name = field.spec.name
        values = table.frame[field.spec.source].to_list()
        if field.kind == "calendar":
            for part in field.parts:
                check_part(part, decoded[f"{name}_{part}"].to_list(), values, field.anchor)
        elif field.kind == "text":
            assert decoded[name].to_list() == [field.truncate(value) for value in values]
        elif field.kind in ("categorical", "entity"):
            kept = [value if value in field.values else None for value in values]
            assert decoded[name].to_list() == kept
        elif field.kind == "semantic":
            assert decoded[name].to_list() == [v if v in CODED else None for v in values]
        elif field.kind == "discrete":
            kept = set(field.kept.tolist())
            assert decoded[name].to_list() == [v if v in kept else None for v in values]
        elif field.kind == "magnitude":
            check_interval(name, decoded, values)


def check_part(part, found, values, anchor):
    wanted = {
        "month": lambda t: t.month,
        "dow": lambda t: t.isoweekday(),
        "dom": lambda t: t.day,
        "hour": lambda t: t.hour,
        "quarter": lambda t: (t.month + 2) // 3,
        "year": lambda t: min(max(t.year, anchor), anchor + 9),
    }
    assert found == [None if value is None else wanted[part](value) for value in values]


def check_interval(name, decoded, values):
    for value, low, high, typical in zip(
        values, *(decoded[f"{name}{end}"] for end in ("_low", "_high", "")), strict=True
    ):
        if value is None or value != value:
            assert (low, high, typical) == (None, None, None)
        elif abs(value) >= 2.3e-308:  # below lie subnormal numbers, which count as zero
            assert low <= abs(value) <= high
            # A bin that no training value fell in, without an end, has nothing typical.
            assert low <= typical <= high if typical is not None else (low, high) == (0, math.inf)
        else:
            assert (low, high, typical) == (0.0, 0.0, 0.0)


@PROPERTY
@given(st.lists(st.tuples(st.none() | words, st.none() | words), min_size=1, max_size=6))
def test_two_adjacent_texts_stay_apart(pairs):
    schema = DomainSchema("two", [FieldSpec("f0", "text", max_tokens=4), FieldSpec("f1", "text")])
    frame = pl.DataFrame(pairs, schema={"f0": pl.String, "f1": pl.String}, orient="row")
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=270).fit(frame)
    hugging_face = tokenizer.to_hf()
    columnar = event_ids(tokenizer.encode(frame))
    for event, ids in zip(frame.iter_rows(named=True), columnar, strict=True):
        assert hugging_face(tokenizer.render_event(event))["input_ids"] == ids
    decoded = tokenizer.decode([i for ids in columnar for i in ids])
    first, second = tokenizer.fields
    assert decoded["f0"].to_list() == [first.truncate(a) for a, _ in pairs]
    assert decoded["f1"].to_list() == [second.truncate(b) for _, b in pairs]


@cache
def look_alike_tokenizer():
    schema = DomainSchema("s", [FieldSpec("f0", "categorical_fixed"), FieldSpec("f1", "text")])
    frame = pl.DataFrame({"f0": ["a", "b"], "f1": ["[F0=a]", "[PAD]"]})
    return DomainTokenizer(schema, bpe_vocab_size=260).fit(frame)


def test_text_that_looks_like_a_token_stays_text():
    tokenizer = look_alike_tokenizer()
    event = {"f0": "a", "f1": "[F0=b][PAD]"}
    ids = tokenizer.encode_event(event)
    assert ids[0] == tokenizer.vocab.index("[F0=a]")
    assert min(ids[2:]) >= tokenizer.bpe_range[0]
    assert tokenizer.to_hf()(tokenizer.render_event(event))["input_ids"] == ids
    assert tokenizer.decode(ids)["f1"].to_list() == ["[F0=b][PAD]"]


def test_without_escaping_the_property_fails(monkeypatch):
    """The twin of the test above: the look-alikes do find an encoder that does not escape."""
    tokenizer = look_alike_tokenizer()
    monkeypatch.setattr(BytePairModel, "escape", lambda self, text: text)
    event = {"f0": "a", "f1": "[F0=b] unescaped"}
    ids = tokenizer.to_hf()(tokenizer.render_event(event))["input_ids"]
    assert ids != tokenizer.encode_event(event)
    with pytest.raises(TokenizerError, match="cannot stand here"):
        tokenizer.decode(ids)
