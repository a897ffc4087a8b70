"""Extending: new values and merges, and not one old id moves."""

import datetime as dt
import io
import itertools
import math
import random

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from domainformer.data import EventTable
from domainformer.errors import DataError, InputError, SchemaError, TokenizerError
from domainformer.inference import SlotGrammar
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer, extend
from domainformer.tokenizers.fields import BytePairModel, train_bpe
from domainformer.tokenizers.fields.continuation import count_words, further_merges
from domainformer.tokenizers.inspection import describe_vocabulary, validate_tokenizer
from domainformer.tokenizers.vocabulary import merges_of

PROPERTY = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("shop", "text", max_tokens=8),
        FieldSpec("kind", "categorical_fixed", hash_buckets=2),
        FieldSpec("amount", "numerical_continuous", n_bins=5),
        FieldSpec("count", "numerical_discrete"),
        FieldSpec("time", "temporal", calendar_fields=("dow", "hour"), elapsed_bins=4),
        FieldSpec("note", "text", max_tokens=3),
        FieldSpec("who", "categorical_entity"),
    ],
)
START = dt.datetime(2024, 2, 28, 22)


def table_of(kinds, counts, shops, notes=("",), who=("x",)):
    """A table of as many events as the longest list; the others are repeated."""
    columns = {"kind": kinds, "count": counts, "shop": shops, "note": notes, "who": who}
    rows = max(map(len, columns.values()))
    data = {n: list(itertools.islice(itertools.cycle(v), rows)) for n, v in columns.items()}
    data["amount"] = [(-1.5) ** (i % 9) if i % 4 else None for i in range(rows)]
    data["time"] = [START + dt.timedelta(hours=7 * i) for i in range(rows)]
    data["card"] = [i // 4 for i in range(rows)]
    dtypes = dict.fromkeys(("kind", "shop", "note", "who"), pl.String) | {"count": pl.Int64}
    return EventTable.of(pl.DataFrame(data, schema_overrides=dtypes), entity="card", time="time")


OLD = table_of(["a", "b", None, "a"], [1, 5, None], ["corner shop", "", None, "café"])
NEW = table_of(
    ["new one", "a", "newer", "newer", None],
    [3, 5, -7, None],
    ["petrol station", "corner shop", "petrol [KIND=newer]", "[PAD] 日本 petrol"],
    ["petrol", None, "[KIND=a]"],
    ["y", "x", "z"],
)


def fit(table=OLD, schema=SCHEMA):
    return DomainTokenizer(schema, bpe_vocab_size=270).fit(table)


@pytest.fixture(scope="module")
def old():
    return fit()


@pytest.fixture(scope="module")
def new(old):
    return extend(old, NEW).tokenizer


def previous_times(table):
    keys = table.frame.select(table.entity, table.time).rows()
    pairs = zip([(None, None), *keys[:-1]], keys, strict=True)
    return [
        None if before[0] != now[0] else math.nan if before[1] is None else before[1]
        for before, now in pairs
    ]


def assert_three_paths_agree(tokenizer, table, hf=None):
    """Columns (plain and compiled), single events, and the Hugging Face tokenizer."""
    backend = tokenizer.backend if hf is None else hf
    events = tokenizer.encode(table, compiled=False)
    assert events.ids.tolist() == tokenizer.encode(table).ids.tolist()
    rows = zip(table.frame.iter_rows(named=True), previous_times(table), strict=True)
    for index, (row, before) in enumerate(rows):
        ids = events.ids[events.event_offsets[index] : events.event_offsets[index + 1]].tolist()
        assert tokenizer.encode_event(row, before) == ids
        rendered = tokenizer.render_event(row, before)
        if hf is None:
            assert backend.encode(rendered, add_special_tokens=False).ids == ids
        else:
            assert backend(rendered, add_special_tokens=False)["input_ids"] == ids


# ── no old id moves ───────────────────────────────────────────────────────────────────────────


def test_every_old_id_keeps_its_token(old, new):
    assert new.vocab_size > old.vocab_size
    assert new.vocab[: old.vocab_size] == old.vocab
    assert merges_of(new.backend)[: len(merges_of(old.backend))] == merges_of(old.backend)
    for slot, grown in zip(old.slots, new.slots, strict=True):
        assert grown.ids[: slot.width].tolist() == slot.ids.tolist()
        assert grown.missing == slot.missing


def test_what_the_parent_encoded_decodes_the_same(old, new):
    for table in (OLD, NEW):
        ids = old.encode(table).ids
        assert new.decode(ids, intervals=True).equals(old.decode(ids, intervals=True))


def test_old_values_keep_their_ids(old, new):
    """All but text, whose old strings may be spelt by new merges."""
    schema = DomainSchema("plain", [f for f in SCHEMA.fields if f.field_type != "text"])
    old = fit(schema=schema)
    new = extend(old, NEW).tokenizer
    assert new.encode(OLD).ids.tolist() == old.encode(OLD).ids.tolist()


def test_a_new_fit_would_move_ids(old):
    """The sabotage twin: the promise is not kept by fitting on old and new events together."""
    both = EventTable.of(pl.concat([OLD.frame, NEW.frame]), entity="card", time="time")
    assert fit(both).vocab[: old.vocab_size] != old.vocab


def test_new_tokens_stand_at_the_end_in_field_order_and_then_merges(old, new):
    added = new.vocab[old.vocab_size :]
    assert added[:6] == [
        "[KIND=newer]", "[KIND=new%20one]", "[COUNT=-7]", "[COUNT=3]", "[WHO=y]", "[WHO=z]",
    ]  # fmt: skip
    assert added[6:] == [a + b for a, b in merges_of(new.backend)[len(merges_of(old.backend)) :]]
    assert new.bpe_ids.tolist() == [
        *old.bpe_ids.tolist(), *range(old.vocab_size + 6, new.vocab_size),
    ]  # fmt: skip


# ── the three paths ───────────────────────────────────────────────────────────────────────────


def test_the_three_paths_agree_before_and_after_saving(new, tmp_path):
    from transformers import AutoTokenizer

    for table in (OLD, NEW):
        assert_three_paths_agree(new, table)
    folder = new.save_pretrained(tmp_path / "extended")
    loaded = DomainTokenizer.from_pretrained(folder)
    assert loaded.fingerprint == new.fingerprint
    assert (loaded.vocab, loaded.slots, loaded.lineage) == (new.vocab, new.slots, new.lineage)
    assert loaded.reference == new.reference
    hf = AutoTokenizer.from_pretrained(folder)
    assert hf.convert_ids_to_tokens(list(range(len(hf)))) == new.vocab
    assert_three_paths_agree(loaded, NEW, hf)
    again = AutoTokenizer.from_pretrained(hf.save_pretrained(tmp_path / "u")[0].rsplit("/", 1)[0])
    assert_three_paths_agree(loaded, NEW, again)


texts = st.one_of(
    st.none(),
    st.text(max_size=10),
    st.sampled_from(["petrol", "petrol station", "[KIND=q]", "[SHOP]", "\ue000[", "é", "aaaa"]),
)
tables = st.builds(
    table_of,
    st.lists(st.sampled_from(["a", "b", "q", "", "[PAD]", "%", None]), min_size=1, max_size=9),
    st.lists(st.one_of(st.none(), st.integers(-3, 6)), min_size=1, max_size=9),
    st.lists(texts, min_size=1, max_size=9),
    st.lists(texts, min_size=1, max_size=9),
    st.lists(st.sampled_from(["x", "y", "z", None]), min_size=1, max_size=9),
)


@PROPERTY
@given(st.lists(tables, min_size=2, max_size=3), st.integers(0, 3), st.integers(0, 12))
def test_any_extension_keeps_all_promises(tables, most_new, most_merges):
    first, *later = tables
    chain = [fit(first)]
    for table in later:
        result = extend(chain[-1], table, most_new=most_new, most_merges=most_merges)
        chain.append(result.tokenizer)
    last = chain[-1]
    assert last.lineage == tuple(a.fingerprint for a, b in itertools.pairwise(chain) if a is not b)
    for older in chain[:-1]:
        assert last.vocab[: older.vocab_size] == older.vocab
    for table in tables:
        assert_three_paths_agree(last, table)
        ids = chain[0].encode(table).ids
        assert last.decode(ids).equals(chain[0].decode(ids))
        again = last.decode(last.encode(table).ids)["count"]
        known = chain[0].decode(ids)["count"]
        assert again.filter(known.is_not_null()).equals(known.drop_nulls())


@pytest.mark.parametrize("fast", [True, False])
def test_tiktoken_spells_with_added_merges_as_hugging_face_does(new, fast):
    model = BytePairModel(new.backend, fast=fast)
    plain = BytePairModel(new.backend, fast=False)
    if fast and model._fast is None:
        pytest.skip("the extra 'fast' is not installed")
    random_ = random.Random(7)
    texts = ["".join(random_.choices("petrolshcn 'A1", k=12)) for _ in range(300)]
    assert model.encode_batch(texts) == plain.encode_batch(texts)


# ── chains ────────────────────────────────────────────────────────────────────────────────────


def test_an_extension_can_be_extended(old, new):
    third = table_of(["third"], [77], ["harbour harbour"], ["harbour"], ["w"])
    last = extend(new, third).tokenizer
    assert last.lineage == (old.fingerprint, new.fingerprint)
    assert last.vocab[: new.vocab_size] == new.vocab
    kind = next(slot for slot in last.slots if slot.field == "kind")
    assert len(kind.added) == 2
    assert [last.vocab[i] for i in kind.ids[-3:]] == [
        "[KIND=newer]", "[KIND=new%20one]", "[KIND=third]",
    ]  # fmt: skip
    for table in (OLD, NEW, third):
        assert_three_paths_agree(last, table)


def test_two_extensions_know_what_one_of_both_knows(old):
    """Ids are appended: in two steps or in one, the same values are known."""
    third = table_of(["third"], [77], [""], [""], ["w"])
    both = EventTable.of(pl.concat([NEW.frame, third.frame]), entity="card", time="time")
    once = extend(old, both, most_merges=0).tokenizer
    twice = extend(extend(old, NEW, most_merges=0).tokenizer, third, most_merges=0).tokenizer
    assert set(once.vocab) == set(twice.vocab)
    assert once.fingerprint != twice.fingerprint


def test_nothing_new_gives_the_same_tokenizer(old, new):
    plain = extend(old, OLD, most_merges=0)
    assert plain.tokenizer is old
    assert not plain.changed
    assert plain.new_tokens == 0
    again = extend(new, NEW, most_merges=0)
    assert not again.changed


def test_the_parent_is_left_as_it_is(old):
    before = old.encode(NEW).ids.tolist(), old.vocab, old.fingerprint, old.reference
    extend(old, NEW)
    assert (old.encode(NEW).ids.tolist(), old.vocab, old.fingerprint, old.reference) == before


# ── what is added ─────────────────────────────────────────────────────────────────────────────


def test_the_result_tells_what_was_gained(old, tmp_path):
    seen = []
    result = extend(old, NEW, output=tmp_path / "out", progress=seen.append)
    assert seen == ["shop", "kind", "amount", "count", "time", "time", "note", "who"]
    by_field = {one.field: one for one in result.fields}
    assert by_field["kind"].tokens == ("[KIND=newer]", "[KIND=new%20one]")
    assert by_field["kind"].unknown_before == pytest.approx(3 / 4, abs=0.13)
    assert by_field["kind"].unknown_after == 0
    assert result.bytes_per_token_after > result.bytes_per_token_before
    assert (
        DomainTokenizer.from_pretrained(result.folder).fingerprint
        == result.to_json()["fingerprint"]
    )
    assert result.to_json()["new_tokens"] == result.new_tokens
    assert "petrol" in "".join(result.pieces)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(result.render())
    assert "[KIND=newer]" in console.export_text()


def test_frequency_and_number_of_new_values(old):
    counts = table_of(["q", "q", "q", "r", "r", "s"], [1], [""], [""], ["x"])
    assert kinds(extend(old, counts, min_frequency=2, most_merges=0)) == ("[KIND=q]", "[KIND=r]")
    assert kinds(extend(old, counts, most_new=1, most_merges=0)) == ("[KIND=q]",)
    assert not extend(old, counts, most_new=0, most_merges=0).changed
    assert kinds(extend(old, counts, fields=["count"], most_merges=0)) == ()


def kinds(result):
    return next(one.tokens for one in result.fields if one.field == "kind")


def test_the_limit_of_the_schema_stands_unless_lifted():
    schema = DomainSchema(
        "s", [FieldSpec("kind", "categorical_fixed", vocab_size=2),
              FieldSpec("n", "numerical_discrete", vocab_size=3)]
    )  # fmt: skip
    first = pl.DataFrame({"kind": ["a", "b"], "n": [1, 1]})
    later = pl.DataFrame({"kind": ["c", "d"], "n": [4, 5]})
    tokenizer = DomainTokenizer(schema).fit(first)
    result = extend(tokenizer, later)
    assert [one.tokens for one in result.fields] == [(), ("[N=4]", "[N=5]")]
    assert "most_new" in result.fields[0].why
    assert result.fields[1].why == ""
    assert "most_new" in result.render().caption
    lifted = extend(tokenizer, later, most_new=9)
    assert lifted.fields[0].tokens == ("[KIND=c]", "[KIND=d]")
    assert lifted.fields[0].why == ""


def test_a_value_of_a_hash_bucket_gets_its_own_id_and_the_bucket_stays(old, new):
    row = OLD.frame.row(0, named=True)
    for name, bucketed in (("newer", False), ("elsewhere", True)):
        ids = new.encode_event(row | {"kind": name}, None)
        tokens = [new.vocab[i] for i in ids]
        assert any(t.startswith("[KIND_HASH=") for t in tokens) is bucketed
    before = old.encode_event(row | {"kind": "elsewhere"}, None)
    assert [t for t in new.vocab if t.startswith("[KIND_HASH")] == [
        "[KIND_HASH=00]",
        "[KIND_HASH=01]",
    ]
    assert next(i for i in before if "KIND_HASH" in old.vocab[i]) in new.encode_event(
        row | {"kind": "elsewhere"}, None
    )


def test_text_that_spells_a_new_token_stays_text(new):
    row = NEW.frame.row(2, named=True)
    assert row["shop"] == "petrol [KIND=newer]"
    ids = new.encode_event(row, None)
    slots = new.layout.slot_of_id[ids].tolist()
    assert slots.count(1) == 1  # kind itself, and no token out of the text
    assert new.decode(ids)["shop"][0].startswith("petrol [")


def test_wide_numbers_and_sparse_numbers_take_new_ones():
    schema = DomainSchema("s", [FieldSpec("n", "numerical_discrete")])
    tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"n": [5, 7]}))
    far = pl.DataFrame({"n": [10**12, 6, -(2**63), 5]})
    last = extend(tokenizer, far).tokenizer
    ids = last.encode(far).ids
    assert last.decode(ids)["n"].to_list() == far["n"].to_list()
    assert [last.encode_event({"n": n})[0] for n in far["n"]] == ids.tolist()
    assert last.encode(pl.DataFrame({"n": [5, 7]})).ids.tolist() == [6, 7]


