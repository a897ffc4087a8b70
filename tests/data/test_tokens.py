import dataclasses
import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainformer.data.tokens import TokenizedEvents, gather_ranges, id_dtype
from domainformer.errors import DataError, FingerprintError


def unrolled(events):
    """Every history as nested Python lists: the slow, obvious form."""
    result = []
    for entity in range(events.n_entities):
        first, last = events.entity_offsets[entity : entity + 2].tolist()
        rows = []
        for event in range(first, last):
            start, stop = events.event_offsets[event : event + 2].tolist()
            role = None if events.roles is None else int(events.roles[event])
            rows.append((events.ids[start:stop].tolist(), int(events.times[event]), role))
        result.append((events.entity_ids[entity], rows))
    return result


def test_ids_take_the_narrowest_type():
    sizes = (1, 256, 257, 65_536, 65_537, 2**32)
    assert [id_dtype(n).itemsize for n in sizes] == [1, 1, 2, 2, 4, 4]
    for impossible in (0, -1, 2**32 + 1):
        with pytest.raises(DataError, match="vocabulary"):
            id_dtype(impossible)


def test_history_is_the_unrolled_entity(make_events):
    events = make_events(3)
    for index, (name, rows) in enumerate(unrolled(events)):
        history = events.history(index)
        assert history.entity_id == name
        assert history.n_events == len(rows)
        assert history.n_tokens == sum(len(ids) for ids, _, _ in rows)
        assert [history.event(i).tolist() for i in range(len(rows))] == [ids for ids, _, _ in rows]
        assert history.times.tolist() == [time for _, time, _ in rows]
        assert history.roles.tolist() == [role for _, _, role in rows]
    with pytest.raises(DataError, match="no entity 7"):
        events.history(7)
    with pytest.raises(DataError, match="no entity -1"):
        events.history(-1)


@given(seed=st.integers(0, 99), order=st.permutations(range(6)), count=st.integers(0, 6))
def test_taking_entities_equals_taking_lists(make_events, seed, order, count):
    events = make_events(seed, entities=6)
    lists = unrolled(events)
    assert unrolled(events.take_entities(order[:count])) == [lists[i] for i in order[:count]]
    mask = np.isin(np.arange(6), order[:count])
    assert unrolled(events.take_entities(mask)) == [lists[i] for i in range(6) if mask[i]]


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_concatenating_the_parts_gives_the_whole(make_events, seed, cuts):
    events = make_events(seed, entities=6, roles=seed % 2 == 0)
    edges = [0, *sorted(cuts), 6]
    pairs = itertools.pairwise(edges)
    parts = [events.take_entities(np.arange(start, stop)) for start, stop in pairs]
    assert TokenizedEvents.concatenate(parts) == events


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_gathering_ranges_equals_a_loop(lengths, data):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    positions, new_offsets = gather_ranges(offsets, np.array(chosen, np.int64))
    ranges = [list(range(offsets[i], offsets[i + 1])) for i in chosen]
    assert positions.tolist() == [p for r in ranges for p in r]
    assert np.diff(new_offsets).tolist() == [len(r) for r in ranges]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: {"ids": np.where(np.arange(e.n_tokens) == 4, e.ids + 1, e.ids).astype("u2")},
        lambda e: {"times": e.times + 1},
        lambda e: {"roles": None},
        lambda e: {"roles": np.zeros_like(e.roles)},
        lambda e: {"entity_ids": e.entity_ids.reverse()},
        lambda e: {"entity_ids": pl.Series(range(e.n_entities))},
        lambda e: {"tokenizer_fingerprint": "beef"},
        lambda e: {"vocab_size": 301},
    ],
)
def test_equality_sees_every_part(make_events, change):
    events = make_events(0)
    assert events == make_events(0)
    assert events != dataclasses.replace(events, **change(events))
    assert events != "something else"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"ids": e.ids.astype(np.int64)}, "ids must be a flat array of uint16"),
        (lambda e: {"ids": e.ids.tolist()}, "ids must be"),
        (lambda e: {"times": e.times.reshape(1, -1)}, "times must be"),
        (lambda e: {"ids": e.ids[:-1]}, "event_offsets runs from"),
        (lambda e: {"event_offsets": e.event_offsets + 1}, "event_offsets runs from"),
        (lambda e: {"event_offsets": e.event_offsets[:0]}, "event_offsets is empty"),
        (lambda e: {"entity_offsets": e.entity_offsets[:-1]}, "entity_offsets runs from"),
        (lambda e: {"times": e.times[1:]}, "times for"),
        (lambda e: {"roles": e.roles[1:]}, "roles for"),
        (lambda e: {"entity_ids": e.entity_ids[1:]}, "6 entity ids for 7"),
    ],
)
def test_contradictions_are_refused_at_construction(make_events, change, message):
    events = make_events(0)
    with pytest.raises(DataError, match=message):
        dataclasses.replace(events, **change(events))


def falling(array, at):
    """The array with a dip after position ``at``; its ends stay."""
    result = array.copy()
    result[at] = result[-1] + 1
    return result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"event_offsets": falling(e.event_offsets, 3)}, "event_offsets fall"),
        (lambda e: {"entity_offsets": falling(e.entity_offsets, 3)}, "entity_offsets fall"),
        (lambda e: {"ids": np.full_like(e.ids, 300)}, "the id 300 is outside"),
        (lambda e: {"entity_ids": pl.Series(["a"] * 7)}, "'a' occurs twice"),
        (lambda e: {"entity_ids": pl.Series([*"abcdef", None])}, "entity id is null"),
    ],
)
def test_validation_reads_every_element(make_events, change, message):
    events = make_events(0)
    events.validate()
    broken = dataclasses.replace(events, **change(events))
    with pytest.raises(DataError, match=message):
        broken.validate()


def test_shards_of_different_kinds_do_not_mix(make_events):
    events = make_events(0)
    other = dataclasses.replace(make_events(1, first=7), tokenizer_fingerprint="beef")
    with pytest.raises(FingerprintError, match="different tokenizers"):
        TokenizedEvents.concatenate([events, other])
    with pytest.raises(DataError, match="split roles"):
        TokenizedEvents.concatenate([events, make_events(1, roles=False)])
    numbered = dataclasses.replace(make_events(1), entity_ids=pl.Series(range(7)))
    with pytest.raises(DataError, match="different types"):
        TokenizedEvents.concatenate([events, numbered])
    with pytest.raises(DataError, match="nothing to concatenate"):
        TokenizedEvents.concatenate([])


def test_wrong_choices_of_entities_are_refused(make_events):
    events = make_events(0)
    for wrong in ([7], [-1], [1, 1], np.zeros(3, bool)):
        with pytest.raises(DataError):
            events.take_entities(wrong)
