"""DomainTokenizer: the vocabulary, tables, stores, single events, and errors that teach."""

import datetime as dt
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.data.store import TokenizedEvents
from domainformer.errors import DataError, DomainformerError, SchemaError, TokenizerError
from domainformer.schema import GENERIC_SPECIALS, DomainSchema, FieldSpec
from domainformer.tokenizers import (
    DomainTokenizer,
    describe_vocabulary,
    encoder,
    render_vocabulary,
)
from domainformer.tokenizers.fields import ElapsedTimeTokenizer

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("direction", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=5),
        FieldSpec("time", "temporal", calendar_fields=("month", "hour"), elapsed_bins=4),
        FieldSpec("shop", "text", max_tokens=6),
    ],
)


def cards(n_entities=4, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, n_entities)
    n = int(lengths.sum())
    start = dt.datetime(2024, 1, 1)
    shops = np.array(["corner shop", "Café 21", "[PAD] store", ""])
    frame = pl.DataFrame(
        {
            "card": np.repeat(np.arange(n_entities), lengths),
            "time": [start + dt.timedelta(hours=int(h)) for h in rng.integers(0, 9000, n)],
            "kind": rng.choice(["fuel", "food", "rent"], n),
            "amount": np.round(rng.normal(0, 50, n), 2),
            "shop": rng.choice(shops, n),
        }
    )
    nulls = [
        pl.when(pl.Series(rng.random(n) > 0.1)).then(pl.col(c)).alias(c)
        for c in ("kind", "amount", "shop")
    ]
    return EventTable.of(frame.with_columns(nulls), entity="card", time="time")


@pytest.fixture(scope="module")
def table():
    return cards()


@pytest.fixture(scope="module")
def tokenizer(table):
    return DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(table)


# ── the vocabulary ────────────────────────────────────────────────────────────────────────────


def test_ids_begin_with_specials_and_slots_cover_the_rest(tokenizer):
    assert tuple(tokenizer.vocab[:4]) == GENERIC_SPECIALS
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    position = 4
    for slot in tokenizer.slots:
        assert slot.start == position
        assert tokenizer.vocab[slot.missing].endswith("_MISSING]")
        position = slot.stop
    assert tokenizer.bpe_range == (position, tokenizer.vocab_size)
    assert [slot.name for slot in tokenizer.slots] == [
        "kind", "direction", "amount", "time.month", "time.hour", "time.elapsed", "shop",
    ]  # fmt: skip
    assert [slot.ragged for slot in tokenizer.slots] == [False] * 6 + [True]
    assert len(set(tokenizer.vocab)) == tokenizer.vocab_size


def test_the_vocabulary_is_that_of_the_backend(tokenizer):
    assert [
        tokenizer.backend.id_to_token(i) for i in range(tokenizer.vocab_size)
    ] == tokenizer.vocab


def test_without_text_there_is_no_bpe(table):
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    fitted = DomainTokenizer(schema).fit(table)
    assert fitted.bpe_range == (fitted.vocab_size, fitted.vocab_size)
    assert fitted.backend.encode("[KIND=fuel]what[KIND=food]").tokens == [
        "[KIND=fuel]", "[UNK]", "[KIND=food]",
    ]  # fmt: skip


def test_a_corpus_adds_bpe_even_without_a_text_field(table):
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    fitted = DomainTokenizer(schema, bpe_vocab_size=258).fit(table, text_corpus=["tea tea"])
    first, stop = fitted.bpe_range
    assert (stop - first, fitted.vocab[-1]) == (258, "tea")


def test_a_corpus_that_spells_tokens_cannot_teach_them(table):
    corpus = ["[_]", "[_]", "[_=$]"] * 50
    frame = pl.DataFrame({"_": ["$", "%"]})
    schema = DomainSchema("s", [FieldSpec("_", "categorical_fixed")])
    fitted = DomainTokenizer(schema, bpe_vocab_size=300).fit(frame, text_corpus=corpus)
    assert "[_=$]" in fitted.vocab
    assert "[_=$]" not in fitted.vocab[fitted.bpe_range[0] :]


