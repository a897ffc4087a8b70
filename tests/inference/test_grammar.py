import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.table import EventTable
from domainformer.errors import TokenizerError
from domainformer.inference import GrammarState, SlotGrammar
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

FRAME = pl.DataFrame(
    {
        "card": [1, 1, 1, 2, 2],
        "day": [1, 3, 4, 2, 9],
        "shop": ["corner shop", "", None, "petrol", "corner shop"],
        "kind": ["a", "b", "rare", "a", "b"],
        "amount": [1.0, -2.0, 3.0, None, 0.0],
    }
)
TABLE = EventTable.of(FRAME, entity="card", time="day")
FIELDS = {
    "shop": FieldSpec("shop", "text", max_tokens=3),
    "kind": FieldSpec("kind", "categorical_fixed", min_frequency=2, hash_buckets=2),
    "day": FieldSpec("day", "temporal", calendar_fields=(), elapsed_bins=4),
    "amount": FieldSpec("amount", "numerical_continuous", n_bins=4),
}
ORDERS = (("kind", "amount", "day"), ("kind", "day", "shop"), ("shop", "kind", "day"), ("shop",))


def tokenizer_of(order):
    schema = DomainSchema("cards", [FIELDS[name] for name in order])
    return DomainTokenizer(schema, bpe_vocab_size=256).fit(TABLE)


def test_slots_ranges_and_special_ids():
    tokenizer = tokenizer_of(("kind", "day", "shop"))
    grammar = SlotGrammar.of(tokenizer)
    vocab = tokenizer.vocab
    assert [slot.name for slot in grammar.slots] == ["kind", "day.elapsed", "shop"]
    assert {vocab[i] for i in grammar.unknown} == {"[KIND_UNK]", "[KIND_HASH=00]", "[KIND_HASH=01]"}
    assert [vocab[i] for i in grammar.first] == ["[DAY_ELAPSED=FIRST]"]
    assert grammar.longest_event == 3 + 3
    assert vocab[grammar.text_start] not in set(vocab[: grammar.text_start])
    for index, slot in enumerate(grammar.slots):
        assert (grammar.slot_of_id[slot.start : slot.stop] == index).all()
    assert (grammar.slot_of_id == -1).sum() == 4 + 256


@pytest.mark.parametrize("order", ORDERS)
def test_encoded_histories_obey_the_grammar(order):
    tokenizer = tokenizer_of(order)
    grammar = SlotGrammar.of(tokenizer)
    events = tokenizer.encode(TABLE)
    state = GrammarState(grammar, 1)
    for index, token in enumerate(events.ids.astype(np.int64)):
        assert state.allowed()[0, token], f"token {index} of {tokenizer.vocab[token]}"
        state.advance(np.array([token]))
    assert state.between_events().all()
    assert state.events[0] == TABLE.n_events


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.sampled_from(ORDERS))
def test_whatever_the_grammar_allows_decodes(seed, order):
    """Random walks, several rows at once and each at its own place."""
    tokenizer = tokenizer_of(order)
    grammar = SlotGrammar.of(tokenizer)
    rng = np.random.default_rng(seed)
    state = GrammarState(grammar, 3)
    rows = [[], [], []]
    for _ in range(40):
        allowed = state.allowed()
        ids = np.array([rng.choice(np.flatnonzero(row)) for row in allowed])
        moving = rng.random(3) < 0.8
        state.advance(ids, moving)
        for row in np.flatnonzero(moving):
            rows[row].append(int(ids[row]))
    for row, ids in enumerate(rows):
        # Close the begun event by missing values, then the whole must decode.
        while not (state.slot[row] == 0 and state.events[row]):
            slot = grammar.slots[state.slot[row]]
            step = np.zeros(3, np.int64)
            step[row] = slot.missing
            state.advance(step, np.arange(3) == row)
            ids.append(slot.missing)
        assert tokenizer.decode(ids).height == state.events[row]


def test_ids_out_of_place_are_refused():
    grammar = SlotGrammar.of(tokenizer_of(("kind", "day", "shop")))
    state = GrammarState(grammar, 2)
    kind, day, shop = grammar.slots
    with pytest.raises(TokenizerError, match="slot 'kind' comes next"):
        state.advance(np.array([kind.start, day.start]))
    state = GrammarState(grammar, 1)
    for token in (kind.start, day.start, shop.missing):
        state.advance(np.array([token]))
    with pytest.raises(TokenizerError, match="cannot stand here"):
        state.advance(np.array([grammar.text_start]))  # MISSING opens no text


def test_a_text_ends_with_its_budget():
    grammar = SlotGrammar.of(tokenizer_of(("kind", "day", "shop")))
    kind, day, shop = grammar.slots
    state = GrammarState(grammar, 1)
    for token in (kind.start, day.start, shop.start + 1):
        state.advance(np.array([token]))
    for left in (3, 2, 1):
        assert state.allowed()[0, grammar.text_start :].all(), left
        state.advance(np.array([grammar.text_start]))
    allowed = np.flatnonzero(state.allowed()[0])
    assert allowed.tolist() == list(range(kind.start, kind.stop))


def test_ids_can_be_excluded_but_never_a_whole_slot():
    grammar = SlotGrammar.of(tokenizer_of(("kind", "day", "shop")))
    kind, day, _ = grammar.slots
    masks = grammar.head_masks(np.r_[grammar.unknown, np.arange(day.start, day.stop)])
    assert not masks[0, grammar.unknown].any()
    assert masks[0].sum() == kind.width - 3
    assert masks[1].sum() == day.width
