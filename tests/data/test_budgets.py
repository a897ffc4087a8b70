"""Budgets of sources: an oracle that visits events one by one, and what follows from them."""

import itertools
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.budgets import Budgets, keep_within_budgets, plan_budgeted
from domainformer.data.dataset import IGNORED, DomainSequenceDataset
from domainformer.data.packing import plan_windows
from domainformer.data.store import TokenStore
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ConfigError, DataError

SOURCES = (4, 5, 6)
BODY = 20


def history(events, *, roles=None):
    """Tokenized events of [[(source, length), …] of each entity]; body ids tell events apart."""
    flat = list(itertools.chain(*events))
    lengths = np.array([length for _, length in flat], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(offsets[-1]) + BODY
    ids[offsets[:-1]] = [source for source, _ in flat]
    return TokenizedEvents(
        ids=ids.astype(np.uint16),
        event_offsets=offsets,
        entity_offsets=np.cumsum([0, *map(len, events)]).astype(np.int64),
        entity_ids=pl.Series(range(len(events)), dtype=pl.Int64),
        times=np.arange(len(flat)),
        roles=None if roles is None else np.array(roles, np.uint8),
        tokenizer_fingerprint="f00d",
        vocab_size=60_000,
    )


one_event = st.tuples(st.sampled_from([*SOURCES, 9]), st.integers(1, 5))
histories = st.lists(st.lists(one_event, max_size=25), min_size=1, max_size=5)
shares = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3]), min_size=3, max_size=3)


def oracle(events, budgets, room, keep, chosen):
    """Windows of one entity after the other, by counting tokens event by event."""
    found = []
    for entity in range(events.n_entities):
        first, stop = events.entity_offsets[entity : entity + 2]
        left = [e for e in range(first, stop) if chosen[e]]
        windows = []
        while left and not (windows and keep == "newest"):
            taken = one_window(events, budgets, room, left)
            windows.append(sorted(taken))
            left = [event for event in left if event not in taken]
        found += [(entity, window) for window in sorted(windows, key=lambda w: w[-1])]
    return found


def one_window(events, budgets, room, left):
    length = dict(enumerate(np.diff(events.event_offsets).tolist()))
    taken, free = set(), room
    for source, share in budgets.shares.items():
        quota = int(share * room + 1e-6)
        for event in reversed(left):
            if events.ids[events.event_offsets[event]] != source:
                continue
            if length[event] > quota:
                break
            quota -= length[event]
            free -= length[event]
            taken.add(event)
    for event in reversed(left):
        if event not in taken:
            if length[event] > free:
                break
            free -= length[event]
            taken.add(event)
    return taken


@given(histories, shares, st.integers(5, 30), st.sampled_from(["all", "newest"]), st.booleans())
@settings(deadline=None, max_examples=150, derandomize=True)
def test_windows_are_those_of_the_oracle(entities, given_shares, room, keep, some):
    events = history(entities)
    budgets = Budgets(dict(zip(SOURCES, given_shares, strict=True)))
    select = np.arange(events.n_events) % 3 != 1 if some else None
    windows = plan_budgeted(events, budgets, room + 1, keep=keep, select=select)
    chosen = np.ones(events.n_events, bool) if select is None else select
    found = [
        (int(entity), windows.events[start:stop].tolist())
        for entity, (start, stop) in zip(
            windows.entity, itertools.pairwise(windows.offsets.tolist()), strict=True
        )
    ]
    assert found == oracle(events, budgets, room, keep, chosen)
    lengths = np.diff(events.event_offsets)
    tokens = [1 + int(lengths[window].sum()) for _, window in found]
    assert windows.n_tokens.tolist() == tokens
    assert max(tokens, default=0) <= room + 1
    if keep == "all":  # each event is used once
        assert sorted(windows.events.tolist()) == np.flatnonzero(chosen).tolist()


@given(histories, st.integers(5, 30), st.sampled_from(["all", "newest"]))
@settings(deadline=None, max_examples=80, derandomize=True)
def test_without_shares_windows_are_the_usual_ones(entities, room, keep):
    events = history(entities)
    windows = plan_budgeted(events, Budgets(dict.fromkeys(SOURCES, 0.0)), room + 1, keep=keep)
    usual = plan_windows(events.event_offsets, events.entity_offsets, room + 1, keep=keep)
    assert windows.entity.tolist() == usual.entity.tolist()
    assert windows.n_tokens.tolist() == usual.n_tokens.tolist()
    starts = windows.offsets[:-1]
    assert windows.events[starts].tolist() == usual.event_start.tolist()
    assert (windows.events[windows.offsets[1:] - 1] + 1).tolist() == usual.event_stop.tolist()


@given(histories, shares, st.integers(5, 30))
@settings(deadline=None, max_examples=80, derandomize=True)
def test_what_is_kept_fits_and_has_its_share(entities, given_shares, room):
    events = history(entities)
    budgets = Budgets(dict(zip(SOURCES, given_shares, strict=True)))
    kept = keep_within_budgets(events, budgets, room + 1)
    kept.validate()
    assert kept.n_entities == events.n_entities
    newest = plan_windows(kept.event_offsets, kept.entity_offsets, room + 1, keep="newest")
    assert int((newest.n_tokens - 1).sum()) == kept.n_tokens
    for entity in range(events.n_entities):
        before, after = events.history(entity), kept.history(entity)
        assert after.n_tokens <= room
        if before.n_tokens <= room:
            assert after.ids.tolist() == before.ids.tolist()
        for source, quota in zip(SOURCES, budgets.quotas(room).tolist(), strict=True):
            lengths = [of_source(h, source) for h in (before, after)]
            # What stays of a source are its newest events, and its share is filled by them.
            assert lengths[0][len(lengths[0]) - len(lengths[1]) :] == lengths[1]
            lost = lengths[0][: len(lengths[0]) - len(lengths[1])]
            assert not lost or sum(lengths[1]) + lost[-1] > quota