def test_equal_data_give_equal_tokenizers_in_any_row_order_of_ties(table, tokenizer):
    again = DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(cards())
    assert again.fingerprint == tokenizer.fingerprint
    assert again.backend.to_str() == tokenizer.backend.to_str()
    other = DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(cards(seed=1))
    assert other.fingerprint != tokenizer.fingerprint


def test_description_of_slots_and_tokens(tokenizer):
    slots = describe_vocabulary(tokenizer)
    assert slots[0]["ids"] == [4, tokenizer.slots[0].stop - 1]
    assert slots[-1]["kind"] == "bpe"
    amounts = describe_vocabulary(tokenizer, field="amount")
    assert [row["token"] for row in amounts[:2]] == ["[AMOUNT_MISSING]", "[AMOUNT=B00]"]
    assert [row["id"] for row in describe_vocabulary(tokenizer, field="shop")] == list(
        range(tokenizer.slots[-1].start, tokenizer.slots[-1].stop)
    )
    assert render_vocabulary(amounts).row_count == len(amounts)
    with pytest.raises(TokenizerError, match="did you mean 'amount'"):
        describe_vocabulary(tokenizer, field="amuont")


# ── tables ────────────────────────────────────────────────────────────────────────────────────


def test_encode_gives_arrays_that_fit_together(table, tokenizer):
    roles = np.arange(table.n_events, dtype=np.uint8) % 3
    encoded = tokenizer.encode(table, roles=roles)
    encoded.validate()
    assert encoded.ids.dtype == np.uint16
    assert encoded.n_events == table.n_events
    assert encoded.n_entities == table.n_entities
    assert encoded.times.tolist() == table.time_values.tolist()
    assert encoded.roles.tolist() == roles.tolist()
    assert encoded.tokenizer_fingerprint == tokenizer.fingerprint


def test_a_small_vocabulary_takes_one_byte(table):
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    assert DomainTokenizer(schema).fit(table).encode(table).ids.dtype == np.uint8


def test_passes_do_not_show(table, tokenizer, monkeypatch):
    whole = tokenizer.encode(table)
    monkeypatch.setattr(encoder, "_EVENTS_PER_PASS", 3)
    assert tokenizer.encode(table) == whole


@pytest.fixture
def numbered(monkeypatch):
    """Columns that were asked for their distinct strings."""
    pytest.importorskip("numba")
    calls = []
    real = encoder.known_values
    monkeypatch.setattr(encoder, "known_values", lambda c: calls.append(c) or real(c))
    return calls


LONG = "a string too long for an Arrow view to hold"


@pytest.mark.parametrize(
    "column",
    [
        pl.Series(["", None, "", None, LONG, "b"] * 10),
        pl.Series([None, "", LONG, LONG[:-1], LONG[:4], LONG[:12], LONG[:13]] * 10),
        pl.Series([None, "", LONG, "b"] * 20).slice(3, 50),
        pl.concat([pl.Series([LONG, "x"] * 9), pl.Series(["x", LONG, None] * 9)], rechunk=False),
        pl.Series([LONG, "y"] * 30).gather([5, 4, 3, 2, 1, 0] * 8),
        pl.Series([f"{LONG} {i}" for i in range(60)]),
        pl.Series([None] * 20, dtype=pl.String),
        pl.Series(["é😀" * 9, "é😀" * 9, None] * 9).cast(pl.Categorical),
    ],
    ids=[
        "empty first",
        "null first",
        "sliced",
        "chunks",
        "gathered",
        "distinct",
        "null",
        "category",
    ],
)
def test_distinct_strings_give_equal_ids(numbered, column):
    schema = DomainSchema(
        "s",
        [FieldSpec("kind", "categorical_fixed", column="x"), FieldSpec("x", "text", max_tokens=4)],
    )
    frame = pl.DataFrame({"x": column})
    fitted = DomainTokenizer(schema, bpe_vocab_size=270).fit(frame)
    plain = fitted.encode(frame, compiled=False)
    assert not numbered
    assert fitted.encode(frame, compiled=True) == plain
    assert len(numbered) == 1  # two fields, one column


