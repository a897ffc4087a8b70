import dataclasses
import pickle
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainformer.data.augment import Interchangeable, ValueSubstitution
from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.store import TokenStore
from domainformer.errors import ConfigError, DataError

BOS, IGNORED = 1, -100


def documents(dataset):
    """(entity, ids, labels) of every document of every row, in order."""
    result = []
    for row in (dataset[i] for i in range(len(dataset))):
        assert all(array.dtype == np.int64 for array in row.values())
        assert len(row["input_ids"]) == len(row["labels"]) == row["segment_lengths"].sum()
        ends = np.cumsum(row["segment_lengths"]).tolist()
        for entity, start, stop in zip(row["entity"].tolist(), [0, *ends], ends, strict=False):
            ids, labels = row["input_ids"][start:stop], row["labels"][start:stop]
            result.append((entity, ids.tolist(), labels.tolist()))
    return result


def event_rows(events):
    """(entity, role, ids) of every event."""
    rows = []
    for entity in range(events.n_entities):
        history = events.history(entity)
        for event in range(history.n_events):
            rows.append((entity, int(history.roles[event]), history.event(event).tolist()))
    return rows


def by_role(make_events, seed, order, **options):
    """Events whose roles rise within each entity (a split by time) or mix ("any")."""
    events = make_events(seed, **options)
    if order == "time":
        for first, last in zip(events.entity_offsets[:-1], events.entity_offsets[1:], strict=True):
            events.roles[first:last].sort()
    return events


seeds = st.integers(0, 60)


@given(seeds, st.sampled_from(["time", "any"]), st.booleans(), st.integers(8, 40))
def test_training_sees_each_training_event_once(make_events, seed, order, packed, context):
    events = by_role(make_events, seed, order, vocab_size=30)
    if not (events.roles == 0).any():
        return
    dataset = DomainSequenceDataset(events, context=context, packed=packed, shuffle=packed)
    found = documents(dataset)
    for entity in range(events.n_entities):
        mine = [ids[1:] for owner, ids, _ in found if owner == entity]
        expected = [ids for owner, role, ids in event_rows(events) if (owner, role) == (entity, 0)]
        if packed:  # windows come in any order
            assert sorted(chain(*mine)) == sorted(chain(*expected))
        else:
            assert list(chain(*mine)) == list(chain(*expected))
    for _, ids, labels in found:
        assert ids[0] == BOS
        assert labels == [IGNORED, *ids[1:]]
    assert dataset.n_documents == len(found)
    assert dataset.n_tokens == sum(len(ids) for _, ids, _ in found)
    assert dataset.row_lengths.tolist() == [len(dataset[i]["labels"]) for i in range(len(dataset))]
    assert dataset.row_lengths.max() <= context
    assert dataset.filled == pytest.approx(dataset.row_lengths.mean() / context)


def history_of(events, entity, event):
    """All tokens of an entity up to and including one event, counted from its first."""
    history = events.history(entity)
    return history.ids[: history.event_offsets[event + 1]].tolist()