def test_the_grammar_and_the_tools_know_the_new_ids(new):
    grammar = SlotGrammar.of(new)
    assert sorted([*np.concatenate([s.ids for s in grammar.slots]), *grammar.text_ids]) == list(
        range(4, new.vocab_size)
    )
    rows = describe_vocabulary(new, field="kind")
    assert [row["id"] for row in rows] == new.layout.blocks[1].ids.tolist()
    assert [row["token"] for row in rows] == [new.vocab[row["id"]] for row in rows]
    assert validate_tokenizer(new, NEW).ok


def test_events_of_several_sources_extend_the_fields_that_they_have():
    schema = DomainSchema(
        "bank",
        [FieldSpec("amount", "sign"), FieldSpec("screen", "categorical_fixed")],
        sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}},
    )
    first = pl.DataFrame(
        {"source": ["app", "cards"], "screen": ["home", None], "amount": [None, 1.0]}
    )
    later = pl.DataFrame(
        {"source": ["app", "cards"], "screen": ["help", "x"], "amount": [1.0, 1.0]}
    )
    tokenizer = extend(DomainTokenizer(schema).fit(first), later).tokenizer
    assert tokenizer.vocab[-1] == "[SCREEN=help]"
    ids = tokenizer.encode(later).ids
    assert [tokenizer.vocab[i] for i in ids] == [
        "[SOURCE=app]", "[SCREEN=help]", "[SOURCE=cards]", "[AMOUNT=POS]",
    ]  # fmt: skip
    assert tokenizer.decode(ids)["screen"].to_list() == ["help", None]
    assert [tokenizer.encode_event(row) for row in later.iter_rows(named=True)] == [
        ids[:2].tolist(), ids[2:].tolist(),
    ]  # fmt: skip