@pytest.mark.parametrize("shard_events", [1, 4, 10_000])
def test_a_store_holds_what_encode_gives(table, tokenizer, tmp_path, shard_events):
    roles = np.arange(table.n_events, dtype=np.uint8) % 3
    whole = tokenizer.encode(table, roles=roles)
    store = tokenizer.encode_to_store(
        table, tmp_path / "store", roles=roles, shard_events=shard_events, meta={"a": 1}
    )
    assert store.meta == {"a": 1}
    assert store.tokenizer_fingerprint == tokenizer.fingerprint
    assert (store.n_tokens, store.n_events) == (whole.n_tokens, whole.n_events)
    for index in range(table.n_entities):
        kept, wanted = store.history(index), whole.history(index)
        assert kept.entity_id == wanted.entity_id
        for name in ("ids", "event_offsets", "times", "roles"):
            assert getattr(kept, name).tolist() == getattr(wanted, name).tolist()


def test_roles_must_fit(table, tokenizer, tmp_path):
    with pytest.raises(DataError, match="2 roles for"):
        tokenizer.encode_to_store(table, tmp_path / "s", roles=np.zeros(2, np.uint8))
    assert not (tmp_path / "s").exists()


def test_a_frame_is_one_history():
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    frame = pl.DataFrame({"kind": ["a", "b"]})
    fitted = DomainTokenizer(schema).fit(frame)
    encoded = fitted.encode(frame)
    assert isinstance(encoded, TokenizedEvents)
    assert (encoded.n_entities, encoded.n_events) == (1, 2)
    nothing = fitted.encode(frame.clear())
    assert (nothing.n_entities, nothing.n_events, nothing.n_tokens) == (0, 0, 0)


def test_elapsed_needs_entities_and_the_tables_own_time(table):
    schema = DomainSchema("s", [FieldSpec("time", "temporal", elapsed_bins=4)])
    with pytest.raises(SchemaError, match="EventTable"):
        DomainTokenizer(schema).fit(table.frame)
    other = EventTable.of(
        table.frame.with_columns(pl.col("time").alias("booked")), entity="card", time="booked"
    )
    with pytest.raises(SchemaError, match="time column is 'booked'"):
        DomainTokenizer(schema).fit(other)


def test_elapsed_tokens_of_first_unknown_and_tied_events():
    times = [
        None,
        dt.datetime(2024, 1, 1),
        dt.datetime(2024, 1, 2),
        dt.datetime(2024, 1, 1),
        dt.datetime(2024, 1, 1),
    ]
    frame = pl.DataFrame({"who": [1, 1, 1, 2, 2], "at": times})
    events = EventTable.of(frame, entity="who", time="at")
    schema = DomainSchema("s", [FieldSpec("at", "temporal", calendar_fields=(), elapsed_bins=4)])
    fitted = DomainTokenizer(schema).fit(events)
    assert [fitted.vocab[i] for i in fitted.encode(events).ids] == [
        "[AT_ELAPSED_MISSING]",
        "[AT_ELAPSED_MISSING]",
        "[AT_ELAPSED=B01]",
        "[AT_ELAPSED=FIRST]",
        "[AT_ELAPSED=B00]",
    ]
    tied = {"at": times[3]}
    assert fitted.tokenize_event(tied, times[3]) == ["[AT_ELAPSED=B00]"]
    assert fitted.tokenize_event(tied, math.nan) == ["[AT_ELAPSED_MISSING]"]


def test_integer_times(tmp_path):
    frame = pl.DataFrame({"who": [1, 1, 1], "step": [3, 5, 90]})
    events = EventTable.of(frame, entity="who", time="step")
    schema = DomainSchema("s", [FieldSpec("step", "temporal", calendar_fields=(), elapsed_bins=4)])
    fitted = DomainTokenizer(schema).fit(events)
    ids = fitted.encode(events).ids.tolist()
    assert ids == [
        i
        for at, last in ((3, None), (5, 3), (90, 5))
        for i in fitted.encode_event({"step": at}, last)
    ]
    loaded = DomainTokenizer.from_pretrained(fitted.save_pretrained(tmp_path / "t"))
    assert isinstance(loaded.fields[0], ElapsedTimeTokenizer)
    assert loaded.fields[0].time_kind == "integer"


# ── decoding ──────────────────────────────────────────────────────────────────────────────────