@given(
    seeds,
    st.sampled_from(["time", "any"]),
    st.booleans(),
    st.integers(8, 40),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_scoring_labels_each_event_once_after_its_history(
    make_events, seed, order, packed, context, min_history
):
    events = by_role(make_events, seed, order, vocab_size=30)
    if not (events.roles == 2).any():
        return
    dataset = DomainSequenceDataset(
        events, context=context, packed=packed, score_roles=(2,), min_history=min_history
    )
    # Give every token of the collection its position, to see which are labelled and where.
    numbered = with_positions(events)
    places = DomainSequenceDataset(
        numbered, context=context, packed=packed, score_roles=(2,), min_history=min_history
    )
    labelled = []
    for (_, ids, labels), (entity, where, marks) in zip(
        documents(dataset), documents(places), strict=True
    ):
        assert labels[0] == IGNORED
        assert np.diff(where[1:]).tolist() == [1] * (len(where) - 2)
        start, stop = events.event_offsets[events.entity_offsets[entity : entity + 2]].tolist()
        assert all(start <= place < stop for place in where[1:])
        assert [ids[i] for i in range(1, len(ids))] == events.ids[where[1:]].tolist()
        scored = [mark for mark in marks if mark != IGNORED]
        assert [i for i, mark in enumerate(marks) if mark != IGNORED] == [
            i for i, label in enumerate(labels) if label != IGNORED
        ]
        labelled += scored
        # Enough history: everything, or at least the promised share before the last event.
        if where[1] > start and min_history == 1.0:
            assert len({event_of(events, mark) for mark in scored}) == 1
    expected = [
        token
        for event in np.flatnonzero(events.roles == 2)
        for token in range(events.event_offsets[event], events.event_offsets[event + 1])
    ]
    assert sorted(labelled) == expected


def with_positions(events):
    """The same events, each token replaced by its position."""
    ids = np.arange(events.n_tokens, dtype=np.uint32)
    return dataclasses.replace(events, ids=ids, vocab_size=1 << 20)


def event_of(events, token):
    return int(np.searchsorted(events.event_offsets, token, side="right")) - 1


def test_the_newest_window_ends_with_the_newest_event(make_events):
    events = make_events(0, entities=30, most_events=30)
    dataset = DomainSequenceDataset(
        events, context=20, packed=False, keep="newest", train_roles=None, shuffle=False
    )
    found = documents(dataset)
    assert [entity for entity, _, _ in found] == list(range(30))
    for entity, ids, _ in found:
        newest = events.history(entity).ids.tolist()
        assert ids[1:] == newest[len(newest) - len(ids) + 1 :]


def test_a_store_of_shards_gives_the_same_rows(tmp_path, make_events):
    events = make_events(4, entities=20)
    shards = [events.take_entities(np.arange(i, i + 5)) for i in range(0, 20, 5)]
    store = TokenStore.write(tmp_path / "store", shards)
    for options in ({"context": 24}, {"context": 24, "score_roles": (1, 2)}, {"packed": False}):
        one, other = (DomainSequenceDataset(source, **options) for source in (events, store))
        assert documents(one) == documents(other)


def test_rows_follow_from_seed_and_epoch_alone(make_events):
    events = make_events(4, entities=60)
    for packed in (True, False):
        dataset = DomainSequenceDataset(events, context=24, packed=packed, seed=5)
        first = documents(dataset)
        np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
        dataset.set_epoch(1)
        second = documents(dataset)
        assert first != second
        assert sorted(first) == sorted(second)
        dataset.set_epoch(0)
        assert documents(dataset) == first
        fresh = DomainSequenceDataset(events, context=24, packed=packed, seed=5)
        fresh.set_epoch(1)
        assert documents(fresh) == second
        other = DomainSequenceDataset(events, context=24, packed=packed, seed=6)
        assert documents(other) != first
        assert len(other) == len(dataset)


def test_without_shuffling_epochs_are_alike_and_in_order(make_events):
    events = make_events(4, entities=60)
    for packed in (True, False):
        dataset = DomainSequenceDataset(events, context=24, packed=packed, shuffle=False)
        first = documents(dataset)
        dataset.set_epoch(3)
        assert documents(dataset) == first
    owners = [entity for entity, _, _ in first]
    assert owners == sorted(owners)


def test_pickling_keeps_the_rows_and_not_the_data(tmp_path, make_events):
    store = TokenStore.write(tmp_path / "store", make_events(4, entities=2_000))
    dataset = DomainSequenceDataset(store, context=24, score_roles=(1,), seed=3)
    dataset.set_epoch(2)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 2_000
    again = pickle.loads(pickled)
    assert again.epoch == 2
    assert documents(again) == documents(dataset)


def test_no_held_out_token_is_trained_on(make_events):
    """Held-out events carry ids of their own, so that a leak would show; the twin leaks."""
    events = make_events(4, vocab_size=30)
    held_out = np.repeat(events.roles != 0, np.diff(events.event_offsets))
    events.ids[:] = np.where(held_out, 29, 3)

    def seen(**options):
        dataset = DomainSequenceDataset(events, context=24, **options)
        return {token for _, ids, _ in documents(dataset) for token in ids}

    assert seen() == {BOS, 3}
    assert seen(train_roles=(0, 1)) == seen(train_roles=None) == {BOS, 3, 29}


def test_torch_workers_read_the_same_rows(tmp_path, make_events):
    data = pytest.importorskip("torch.utils.data")
    store = TokenStore.write(tmp_path / "store", make_events(4))
    dataset = DomainSequenceDataset(store, context=24)
    loader = data.DataLoader(
        dataset, batch_size=2, num_workers=1, collate_fn=list, multiprocessing_context="spawn"
    )
    rows = [row for batch in loader for row in batch]
    assert len(rows) == len(dataset)
    for index, row in enumerate(rows):
        assert row["input_ids"].tolist() == dataset[index]["input_ids"].tolist()


def test_iteration_ends_like_that_of_a_list(make_events):
    dataset = DomainSequenceDataset(make_events(0), context=24)
    assert len(list(dataset)) == len(dataset)
    for outside in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[outside]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "oldest"}, "keep must be"),
        ({"keep": "newest", "score_roles": (1,)}, "exclude each other"),
        ({"seed": -1}, "seed"),
        ({"bos_id": 300}, "bos_id"),
        ({"context": 1}, "no place for events"),
        ({"score_roles": (1,), "min_history": 2}, "min_history"),
        ({"train_roles": (256,)}, "split role"),
    ],
)
def test_impossible_arguments_are_refused(make_events, options, message):
    with pytest.raises(ConfigError, match=message):
        DomainSequenceDataset(make_events(0), **options)