# ── semantic ids ──────────────────────────────────────────────────────────────────────────────


def semantic(entities, codes):
    spec = FieldSpec("product", "categorical_entity", semantic_levels=1, semantic_codes=4)
    ids = SemanticIdTokenizer.of_codes(spec, entities, codes)
    return spec, ids


def test_semantic_ids_take_entities_that_were_given_codes():
    spec, few = semantic(["mug", "cup"], [[3], [1]])
    _, more = semantic(["mug", "cup", "pot"], [[3], [1], [2]])
    schema = DomainSchema("s", [spec])
    old = DomainTokenizer(schema).fit(
        pl.DataFrame({"product": ["mug", "cup"]}), semantic_ids={"product": few}
    )
    later = pl.DataFrame({"product": ["pot", "mug"]})
    unheard = extend(old, later)  # a name alone has no codes
    assert not unheard.changed
    assert "semantic_ids" in unheard.fields[0].why
    result = extend(old, later, semantic_ids={"product": more})
    assert result.changed
    assert result.tokenizer.vocab == old.vocab
    assert (result.fields[0].unknown_before, result.fields[0].unknown_after) == (0.5, 0.0)
    assert result.fields[0].why == ""
    decoded = result.tokenizer.decode(result.tokenizer.encode(later).ids)
    assert decoded["product"].to_list() == ["pot", "mug"]
    _, other = semantic(["mug", "cup"], [[2], [1]])
    with pytest.raises(TokenizerError, match="do not continue"):
        extend(old, later, semantic_ids={"product": other})