def test_sign_and_magnitude_come_back_as_one_column(table, tokenizer):
    decoded = tokenizer.decode(tokenizer.encode(table).ids, intervals=True)
    assert decoded.columns == [
        "kind", "amount", "amount_low", "amount_high", "time_month", "time_hour",
        "time_elapsed", "time_elapsed_low", "time_elapsed_high", "shop",
    ]  # fmt: skip
    amounts = table.frame["amount"]
    assert (decoded["amount"].is_null() == amounts.is_null()).all()
    inside = (decoded["amount_low"] <= amounts) & (amounts <= decoded["amount_high"])
    assert inside.drop_nulls().all()
    assert (decoded["amount"].sign() == amounts.sign()).drop_nulls().all()


def test_columns_that_several_fields_read_come_back_by_field():
    schema = DomainSchema(
        "s",
        [FieldSpec("code", "categorical_fixed"), FieldSpec("spelt", "text", column="code")],
    )
    frame = pl.DataFrame({"code": ["a b", "c"]})
    fitted = DomainTokenizer(schema, bpe_vocab_size=256).fit(frame)
    decoded = fitted.decode(fitted.encode(frame).ids)
    assert decoded.to_dict(as_series=False) == {"code": ["a b", "c"], "spelt": ["a b", "c"]}


def test_specials_may_stand_between_events(table, tokenizer):
    encoded = tokenizer.encode(table)
    first, second = encoded.history(0).event(0).tolist(), encoded.history(1).event(0).tolist()
    decoded = tokenizer.decode([1, *first, 2, 0, 0, 1, *second, 0])
    assert decoded.equals(tokenizer.decode(first + second))
    assert tokenizer.decode([1, 0]).height == tokenizer.decode([]).height == 0


@pytest.mark.parametrize(
    ("spoil", "where", "why"),
    [
        (lambda ids: [1, *ids[1:]], "position 1", "slot 'kind'"),
        (lambda ids: [*ids[:2], 0, *ids[2:]], "position 2", "slot 'amount'"),
        (lambda ids: ids[:3], "position 3", "slot 'time.month' is missing"),
        (lambda ids: [ids[1], ids[0], *ids[2:]], "position 0", "slot 'kind'"),
        (lambda ids: [ids[-1], *ids], "position 0", "slot 'kind'"),
        (lambda ids: [*ids, 3], "position", "slot 'kind'"),
        (lambda ids: [*ids, 99_999], "position", None),
        (lambda ids: [*ids, -1], "position", None),
    ],
)
def test_malformed_ids_are_named(tokenizer, spoil, where, why):
    event = {"kind": "fuel", "amount": 3.0, "time": dt.datetime(2024, 1, 1), "shop": "corner"}
    ids = tokenizer.encode_event(event)
    with pytest.raises(TokenizerError) as caught:
        tokenizer.decode(spoil(ids))
    assert where in caught.value.where
    if why:
        assert why in caught.value.why


def test_bpe_after_a_missing_text_is_malformed(tokenizer):
    event = {"kind": None, "amount": None, "time": None, "shop": None}
    ids = tokenizer.encode_event(event)
    with pytest.raises(TokenizerError, match="cannot stand here"):
        tokenizer.decode([*ids, tokenizer.bpe_range[0]])


@pytest.mark.parametrize("ids", [[[1, 2]], [1.5], ["[PAD]"]])
def test_what_is_no_sequence_of_ids(tokenizer, ids):
    with pytest.raises(TokenizerError, match="flat sequence"):
        tokenizer.decode(ids)


# ── single events and bad input ───────────────────────────────────────────────────────────────


def test_single_events_equal_the_table(table, tokenizer):
    encoded = tokenizer.encode(table)
    history = encoded.history(0)
    events = table.take_entities([0]).frame.to_dicts()
    previous = None
    for index, event in enumerate(events):
        assert tokenizer.encode_event(event, previous) == history.event(index).tolist()
        previous = event["time"]


def test_a_missing_column_is_named(tokenizer):
    event = {"kind": "fuel", "amuont": 3.0, "time": None, "shop": None}
    with pytest.raises(TokenizerError, match="no 'amount'") as caught:
        tokenizer.encode_event(event)
    assert "amuont" in caught.value.next_step
    with pytest.raises(TokenizerError, match="'kind', 'amount', 'time', 'shop'"):
        tokenizer.render_event({})


