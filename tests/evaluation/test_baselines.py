import numpy as np
import polars as pl
import pytest

from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError
from domainformer.evaluation import baselines
from domainformer.evaluation.baselines import (
    FREQUENCY,
    POPULAR,
    REPEAT,
    SlotBaselines,
    first_events,
    slot_values,
)
from domainformer.inference.grammar import SlotGrammar
from domainformer.schema import FieldType
from domainformer.tokenizers import Slot


def slot(name, start, stop, max_tokens=0):
    kind = FieldType.TEXT if max_tokens else FieldType.CATEGORICAL_FIXED
    return Slot(name, "", start, stop, max_tokens > 0, kind, start, max_tokens)


GRAMMAR = SlotGrammar(
    (slot("a", 4, 7), slot("t", 7, 9, 3), slot("c", 9, 13)),
    16,
    13,
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
)
NONE = np.zeros(0, np.int64)


def random_store(seed=0, entities=30):
    """Histories with a ragged text in the middle, and the heads as plain Python lists."""
    rng = np.random.default_rng(seed)
    flat, heads, lengths = [], [], []
    for _ in range(entities):
        n = int(rng.integers(1, 9))
        habit = int(rng.integers(4, 7))
        for _ in range(n):
            a = habit if rng.random() < 0.7 else int(rng.integers(4, 7))
            c = int(rng.integers(9, 13))
            text = rng.integers(13, 16, size=rng.integers(4)).tolist()
            marker = 8 if text or rng.random() < 0.5 else 7
            flat.append([a, marker, *text, c])
            heads.append([a - 4, marker - 7, c - 9])
        lengths.append(n)
    events = TokenizedEvents(
        ids=np.array([i for event in flat for i in event], np.uint8),
        event_offsets=np.cumsum([0, *map(len, flat)]),
        entity_offsets=np.cumsum([0, *lengths]),
        entity_ids=pl.Series(range(entities)),
        times=np.arange(len(flat)),
        roles=rng.choice(3, size=len(flat), p=[0.7, 0.1, 0.2]).astype(np.uint8),
        tokenizer_fingerprint="f",
        vocab_size=16,
    )
    return events, np.array(heads)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_slot_values_are_found_behind_ragged_text(monkeypatch, chunk):
    monkeypatch.setattr(baselines, "_CHUNK_TOKENS", chunk)
    events, heads = random_store()
    np.testing.assert_array_equal(slot_values(events, GRAMMAR), heads)


def test_first_events():
    events, _ = random_store()
    expected = np.zeros(events.n_events, bool)
    expected[events.entity_offsets[:-1]] = True
    np.testing.assert_array_equal(first_events(events), expected)


def fitted(index=0, **changes):
    events, heads = random_store()
    first = first_events(events)
    train = (events.roles == 0) & ~first
    width = GRAMMAR.slots[index].width
    values = heads[:, index].astype(np.int32)
    return SlotBaselines(values, width, first, train, changes.get("never", NONE)), events, heads


def brute(events, values, width, weight, prior, event):
    """The three predictions of one event, by loops over Python lists."""
    owner = max(e for e in range(events.n_entities) if events.entity_offsets[e] <= event)
    start = int(events.entity_offsets[owner])
    starts = set(events.entity_offsets.tolist())
    counts = [1.0] * width
    for other in range(events.n_events):
        if events.roles[other] == 0 and other not in starts:
            counts[values[other]] += 1
    u = [c / sum(counts) for c in counts]
    target, past = values[event], list(values[start:event])
    popular = u[target], u.index(max(u)) == target
    if not past:
        repeat = popular
    else:
        last = past[-1]
        repeat = weight * (last == target) + (1 - weight) * u[target], last == target
    smoothed = [(past.count(x) + prior * u[x]) / (len(past) + prior) for x in range(width)]
    own = smoothed[target], smoothed.index(max(smoothed)) == target
    return {POPULAR: popular, REPEAT: repeat, FREQUENCY: own}


@pytest.mark.parametrize("index", [0, 2])
def test_predictions_equal_loops_over_lists(index):
    one, events, heads = fitted(index)
    values = heads[:, index].tolist()
    chosen = np.flatnonzero(events.roles == 2)
    found = one.predict(chosen)
    for row, event in enumerate(chosen):
        expected = brute(events, values, one.width, one.weight, one.prior, event)
        for name, (p, correct) in expected.items():
            assert np.exp(found[name].log_p[row]) == pytest.approx(p)
            assert found[name].correct[row] == correct


def test_the_weight_of_repetition_has_the_highest_likelihood():
    one, events, heads = fitted()
    train = np.flatnonzero((events.roles == 0) & ~first_events(events))
    same = heads[train, 0] == heads[train - 1, 0]
    u = one.popularity[heads[train, 0]]
    grid = np.linspace(0, 0.999, 2000)
    likelihood = [np.log(w * same + (1 - w) * u).sum() for w in grid]
    assert one.weight == pytest.approx(grid[int(np.argmax(likelihood))], abs=2e-3)
    assert 0.3 < one.weight < 0.8  # entities keep a habit in 7 of 10 events


def test_repetition_without_habits_gets_no_weight():
    rng = np.random.default_rng(0)
    values = rng.integers(3, size=4000).astype(np.int32)
    first = np.arange(4000) % 100 == 0
    one = SlotBaselines(values, 3, first, ~first, NONE)
    assert one.weight < 0.05


def test_baselines_are_distributions():
    """Sum over all values that could have happened: one."""
    one, events, _ = fitted()
    event = np.flatnonzero(~first_events(events))[[7]]
    totals = dict.fromkeys((POPULAR, REPEAT, FREQUENCY), 0.0)
    for value in range(one.width):
        one.values = one.values.copy()
        one.values[event] = value
        for name, found in one.predict(event).items():
            totals[name] += np.exp(found.log_p[0])
    assert totals == pytest.approx(dict.fromkeys(totals, 1.0))


def test_test_events_do_not_touch_the_fit():
    """No look-ahead: change every test value, and nothing fitted changes. Twin: a train value."""
    events, heads = random_store()
    first = first_events(events)
    train = (events.roles == 0) & ~first
    values = heads[:, 0].astype(np.int32)
    # Values before a train event are its history, so only those after all of them are free.
    last_train = max(np.flatnonzero(train))
    altered = values.copy()
    altered[last_train + 1 :] = (altered[last_train + 1 :] + 1) % 3
    honest, other = (SlotBaselines(v, 3, first, train, NONE) for v in (values, altered))
    assert (honest.popularity == other.popularity).all()
    assert (honest.weight, honest.prior) == (other.weight, other.prior)
    altered[last_train] = (altered[last_train] + 1) % 3
    assert (honest.popularity != SlotBaselines(altered, 3, first, train, NONE).popularity).any()


def test_a_value_of_first_events_alone_is_not_repeated():
    values = np.array([2, 0, 0, 2, 1, 1, 2, 0, 1], np.int32)
    first = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0], bool)
    one = SlotBaselines(values, 3, first, ~first, np.array([2]))
    second = one.predict(np.array([1, 4, 7]))
    np.testing.assert_allclose(second[REPEAT].log_p, second[POPULAR].log_p)
    np.testing.assert_allclose(second[FREQUENCY].log_p, second[POPULAR].log_p)


def test_without_training_events_nothing_can_be_fitted():
    with pytest.raises(DataError, match="no training events"):
        SlotBaselines(np.zeros(3, np.int32), 2, np.arange(3) == 0, np.zeros(3, bool), NONE)
