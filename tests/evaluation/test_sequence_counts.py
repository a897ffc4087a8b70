import numpy as np
import pytest

from domainformer.errors import DataError
from domainformer.evaluation.sequence_counts import (
    MARKOV_ONLY,
    CategorySequences,
    CountSettings,
    SequenceCounts,
    decayed_counts,
    repeat_last,
    tune_counts,
)


def random_sequences(entities=6, width=4, seed=0, train_share=0.7):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, size=entities)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    train = np.concatenate([np.arange(n) < train_share * n for n in lengths])
    return CategorySequences(rng.integers(width, size=offsets[-1]), offsets, width, train)


SEQUENCES = random_sequences()
ALL = np.arange(len(SEQUENCES.values))


def past_of(event):
    start = SEQUENCES.offsets[np.searchsorted(SEQUENCES.offsets, event, side="right") - 1]
    return [int(v) for v in SEQUENCES.values[start:event]]


def backed_off(counts, lower, prior):
    return (counts + prior * lower) / (counts.sum() + prior)


def slow_probabilities(event, s):
    """The formula of the module, one event at a time."""
    one = np.eye(4)
    pasts = [past_of(e) for e in ALL]
    learned = [e for e in ALL if SEQUENCES.train[e]]
    p = 1.0 + sum(one[SEQUENCES.values[e]] for e in learned)
    p = p / p.sum()
    past = pasts[event]
    for order, prior in ((1, s.first), (2, s.second)):
        counts = np.zeros(4)
        if len(past) >= order:
            for e in learned:
                if e != event and len(pasts[e]) >= order and pasts[e][-order:] == past[-order:]:
                    counts += one[SEQUENCES.values[e]]
        p = backed_off(counts, p, prior)
    own = sum((s.own_decay**k * one[v] for k, v in enumerate(reversed(past))), np.zeros(4))
    p = backed_off(own, p, s.own)
    followed = [past[i + 1] for i in range(len(past) - 1) if past[i] == past[-1]]
    habit = sum((s.next_decay**k * one[v] for k, v in enumerate(followed[::-1])), np.zeros(4))
    return backed_off(habit, p, s.own_next)


def test_probabilities_equal_the_formula():
    settings = CountSettings(1.5, 2.5, 3.5, 0.5, 0.9, 0.8)
    fast = SequenceCounts(SEQUENCES, settings).probabilities(ALL)
    slow = np.array([slow_probabilities(event, settings) for event in ALL])
    np.testing.assert_allclose(fast, slow, rtol=1e-4)
    np.testing.assert_allclose(fast.sum(axis=1), 1.0, rtol=1e-5)


def test_an_event_and_what_follows_it_do_not_foretell_it():
    """Change an entity's events from one on: the prediction for that one stays. Twin: the past."""
    longest = int(np.diff(SEQUENCES.offsets).argmax())
    end = int(SEQUENCES.offsets[longest + 1])
    event = end - 2
    assert not SEQUENCES.train[event]
    values = SEQUENCES.values.copy()
    values[event:end] = (values[event:end] + 1) % 4
    later = CategorySequences(values, SEQUENCES.offsets, 4, SEQUENCES.train)
    before = SequenceCounts(SEQUENCES).probabilities(np.array([event]))
    np.testing.assert_array_equal(SequenceCounts(later).probabilities(np.array([event])), before)
    values[event - 1] = (values[event - 1] + 1) % 4
    earlier = CategorySequences(values, SEQUENCES.offsets, 4, SEQUENCES.train)
    assert (SequenceCounts(earlier).probabilities(np.array([event])) != before).any()


def test_decayed_counts_without_a_group_are_empty():
    group = np.full(len(ALL), -1)
    assert not decayed_counts(group, SEQUENCES, ALL, 0.9).any()


def test_repeat_last():
    sequences = CategorySequences(np.array([2, 1, 1, 0]), np.array([0, 3, 4]), 3, np.ones(4, bool))
    assert repeat_last(sequences, np.arange(4)).tolist() == [1, 2, 1, 1]


def test_the_search_switches_on_what_helps():
    """Each entity keeps a cycle of its own: its own transitions tell, those of everyone do not."""
    rng = np.random.default_rng(0)
    cycles = [rng.permutation(6) for _ in range(40)]
    values = np.concatenate([np.tile(cycle, 4) for cycle in cycles])
    offsets = np.arange(0, len(values) + 1, 24)
    place = np.tile(np.arange(24), 40)
    sequences = CategorySequences(values, offsets, 6, place < 18)
    start = CountSettings(own_next=1e6)
    settings, found = tune_counts(sequences, validation=(place >= 12) & (place < 18), start=start)
    test = np.flatnonzero(place >= 18)

    def accuracy(one):
        guess = SequenceCounts(sequences, one).probabilities(test).argmax(axis=1)
        return np.mean(guess == values[test])

    assert settings.own_next < 1e6
    assert found > 0.95
    assert accuracy(settings) > 0.95 > 0.6 > accuracy(MARKOV_ONLY)


def test_bad_input_is_told():
    offsets, train = np.array([0, 2]), np.array([True, False])
    with pytest.raises(DataError, match="outside"):
        CategorySequences(np.array([0, 7]), offsets, 3, train)
    with pytest.raises(DataError, match="no event may be learned"):
        CategorySequences(np.array([0, 1]), offsets, 3, ~np.ones(2, bool))
    with pytest.raises(DataError, match="do not fit"):
        CategorySequences(np.array([0, 1]), np.array([0, 3]), 3, train)
    with pytest.raises(DataError, match="validation"):
        tune_counts(CategorySequences(np.array([0, 1]), offsets, 3, train), validation=~train)