def test_missing_roles_are_told(make_events):
    events = make_events(0)
    events.roles[:] = 0
    for options in ({"train_roles": (2,)}, {"score_roles": (2,)}):
        with pytest.raises(DataError, match="no event has the split role test"):
            DomainSequenceDataset(events, **options)
    with pytest.raises(DataError, match="no event"):
        DomainSequenceDataset(events, train_roles=())
    with pytest.raises(DataError, match="no split roles"):
        DomainSequenceDataset(make_events(0, roles=False), score_roles=(1,))
    with pytest.raises(DataError, match="there are no events"):
        DomainSequenceDataset(events.take_entities([]), train_roles=None)
    with pytest.raises(ConfigError, match="epoch"):
        DomainSequenceDataset(events).set_epoch(-1)


def test_events_without_roles_are_all_used(make_events):
    events = make_events(0, roles=False)
    dataset = DomainSequenceDataset(events)
    assert dataset.n_tokens - dataset.n_documents == events.n_tokens


def test_a_too_long_event_is_found_in_its_shard(tmp_path, make_events):
    events = make_events(0, most_tokens=3)
    long = make_events(1, entities=1, most_events=1, most_tokens=40, first=7)
    assert long.n_tokens > 8
    store = TokenStore.write(tmp_path / "store", [events, long])
    with pytest.raises(DataError, match="longer than the") as caught:
        DomainSequenceDataset(store, context=8, train_roles=None)
    assert "shard 1, event 0, entity 0" in str(caught.value)


def test_substitution_depends_on_seed_epoch_and_document_alone(make_events):
    events = make_events(3, vocab_size=30)
    swap = ValueSubstitution([Interchangeable(tuple(range(4, 30)))], 0.5, vocab_size=30)
    plain = DomainSequenceDataset(events, context=40, train_roles=None)
    first = DomainSequenceDataset(events, context=40, train_roles=None, augment=swap)
    again = pickle.loads(pickle.dumps(first))
    assert documents(again) == documents(first) != documents(plain)
    assert [len(ids) for _, ids, _ in documents(first)] == [len(i) for _, i, _ in documents(plain)]
    assert all(ids[1:] == labels[1:] for _, ids, labels in documents(first))
    at_start = documents(first)
    first.set_epoch(1)
    again.set_epoch(1)
    assert documents(first) == documents(again) != at_start


def test_what_is_scored_is_never_substituted(make_events):
    swap = ValueSubstitution([Interchangeable((4, 5))], 0.5, vocab_size=30)
    with pytest.raises(ConfigError, match="exclude"):
        DomainSequenceDataset(make_events(3, vocab_size=30), score_roles=(1,), augment=swap)
