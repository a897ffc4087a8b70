"""One table of all field tokenizers; each property is tested over all of them."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainformer.errors import ArtifactError, TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers.base import MISSING, Ragged
from domainformer.tokenizers.fields import (
    BinTokenizer,
    BytePairModel,
    CalendarTokenizer,
    ElapsedTimeTokenizer,
    TextTokenizer,
    field_tokenizers,
    hash_bucket,
    restore,
    train_bpe,
)

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
BPE = BytePairModel(
    train_bpe(
        ["corner shop", "corner café", "card payment [PAD]", "שלום עולם", "🙂 it's fine"],
        [5, 4, 3, 2, 1],
        300,
        ["[PAD]", "[NOTE]", "[NOTE_MISSING]", "[KIND=a%20b]"],
    )
)

TRICKY_TEXT = [
    "",
    " ",
    "  two  blanks ",
    "corner shop",
    "[PAD]",
    "[NOTE][PAD]] [[PAD]",
    "\ue000[PAD]\ue000\ue000",
    "[\ue000PAD]",
    "it's \"quoted\" 'twice'",
    "🙂👩‍👩‍👧 👍🏽",
    "שלום עולם مرحبا",
    "tab\tnew\nline\r\u0085\u00a0\u200b\u2028",
    "a\u0301 é ﬁ \x00\x1f",
    "x" * 10_000,
    "é🙂[PAD] " * 1_200,
]
TEXTS = st.one_of(
    st.sampled_from(TRICKY_TEXT), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
)
FLOATS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-50, 50).map(float),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-308, 1.7e308]),
)
WHOLE = st.one_of(st.integers(-12, 12), st.integers(-(2**63), 2**63 - 1))
TIMES = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59))


@dataclass(frozen=True)
class Component:
    """A field tokenizer with data to fit and try it on, and a slow, obvious encoder."""

    name: str
    spec: FieldSpec
    training: pl.Series
    values: st.SearchStrategy[Any]
    oracle: Callable[[Any, Any], tuple[int, ...]]
    null: tuple[int, ...] = (MISSING,)
    which: int = 0
    time_kind: str = "datetime"
    # Local ids that decode to nothing, and so cannot come back.
    lossy: frozenset[int] = frozenset()

    def fitted(self, column: pl.Series | None = None) -> Any:
        tokenizer = field_tokenizers(self.spec, time_kind=self.time_kind)[self.which]
        if isinstance(tokenizer, TextTokenizer):
            tokenizer.bind(BPE)
        return tokenizer.fit(self.training if column is None else column)

    def column(self, values: list[Any]) -> pl.Series:
        return pl.Series("c", values, dtype=self.training.dtype, strict=True)


def slow_bin(tokenizer: BinTokenizer, value: float) -> tuple[int, ...]:
    if math.isnan(value):
        return (MISSING,)
    number = abs(value) if tokenizer.absolute else value
    return (1 + sum(1 for edge in tokenizer.edges if edge <= number),)


def slow_sign(tokenizer: Any, value: float) -> tuple[int, ...]:
    if math.isnan(value):
        return (MISSING,)
    return (tokenizer.vocab.index("[AMOUNT=NEG]" if value < 0 else "[AMOUNT=POS]"),)


def slow_discrete(tokenizer: Any, value: float) -> tuple[int, ...]:
    if value != value:
        return (MISSING,)
    for index, token in enumerate(tokenizer.vocab):
        if "=" in token and int(token.split("=")[1][:-1]) == value:
            return (index,)
    return (1,)


def slow_category(tokenizer: Any, value: Any) -> tuple[int, ...]:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    for index in range(len(tokenizer.vocab)):
        if tokenizer.describe(index).get("value") == text:
            return (index,)
    buckets = tokenizer.spec.hash_buckets
    if not buckets:
        return (1,)
    return (len(tokenizer.vocab) - buckets + hash_bucket(text, buckets),)


def slow_calendar(tokenizer: CalendarTokenizer, value: dt.date) -> tuple[int, ...]:
    hour = f"{value.hour:02d}" if isinstance(value, dt.datetime) else None
    texts = {
        "month": f"{value:%m}",
        "dow": f"{value:%u}",
        "dom": f"{value:%d}",
        "hour": hour,
        "quarter": str((value.month - 1) // 3 + 1),
        "year": str(min(9, max(0, value.year - tokenizer.anchor))),
    }
    tokens = []
    for part in tokenizer.parts:
        stem = f"[WHEN_{part.upper()}"
        tokens.append(f"{stem}_MISSING]" if texts[part] is None else f"{stem}={texts[part]}]")
    return tuple(map(tokenizer.vocab.index, tokens))


def slow_elapsed(tokenizer: ElapsedTimeTokenizer, gap: float) -> tuple[int, ...]:
    if math.isnan(gap):
        return (MISSING,)
    if gap == -math.inf:
        return (1,)
    return (2 + sum(1 for edge in tokenizer.edges[1:] if edge <= gap),)


def slow_text(tokenizer: TextTokenizer, value: str) -> tuple[int, ...]:
    kept = tokenizer.truncate(value)
    assert kept is not None
    assert value.startswith(kept)
    plain = BytePairModel(train_bpe([], [], 256), fast=False)
    plain._tokenizer, plain.specials = BPE._tokenizer, BPE.specials
    return (1, *(2 + token for token in plain.encode(kept)))


def amounts(*, seed: int = 0, dtype: Any = pl.Float64) -> pl.Series:
    rng = np.random.default_rng(seed)
    values = np.round(rng.lognormal(3, 1.5, 400) * rng.choice([-1, 1], 400), 2)
    values[::9] = 0.0
    values[::7] = 9.99
    return pl.Series([None, *values.tolist(), math.nan, math.inf], dtype=pl.Float64).cast(dtype)


def moments() -> pl.Series:
    start = dt.datetime(2019, 12, 30, 23, 59, 59, 999_999)
    return pl.Series([None, *(start + dt.timedelta(hours=37 * k) for k in range(300))])


CALENDAR = ("month", "dow", "dom", "hour", "quarter", "year")
CALENDAR_NULL = (0, 13, 21, 53, 78, 83)
LABELS = ["b", "a", "b", None, "", "a b", "[x]", "50%", "é", "c", "c", "c", "[NOTE]"]

COMPONENTS = [
    Component("sign", FieldSpec("amount", "sign"), amounts(), FLOATS, slow_sign),
    Component("quantile", FieldSpec("amount", "numerical_continuous"), amounts(), FLOATS, slow_bin),
    Component(
        "quantile-many",
        FieldSpec("amount", "numerical_continuous", n_bins=120),
        amounts(),
        FLOATS,
        slow_bin,
    ),
    Component(
        "log",
        FieldSpec("amount", "numerical_continuous", binning="log", n_bins=9),
        amounts(),
        FLOATS,
        slow_bin,
    ),
    Component(
        "fixed",
        FieldSpec("amount", "numerical_continuous", binning="fixed", edges=(1.0, 10.0, 1e9)),
        amounts(),
        FLOATS,
        slow_bin,
    ),
    Component(
        "integers",
        FieldSpec("amount", "numerical_continuous", n_bins=5),
        pl.Series([None, 0, 1, 1, 1, 2, 5, -9, 40, 2**60]),
        WHOLE,
        slow_bin,
    ),
    Component(
        "discrete",
        FieldSpec("count", "numerical_discrete", vocab_size=4),
        pl.Series([None, 1, 1, 2, 3, 3, -1, 7, 7, 7]),
        WHOLE,
        slow_discrete,
        lossy=frozenset({1}),
    ),
    Component(
        "discrete-wide",
        FieldSpec("count", "numerical_discrete"),
        pl.Series([None, -(2**63), 2**63 - 1, 0, 5]),
        WHOLE,
        slow_discrete,
        lossy=frozenset({1}),
    ),
    Component(
        "discrete-floats",
        FieldSpec("count", "numerical_discrete"),
        pl.Series([None, 1.0, 2.0, -3.0, math.nan, 2.5, math.inf]),
        FLOATS,
        slow_discrete,
        lossy=frozenset({1}),
    ),
    Component(
        "category",
        FieldSpec("kind", "categorical_fixed", min_frequency=1),
        pl.Series(LABELS),
        TEXTS | st.sampled_from(LABELS[:3]),
        slow_category,
        lossy=frozenset({1}),
    ),
    Component(
        "category-hashed",
        FieldSpec("kind", "categorical_fixed", vocab_size=2, hash_buckets=3),
        pl.Series(LABELS),
        TEXTS | st.sampled_from(LABELS[:3]),
        slow_category,
        lossy=frozenset({1, 4, 5, 6}),
    ),
    Component(
        "category-integers",
        FieldSpec("kind", "categorical_fixed", min_frequency=2),
        pl.Series([None, 3, 3, 1, -1, -1]),
        WHOLE,
        slow_category,
        lossy=frozenset({1}),
    ),
    Component(
        "category-booleans",
        FieldSpec("kind", "categorical_fixed"),
        pl.Series([None, True, False, True]),
        st.booleans(),
        slow_category,
        lossy=frozenset({1}),
    ),
    Component(
        "category-enum",
        FieldSpec("kind", "categorical_fixed"),
        pl.Series(["x", None, "y", "x"], dtype=pl.Enum(["z", "y", "x", "never"])),
        st.sampled_from(["x", "y", "z", "never"]),
        slow_category,
        lossy=frozenset({1}),
    ),
    Component(
        "category-categorical",
        FieldSpec("kind", "categorical_fixed"),
        pl.Series(["x", None, "y", "x"], dtype=pl.Categorical),
        st.sampled_from(["x", "y", "unseen here"]),
        slow_category,
        lossy=frozenset({1}),
    ),
    Component(
        "entity",
        FieldSpec("kind", "categorical_entity", min_frequency=2, hash_buckets=2),
        pl.Series(LABELS),
        TEXTS | st.sampled_from(LABELS[:3]),
        slow_category,
        lossy=frozenset({1, 4, 5}),
    ),
    Component(
        "datetimes",
        FieldSpec("when", "temporal", calendar_fields=CALENDAR),
        moments(),
        TIMES,
        slow_calendar,
        null=CALENDAR_NULL,
    ),
    Component(
        "dates",
        FieldSpec("when", "temporal", calendar_fields=CALENDAR, year_anchor=2015),
        moments().dt.date(),
        st.dates(),
        slow_calendar,
        null=CALENDAR_NULL,
    ),
    Component(
        "hours",
        FieldSpec("when", "temporal", calendar_fields=("hour",)),
        moments(),
        TIMES,
        slow_calendar,
    ),
    Component(
        "elapsed",
        FieldSpec("when", "temporal", elapsed_bins=10),
        amounts().abs(),
        FLOATS,
        slow_elapsed,
        null=(1,),
        which=1,
    ),
    Component(
        "elapsed-days",
        FieldSpec("when", "temporal", calendar_fields=(), elapsed_bins=12),
        pl.Series([None, *(86_400.0 * d for d in (0, 1, 1, 2, 3, 3, 9, 30, 400))]),
        st.integers(0, 1000).map(lambda days: 86_400.0 * days),
        slow_elapsed,
        null=(1,),
        time_kind="date",
    ),
    Component(
        "text",
        FieldSpec("note", "text", max_tokens=9),
        pl.Series(TRICKY_TEXT),
        TEXTS,
        slow_text,
    ),
]
FIXED = [component for component in COMPONENTS if component.name != "text"]


def rows(encoded: Any) -> list[tuple[int, ...]]:
    lists = encoded.rows() if isinstance(encoded, Ragged) else encoded.tolist()
    return [tuple(row) for row in lists]


def each(components: list[Component]) -> Any:
    return pytest.mark.parametrize("component", components, ids=lambda c: c.name)


@each(COMPONENTS)
@SETTINGS
@given(data=st.data())
def test_encode_equals_the_slow_oracle_and_the_scalar_path(component: Component, data: Any) -> None:
    values = data.draw(st.lists(st.none() | component.values, max_size=12))
    tokenizer = component.fitted()
    column = component.column(values)
    encoded = rows(tokenizer.encode(column))
    assert encoded == [
        component.null if value is None else component.oracle(tokenizer, value)
        for value in column.to_list()
    ]
    assert encoded == [tokenizer.encode_one(value) for value in column.to_list()]


@each(COMPONENTS)
def test_training_data_encodes_as_the_oracle_says(component: Component) -> None:
    tokenizer = component.fitted()
    for value, row in zip(
        component.training, rows(tokenizer.encode(component.training)), strict=True
    ):
        assert row == (component.null if value is None else component.oracle(tokenizer, value))


@each(COMPONENTS)
def test_vocabulary_is_distinct_and_starts_with_missing(component: Component) -> None:
    vocab = component.fitted().vocab
    assert len(set(vocab)) == len(vocab)
    assert vocab[MISSING].endswith("_MISSING]")
    assert all(token[0] == "[" and token[-1] == "]" for token in vocab)
    assert not any(character.isspace() or character in "[]" for t in vocab for character in t[1:-1])


@each(FIXED)
def test_ids_lie_in_their_slots(component: Component) -> None:
    tokenizer = component.fitted()
    ids = tokenizer.encode(component.training)
    assert ids.dtype == np.int32
    assert ids.shape == (len(component.training), tokenizer.width)
    assert len(tokenizer.slots) == tokenizer.width
    for column, slot in zip(ids.T, tokenizer.slots, strict=True):
        assert slot.start <= column.min()
        assert column.max() < slot.stop
    assert tokenizer.slots[0].start == 0
    assert tokenizer.slots[-1].stop == len(tokenizer.vocab)


@each([c for c in FIXED if c.spec.field_type != "temporal" or c.name.startswith("elapsed")])
def test_decode_then_encode_gives_every_id_back(component: Component) -> None:
    tokenizer = component.fitted()
    ids = np.array([i for i in range(len(tokenizer.vocab)) if i not in component.lossy])[:, None]
    decoded = tokenizer.decode(ids)
    assert len(decoded) == len(ids)
    assert tokenizer.encode(decoded).tolist() == ids.tolist()
    lossy = np.array(sorted(component.lossy), dtype=int)[:, None]
    assert tokenizer.decode(lossy).null_count() == len(lossy)


@each([c for c in COMPONENTS if c.name in ("datetimes", "dates", "hours")])
def test_calendar_decodes_to_the_parts_of_the_date(component: Component) -> None:
    tokenizer, column = component.fitted(), component.training
    decoded = tokenizer.decode(tokenizer.encode(column)).struct.unnest()
    parts = {"dow": "weekday", "dom": "day"}
    for part in tokenizer.parts:
        if part == "hour" and column.dtype == pl.Date:
            assert decoded[part].null_count() == len(column)
        else:
            want = getattr(column.dt, parts.get(part, part))()
            assert decoded[part].to_list() == want.to_list()


@each(COMPONENTS)
def test_every_id_is_described(component: Component) -> None:
    tokenizer = component.fitted()
    for index, token in enumerate(tokenizer.vocab):
        description = tokenizer.describe(index)
        assert description["token"] == token
        json.dumps(description, allow_nan=False)
    assert tokenizer.describe(MISSING)["kind"] == "missing"
    with pytest.raises(TokenizerError, match="no local id"):
        tokenizer.describe(-1)
    with pytest.raises(TokenizerError, match="no local id"):
        tokenizer.describe(100_000)


@each(COMPONENTS)
def test_state_survives_json(component: Component) -> None:
    tokenizer = component.fitted()
    state = json.loads(json.dumps(tokenizer.state(), allow_nan=False))
    again = restore(component.spec, state)
    if isinstance(again, TextTokenizer):
        again.bind(BPE)
    assert again.state() == tokenizer.state()
    assert again.vocab == tokenizer.vocab
    assert rows(again.encode(component.training)) == rows(tokenizer.encode(component.training))
    described = [again.describe(index) for index in range(len(again.vocab))]
    assert described == [tokenizer.describe(index) for index in range(len(again.vocab))]


@each(COMPONENTS)
def test_a_damaged_state_is_an_error(component: Component) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        restore(component.spec, {"kind": "nonsense"})


@each(COMPONENTS)
def test_fit_does_not_depend_on_the_order_of_rows(component: Component) -> None:
    shuffled = component.training.sample(fraction=1, shuffle=True, seed=3)
    assert component.fitted(shuffled).state() == component.fitted().state()


@each(COMPONENTS)
def test_empty_and_all_null_columns(component: Component) -> None:
    tokenizer = component.fitted()
    kind = component.training.dtype
    assert rows(tokenizer.encode(pl.Series([], dtype=kind))) == []
    for dtype in (kind, pl.Null):
        nulls = pl.Series([None] * 3, dtype=dtype)
        assert rows(tokenizer.encode(nulls)) == [component.null] * 3
        bare = component.fitted(nulls)
        assert rows(bare.encode(nulls)) == [component.null] * 3
        json.dumps(bare.state(), allow_nan=False)
        # What it never saw still gets an id of its vocabulary, by both paths.
        unseen = rows(bare.encode(component.training))
        assert unseen == [bare.encode_one(value) for value in component.training]
        for index in range(len(bare.vocab)):
            bare.describe(index)
    assert rows(component.fitted(pl.Series([], dtype=kind)).encode(nulls)) == [component.null] * 3


@each([c for c in COMPONENTS if c.name != "text"])
def test_use_before_fit_is_an_error(component: Component) -> None:
    tokenizer = field_tokenizers(component.spec, time_kind=component.time_kind)[component.which]
    assert not tokenizer.fitted
    for use in (
        lambda: tokenizer.encode(component.training),
        lambda: tokenizer.encode_one(None),
        lambda: tokenizer.decode(np.zeros((1, tokenizer.width))),
        lambda: tokenizer.describe(0),
        lambda: tokenizer.state(),
        lambda: tokenizer.vocab,
    ):
        with pytest.raises(TokenizerError, match="not fitted"):
            use()
    assert tokenizer.fit(component.training).fitted


@each(FIXED)
def test_decoding_nonsense_is_an_error(component: Component) -> None:
    tokenizer = component.fitted()
    row = np.zeros((2, tokenizer.width), dtype=int)
    row[:, :] = [slot.start for slot in tokenizer.slots]
    row[1, -1] = tokenizer.slots[-1].stop
    with pytest.raises(TokenizerError, match="does not belong") as caught:
        tokenizer.decode(row)
    assert "row 1" in str(caught.value)
    with pytest.raises(TokenizerError, match="shape"):
        tokenizer.decode(np.zeros((2, tokenizer.width + 1), dtype=int))


@each(COMPONENTS)
def test_columns_of_lists_are_refused_with_the_field_and_the_type(component: Component) -> None:
    with pytest.raises(TokenizerError, match=r"List") as caught:
        component.fitted().encode(pl.Series("c", [[1], [2]]))
    assert component.spec.name in str(caught.value)


@each([c for c in COMPONENTS if c.name in ("sign", "quantile", "discrete", "hours", "elapsed")])
def test_strings_are_no_numbers_and_no_times(component: Component) -> None:
    tokenizer = component.fitted()
    with pytest.raises(TokenizerError, match=r"needs .* String"):
        tokenizer.encode(pl.Series("c", ["1", "2"]))
    with pytest.raises(TokenizerError, match=r"needs .* got '1'"):
        tokenizer.encode_one("1")
    with pytest.raises(TokenizerError, match=r"needs .* String"):
        component.fitted(pl.Series("c", ["1", "2"]))


@each([c for c in COMPONENTS if c.name in ("sign", "quantile", "discrete-floats", "elapsed")])
@pytest.mark.parametrize(
    "column",
    [
        pl.Series([Decimal("-1.00"), None, Decimal("2.50")]),
        pl.Series([2**64 - 1, None, 3], dtype=pl.UInt64),
        pl.Series([2**100, None, -(2**100)], dtype=pl.Int128),
        pl.Series([1, None, -3], dtype=pl.Int8),
        pl.Series([1.5, None, math.nan], dtype=pl.Float32),
        pl.Series([True, None, False]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_all_numeric_types_are_read_alike(component: Component, column: pl.Series) -> None:
    tokenizer = component.fitted()
    assert rows(tokenizer.encode(column)) == [tokenizer.encode_one(value) for value in column]