# ── merges ────────────────────────────────────────────────────────────────────────────────────


def slow_merges(rows, counts, most, least, known):
    """Count all pairs anew for every merge."""
    found = []
    while len(found) < most:
        pairs = {}
        for row, count in zip(rows, counts, strict=True):
            for pair in itertools.pairwise(row):
                pairs[pair] = pairs.get(pair, 0) + count
        fresh = {p: n for p, n in pairs.items() if n >= least and p[0] + p[1] not in known}
        if not fresh:
            break
        best = min(fresh, key=lambda pair: (-fresh[pair], pair))
        for index, row in enumerate(rows):
            joined, position = [], 0
            while position < len(row):
                two = tuple(row[position : position + 2])
                joined.append("".join(two) if two == best else row[position])
                position += 2 if two == best else 1
            rows[index] = joined
        known.add(best[0] + best[1])
        found.append(best)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_merges_are_those_of_counting_all_pairs_anew(seed):
    rng = random.Random(seed)
    words = {
        "".join(rng.choices("abcé ", k=rng.randint(1, 9))): rng.randint(1, 9) for _ in range(40)
    }
    model = BytePairModel(train_bpe(list(words)[:9], [1] * 9, 262), fast=False)
    merges = merges_of(model._tokenizer)
    spelt = count_words(words)
    rows = [model._tokenizer.model.tokenize(word) for word in spelt]
    rows = [[token.value for token in row] for row in rows]
    expected = slow_merges(rows, list(spelt.values()), 30, 2, set(model.tokens))
    assert further_merges(model.tokens, merges, spelt, most=30) == expected
    assert len(expected) > 5