@pytest.mark.parametrize(
    ("column", "value"),
    [("amount", "three"), ("time", "2024-01-01"), ("time", 5)],
)
def test_wrong_values_are_refused(tokenizer, column, value):
    event = {"kind": "fuel", "amount": 3.0, "time": None, "shop": None} | {column: value}
    with pytest.raises(TokenizerError):
        tokenizer.encode_event(event)


def test_times_that_cannot_be_compared(tokenizer):
    event = {"kind": "a", "amount": 1.0, "time": dt.datetime(2024, 1, 1), "shop": None}
    with pytest.raises(TokenizerError, match="cannot be compared"):
        tokenizer.encode_event(event, previous_time=7)


def test_nothing_works_before_fit(table, tmp_path):
    fresh = DomainTokenizer(SCHEMA)
    assert not fresh.fitted
    assert "not fitted" in repr(fresh)
    for call in (
        lambda: fresh.encode(table),
        lambda: fresh.decode([1]),
        lambda: fresh.encode_event({}),
        lambda: fresh.vocab_size,
        lambda: fresh.slots,
        lambda: fresh.save_pretrained(tmp_path / "t"),
    ):
        with pytest.raises(TokenizerError, match="not fitted"):
            call()
    assert not (tmp_path / "t").exists()


def test_bad_tables(table, tokenizer):
    with pytest.raises(SchemaError, match="'shop'"):
        DomainTokenizer(SCHEMA).fit(
            EventTable.of(table.frame.drop("shop"), entity="card", time="time")
        )
    with pytest.raises(SchemaError, match="'kind'"):
        tokenizer.encode(EventTable.of(table.frame.drop("kind"), entity="card", time="time"))
    with pytest.raises(DataError, match="no events"):
        DomainTokenizer(DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])).fit(
            table.frame.clear()
        )
    with pytest.raises(TokenizerError, match=r"EventTable\.of"):
        tokenizer.encode({"kind": ["a"]})


def test_an_all_null_column_and_one_event():
    frame = pl.DataFrame(
        {
            "card": [1],
            "time": [dt.datetime(2024, 1, 1)],
            "kind": pl.Series([None], dtype=pl.String),
            "amount": pl.Series([None], dtype=pl.Float64),
            "shop": pl.Series([None], dtype=pl.Null),
        }
    )
    events = EventTable.of(frame, entity="card", time="time")
    fitted = DomainTokenizer(SCHEMA, bpe_vocab_size=256).fit(events)
    tokens = [fitted.vocab[i] for i in fitted.encode(events).ids]
    assert tokens == [
        "[KIND_MISSING]", "[DIRECTION_MISSING]", "[AMOUNT_MISSING]",
        "[TIME_MONTH=01]", "[TIME_HOUR=00]", "[TIME_ELAPSED=FIRST]", "[SHOP_MISSING]",
    ]  # fmt: skip


def test_a_bpe_without_room_for_bytes():
    with pytest.raises(TokenizerError, match="256"):
        DomainTokenizer(SCHEMA, bpe_vocab_size=100)


def test_every_error_is_ours(tokenizer):
    """Columns of every wrong type: an error that teaches, never one from polars."""
    wrong = [pl.Series([[1]]), pl.Series([b"x"]), pl.Series([{"a": 1}]), pl.Series([dt.time(1)])]
    for name in ("kind", "amount", "time", "shop"):
        for column in wrong:
            frame = pl.DataFrame(
                {"card": [1], "kind": ["a"], "amount": [1.0], "shop": ["b"], "at": [1]}
            ).with_columns(time=dt.datetime(2024, 1, 1))
            frame = frame.with_columns(column.alias(name))
            with pytest.raises(DomainformerError):
                tokenizer.encode(EventTable.of(frame, entity="card", time="at"))


def test_tokenizing_loads_no_heavy_library():
    code = (
        "import sys, polars as pl\n"
        "from domainformer.schema import DomainSchema, FieldSpec\n"
        "from domainformer.tokenizers import DomainTokenizer\n"
        "frame = pl.DataFrame({'a': ['x', None]})\n"
        "schema = DomainSchema('s', [FieldSpec('a', 'text')])\n"
        "tokenizer = DomainTokenizer(schema).fit(frame)\n"
        "tokenizer.encode(frame, compiled=False)\n"
        "tokenizer.encode(frame)\n"
        # pandas would take half a second.
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
