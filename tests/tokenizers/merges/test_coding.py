"""Permuted encodings, decoding without offsets, description, averaging, long histories."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainformer.data import EventTable, simulate
from domainformer.errors import FingerprintError, InputError, TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.merges import (
    ActionPieceMerges,
    MergeTable,
    average_encodings,
    fuse_rankings,
)
from domainformer.tokenizers.merges.compiled import machine
from domainformer.tokenizers.merges.encoding import rules_of
from domainformer.tokenizers.merges.histories import chain_of, on_machine

from . import slow
from .conftest import make_events, random_histories

PROPERTY = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def learned():
    events = make_events(random_histories(0, entities=60), 14)
    return events, ActionPieceMerges.fit(events, vocab_size=150)


@pytest.fixture(scope="module")
def shop():
    """Events of a tokenizer without text, and merges that know its slots."""
    schema = DomainSchema(
        "cards",
        [
            FieldSpec("amount", "numerical_continuous", n_bins=4),
            FieldSpec("category", "categorical_fixed"),
            FieldSpec("timestamp", "temporal", calendar_fields=["dow"]),
        ],
    )
    table = simulate("finance", entities=40, events_per_entity=20, seed=3)
    kept = table.frame.select("client_id", "timestamp", "amount", "category")
    table = EventTable.of(kept, entity="client_id", time="timestamp")
    tokenizer = DomainTokenizer(schema).fit(table)
    events = tokenizer.encode(table)
    merges = ActionPieceMerges.fit(
        events,
        vocab_size=tokenizer.vocab_size + 120,
        slot_of_id=tokenizer.layout.slot_of_id,
    )
    return tokenizer, events, merges


@PROPERTY
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 9))
def test_permuted_encodings_decode_exactly_and_differ(learned, compiled, seed, epoch):
    events, merges = learned
    one = merges.encode_permuted(events, seed=seed, epoch=epoch, compiled=compiled)
    assert merges.decode(one) == events
    assert one == merges.encode_permuted(events, seed=seed, epoch=epoch, compiled=compiled)
    other = merges.encode_permuted(events, seed=seed, epoch=epoch + 1, compiled=compiled)
    assert one != other
    assert one.n_tokens < events.n_tokens


@PROPERTY
@given(
    events=st.lists(st.lists(st.integers(0, 13), max_size=5, unique=True), min_size=1, max_size=8)
)
def test_flat_merging_is_plain_bpe(learned, compiled, events):
    """Sets in any order, as permuting leaves them, against merging one pair at a time."""
    merges = learned[1]
    names = {tuple(rule): 14 + i for i, rule in enumerate(merges.rules.tolist())}
    flat = [(token, event) for event, tokens in enumerate(events) for token in tokens]
    loops = machine(compiled=compiled)
    tokens, begins, starts, stops = (
        on_machine(column, compiled=compiled)
        for column in ([t for t, _ in flat], [e for _, e in flat], [0], [len(flat)])
    )
    loops.encode_flat(tokens, begins, starts, stops, rules_of(loops, merges.table))
    merged = [(int(t), int(e)) for t, e in zip(tokens, begins, strict=True) if t >= 0]
    assert merged == slow.flat_bpe(flat, names)


def test_an_entity_is_permuted_alike_whoever_else_is_there(learned):
    events, merges = learned
    few = events.take_entities([7, 3])
    alone = merges.encode_permuted(few, seed=1)
    among = merges.encode_permuted(events, seed=1)
    assert alone.history(0).ids.tolist() == among.history(7).ids.tolist()
    assert alone.history(1).ids.tolist() == among.history(3).ids.tolist()


def test_every_order_of_a_set_occurs(compiled):
    events = make_events([[[0, 1, 2]]] * 300, 3)
    merges = ActionPieceMerges.fit(events, vocab_size=3)
    encoded = merges.encode_permuted(events, seed=0, compiled=compiled)
    orders, counts = np.unique(encoded.ids.reshape(-1, 3), axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 25


def test_averaging_over_permutations(learned):
    events, merges = learned
    encodings = merges.permutations(events, 3, seed=2)
    mean = average_encodings(encodings, lambda one: one.lengths)
    assert mean == pytest.approx(sum(one.lengths for one in encodings) / 3)
    assert fuse_rankings([[1, 2], [2, 1], [2]]) == [2, 1]
    with pytest.raises(InputError, match="no encoding"):
        average_encodings([], len)
    with pytest.raises(InputError, match="differ in shape"):
        average_encodings(encodings, lambda one: one.ids)
    with pytest.raises(TokenizerError, match="0 encodings"):
        merges.permutations(events, 0)


def test_flat_ids_decode_without_offsets(shop):
    tokenizer, events, merges = shop
    encoded = merges.encode(events)
    assert encoded.n_tokens < 0.75 * events.n_tokens
    flat = []
    for entity in range(events.n_entities):
        flat += [tokenizer.bos_id, *encoded.history(entity).ids.tolist()]
    decoded = merges.decode_ids([*flat, tokenizer.eos_id, tokenizer.pad_id])
    rows = events.ids.reshape(-1, len(tokenizer.slots)).tolist()
    assert decoded == rows
    assert tokenizer.decode(np.concatenate(decoded)).equals(tokenizer.decode(events.ids))


def test_flat_ids_that_are_no_events(shop, learned):
    _, events, merges = shop
    whole = merges.encode(events).history(0).ids.tolist()
    base = events.history(0).ids.tolist()
    with pytest.raises(TokenizerError, match="lacks 1 of 3 slots"):
        merges.decode_ids(base[1:3])
    with pytest.raises(TokenizerError, match="filled twice"):
        merges.decode_ids([base[0], base[0], base[2]])
    with pytest.raises(TokenizerError, match="outside the merged vocabulary"):
        merges.decode_ids([*whole, merges.vocab_size])
    with pytest.raises(TokenizerError, match="without slot_of_id"):
        learned[1].decode_ids(whole)


def test_text_is_refused_with_advice():
    schema = DomainSchema("notes", [FieldSpec("kind", "categorical_fixed"), FieldSpec("t", "text")])
    import polars as pl

    table = pl.DataFrame({"kind": ["a", "b"], "t": ["one two", "three"]})
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260).fit(table)
    with pytest.raises(TokenizerError, match="a piece of text") as caught:
        ActionPieceMerges.fit(
            tokenizer.encode(table), vocab_size=900, slot_of_id=tokenizer.layout.slot_of_id
        )
    assert "leave text fields out" in str(caught.value)


def test_describe_says_which_part_lies_in_which_event(shop):
    tokenizer, _, merges = shop
    vocab = tokenizer.vocab
    across = next(
        token
        for token in range(merges.base_vocab_size, merges.vocab_size)
        if merges.table.span[token] > 1
    )
    described = merges.describe(across, vocab)
    assert described["kind"] == "merge"
    assert len(described["events"]) == described["token"].count("▸") + 1 >= 2
    assert {part for event in described["events"] for part in event} <= set(range(len(vocab)))
    assert described["weight"] > 0
    assert merges.describe(5, vocab) == {
        "id": 5,
        "token": vocab[5],
        "kind": "base",
        "events": [[5]],
    }
    with pytest.raises(TokenizerError, match="there is no token"):
        merges.describe(merges.vocab_size)


def test_a_label_is_encoded_as_an_event_alone(shop):
    _, events, merges = shop
    for event in range(20):
        row = events.ids[events.event_offsets[event] : events.event_offsets[event + 1]].tolist()
        alone = make_events([[row]], events.vocab_size, fingerprint=events.tokenizer_fingerprint)
        assert merges.encode_event(row) == merges.encode(alone).ids.tolist()


def test_ids_of_other_tokenizers_are_refused(learned):
    events, merges = learned
    other = make_events([[[0, 1]]], 14, fingerprint="beef")
    with pytest.raises(FingerprintError, match="not made by the tokenizer of these merges"):
        merges.encode(other)
    with pytest.raises(FingerprintError, match="not made by these merges"):
        merges.decode(events)
    more = ActionPieceMerges.fit(events, vocab_size=151)
    with pytest.raises(FingerprintError):
        more.decode(merges.encode(events))


def test_a_token_that_reaches_over_the_beginning_is_no_history(learned):
    _, merges = learned
    across = int(np.argmax(merges.table.span > 1))
    bad = make_events([[[across]]], merges.vocab_size, fingerprint=merges.fingerprint)
    with pytest.raises(TokenizerError, match="reaches over the beginning"):
        merges.decode(bad)


def test_rules_that_contradict_each_other():
    with pytest.raises(TokenizerError, match="merge 1 joins 0 and 5"):
        MergeTable.of(4, [[0, 1, 0], [0, 5, 0]])
    with pytest.raises(TokenizerError, match="merge 0 joins 2 and 2"):
        MergeTable.of(4, [[2, 2, 0]])


def test_events_too_far_apart_do_not_merge(compiled):
    """Empty events between two tokens do not count, up to a distance that a rule can hold."""
    near = make_events([[[0], *[[]] * 30_000, [1]]], 2)
    far = make_events([[[0], *[[]] * 40_000, [1]]], 2)
    merges = ActionPieceMerges.fit(near, vocab_size=3, compiled=compiled)
    assert merges.rules.tolist() == [[0, 1, 30_001]]
    assert merges.decode(merges.encode(near, compiled=compiled)) == near
    assert ActionPieceMerges.fit(far, vocab_size=3, compiled=compiled).n_merges == 0
    assert merges.encode(far, compiled=compiled).n_tokens == 2


def test_no_events_at_all(learned):
    events, merges = learned
    none = events.take_entities([])
    assert merges.encode(none).n_tokens == 0
    assert merges.decode(merges.encode(none)) == none
    assert merges.encode_permuted(none, seed=0).n_entities == 0


class Counting(dict):
    """A table of rules that counts how often it is asked."""

    asked = 0

    def get(self, key, default=None):
        self.asked += 1
        return super().get(key, default)


@pytest.mark.parametrize("flat", [False, True], ids=["greedy", "permuted"])
def test_work_grows_with_the_length_of_a_history_not_with_its_square(learned, flat):
    """Sixteen times as long, and sixteen times as many looks at the rules."""
    loops, table = machine(compiled=False), learned[1].table
    asked = []
    for length in (200, 3_200):
        events = make_events([[[0, 1, 3], [0, 2], [1, 2, 5, 6], [0]] * length], 14)
        counting = Counting(rules_of(loops, table).table)
        rules = rules_of(loops, table)._replace(table=counting)
        chain = chain_of(events.ids, events.event_offsets, compiled=False)
        if flat:
            merged = loops.encode_flat(chain.tokens, chain.begins, [0], [events.n_tokens], rules)
        else:
            merged = loops.encode_chain(chain, [0], [events.n_events], rules)
        assert merged > length
        asked.append(counting.asked)
    assert asked[1] == pytest.approx(16 * asked[0], rel=0.02)