def of_source(one, source):
    lengths = np.diff(one.event_offsets)
    return lengths[one.ids[one.event_offsets[:-1]] == source].tolist()


def test_a_quiet_source_keeps_its_place_only_with_a_budget():
    talkative = [(4, 2)] * 100
    events = history([[(5, 3), (5, 3), *talkative]])
    usual = plan_windows(events.event_offsets, events.entity_offsets, 21, keep="newest")
    assert usual.event_start[0] > 2
    kept = keep_within_budgets(events, Budgets({4: 0.0, 5: 0.3}), 21)
    assert of_source(kept.history(0), 5) == [3, 3]
    assert kept.n_tokens == 20  # the rest is filled by the other source


@pytest.mark.parametrize("shares", [{4: 0.7, 5: 0.4}, {4: -0.1}, {4: float("nan")}])
def test_impossible_shares_are_told(shares):
    with pytest.raises(ConfigError, match="shares of the sources are impossible"):
        Budgets(shares)


def test_an_event_that_fits_no_window_is_told():
    events = history([[(4, 2)], [(4, 2), (5, 9)]])
    with pytest.raises(DataError, match="an event of 9 tokens") as caught:
        plan_budgeted(events, Budgets({5: 0.5}), 8)
    assert caught.value.where == "event 2, entity 1 (counted from 0)"
    with pytest.raises(ConfigError, match="no place for events"):
        plan_budgeted(events, Budgets({5: 0.5}), 1)


def rows_of(dataset):
    return [
        {name: value.tolist() for name, value in dataset[i].items()} for i in range(len(dataset))
    ]


def example(seed=0, entities=6):
    rng = np.random.default_rng(seed)
    drawn = [
        [(int(rng.choice(SOURCES)), int(rng.integers(1, 5))) for _ in range(rng.integers(1, 40))]
        for _ in range(entities)
    ]
    roles = rng.integers(0, 2, sum(map(len, drawn)))
    return history(drawn, roles=roles)


@pytest.mark.parametrize("packed", [True, False])
def test_rows_hold_whole_events_each_once(packed, tmp_path):
    events, budgets = example(), Budgets({4: 0.3, 5: 0.3})
    parts = [events.take_entities([0, 1, 2]), events.take_entities([3, 4, 5])]
    store = TokenStore.write(tmp_path / "store", iter(parts))
    dataset = DomainSequenceDataset(
        store, context=24, packed=packed, train_roles=(0,), budgets=budgets
    )
    ids = np.concatenate(
        [row["input_ids"] for row in map(dataset.__getitem__, range(len(dataset)))]
    )
    wanted = np.repeat(events.roles == 0, np.diff(events.event_offsets))
    assert sorted(ids[ids != 1].tolist()) == sorted(events.ids[wanted].tolist())
    assert int(dataset.row_lengths.max()) <= 24
    for row in rows_of(dataset):
        assert [a for a, b in zip(row["labels"], row["input_ids"], strict=True) if a != b] == (
            [IGNORED] * len(row["segment_lengths"])
        )
    again = pickle.loads(pickle.dumps(dataset))
    assert rows_of(again) == rows_of(dataset)


def test_scoring_labels_each_event_of_the_role_once():
    events, budgets = example(1), Budgets({4: 0.3, 5: 0.3})
    dataset = DomainSequenceDataset(
        events, context=24, packed=False, score_roles=(1,), budgets=budgets, shuffle=False
    )
    labels = np.concatenate(
        [row["labels"] for row in map(dataset.__getitem__, range(len(dataset)))]
    )
    scored = np.repeat(events.roles == 1, np.diff(events.event_offsets))
    assert sorted(labels[labels != IGNORED].tolist()) == sorted(events.ids[scored].tolist())


def test_no_budgets_and_no_shares_give_the_same_rows():
    events = example(2)
    plain = DomainSequenceDataset(events, context=24, packed=True, seed=3)
    none = DomainSequenceDataset(
        events, context=24, packed=True, seed=3, budgets=None, train_roles=(0,)
    )
    assert rows_of(plain) == rows_of(none)
    newest = {"context": 24, "packed": False, "keep": "newest", "train_roles": None, "seed": 3}
    free = Budgets(dict.fromkeys(SOURCES, 0.0))
    assert rows_of(DomainSequenceDataset(events, **newest, budgets=free)) == rows_of(
        DomainSequenceDataset(events, **newest)
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budgets", [None, Budgets({4: 0.3, 5: 0.3})])
@pytest.mark.parametrize("roles", [{}, {"score_roles": (1,)}])
def test_a_row_tells_which_events_it_holds(packed, budgets, roles, tmp_path):
    events = example(1)
    parts = [events.take_entities([0, 1, 2]), events.take_entities([3, 4, 5])]
    store = TokenStore.write(tmp_path / "store", iter(parts))
    dataset = DomainSequenceDataset(store, context=24, packed=packed, budgets=budgets, **roles)
    for index in range(len(dataset)):
        row, begin = dataset[index], 0
        for (shard, numbers, ends), length in zip(
            dataset.events_of(index), row["segment_lengths"].tolist(), strict=True
        ):
            ids = row["input_ids"][begin : begin + length]
            cut = np.split(ids[1:], ends[:-1] - 1)
            offsets = parts[shard].event_offsets
            told = [parts[shard].ids[offsets[e] : offsets[e + 1]].tolist() for e in numbers]
            assert [piece.tolist() for piece in cut] == told
            assert ends[-1] == length
            begin += length