def test_new_merges_spell_words_as_they_were_learned(old, new):
    """Old merges are exhausted before a new one applies, wherever both could."""
    base, full = BytePairModel(old.backend, fast=False), BytePairModel(new.backend, fast=False)
    added = merges_of(new.backend)[len(merges_of(old.backend)) :]
    for text in ("petrol", "petrol station", "corner shop", "patrols"):
        for word in count_words({text: 1}):
            row = [t.value for t in base._tokenizer.model.tokenize(word)]
            for pair in added:
                joined, position = [], 0
                while position < len(row):
                    two = tuple(row[position : position + 2]) == pair
                    joined.append("".join(pair) if two else row[position])
                    position += 2 if two else 1
                row = joined
            assert [t.value for t in full._tokenizer.model.tokenize(word)] == row


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fields": ["knid"]}, SchemaError, "no field 'knid'"),
        ({"min_frequency": 0}, InputError, "min_frequency must be at least 1"),
        ({"most_new": -1}, InputError, "most_new must be at least 0"),
        ({"most_merges": -1}, InputError, "most_merges must be at least 0"),
    ],
)
def test_bad_options_are_refused(old, options, error, message):
    with pytest.raises(error, match=message):
        extend(old, NEW, **options)


def test_tables_that_do_not_serve_are_refused(old):
    plain = DomainTokenizer(DomainSchema("s", [FieldSpec("kind", "categorical_fixed")]))
    with pytest.raises(DataError, match="no events"):
        extend(plain.fit(NEW.frame), NEW.frame.head(0))
    with pytest.raises(SchemaError):
        extend(old, NEW.frame.drop("kind"))


def test_a_token_of_punctuation_alone_that_a_merge_has_spelt():
    schema = DomainSchema("s", [FieldSpec("_", "categorical_fixed"), FieldSpec("t", "text")])
    first = pl.DataFrame({"_": ["a"], "t": ["[_=$] " * 50]})
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=400).fit(first)
    assert "[_=$]" in tokenizer.vocab
    with pytest.raises(TokenizerError, match=r"\[_=\$\] is a token of the byte-pair model"):
        extend(tokenizer, pl.DataFrame({"_": ["$"], "t": [""]}))
