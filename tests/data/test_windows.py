"""Windows of text: every place starts one in time, every id is scored once, epochs repeat."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data import SequenceBuilder, TextWindows
from domainformer.data.dataset import IGNORED
from domainformer.errors import ConfigError, DataError


def documents_of(sizes, seed=0, vocab=1000):
    """Documents whose ids are distinct, so that an id tells its place."""
    order = np.random.default_rng(seed).permutation(max(sum(sizes), 1) + vocab)[: sum(sizes)]
    return np.split(order, np.cumsum(sizes)[:-1])


def shapes(least, most=60):
    return st.lists(st.integers(least, most), min_size=1, max_size=5)


# ── scoring ───────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=150, deadline=None)
@given(sizes=shapes(0), context=st.integers(1, 12), data=st.data())
def test_scoring_predicts_each_id_exactly_once(sizes, context, data):
    if max(sizes) < 2:
        sizes = [*sizes, 2]
    history = data.draw(st.integers(0, context - 1))
    documents = documents_of(sizes)
    windows = SequenceBuilder(context).build_scoring(documents, history=history)
    scored = Counter()
    for index in range(len(windows)):
        x, y = windows.pairs(index)
        document, offset = int(windows.documents[index]), int(windows.offsets[index])
        assert 1 <= len(x) == len(y) <= context
        assert x.tolist() == documents[document][offset : offset + len(x)].tolist()
        for place in np.flatnonzero(y != IGNORED).tolist():
            at = offset + place + 1
            assert y[place] == documents[document][at]
            assert place + 1 >= min(at, history + 1)  # what it sees
            scored[document, at] += 1
    expected = {(d, at) for d, size in enumerate(sizes) for at in range(1, size)}
    assert set(scored) == expected
    assert set(scored.values()) == {1}
    assert windows.n_targets == len(expected)


def test_a_count_that_scores_the_overlap_twice_is_found():
    """The sabotage twin: windows of plain ids, without unscored history, count ids twice."""
    windows = SequenceBuilder(4).build_scoring(documents_of([30]), history=2)
    naive = sum(len(windows.pairs(index)[1]) for index in range(len(windows)))
    assert naive > windows.n_targets == 29


@settings(max_examples=60, deadline=None)
@given(sizes=shapes(0), context=st.integers(1, 12), boundary=st.sampled_from([None, 5000]))
def test_scoring_across_documents_scores_all_but_the_first_and_the_boundaries(
    sizes, context, boundary
):
    if sum(sizes) < 2:
        sizes = [*sizes, 2]
    builder = SequenceBuilder(context, cross_documents=True, boundary_id=boundary)
    documents = documents_of(sizes)
    windows = builder.build_scoring(documents)
    scored = [row["labels"][row["labels"] != IGNORED] for row in windows]
    stream = np.concatenate(documents)
    first_stands_alone = boundary is None or sizes[0] > 0
    assert np.concatenate(scored).tolist() == stream[int(first_stands_alone) :].tolist()
    assert windows.n_targets == len(stream) - first_stands_alone
    assert windows.n_ids == len(stream) + (0 if boundary is None else len(sizes) - 1)


def test_scoring_is_the_same_in_every_epoch():
    windows = SequenceBuilder(4).build_scoring(documents_of([30, 9]))
    before = [row["input_ids"].tolist() for row in windows]
    windows.set_epoch(3)
    assert [row["input_ids"].tolist() for row in windows] == before
    assert windows.scoring


# ── training ──────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=100, deadline=None)
@given(data=st.data(), context=st.integers(1, 10), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_training_windows_are_full_lie_on_a_grid_and_stay_in_their_document(
    data, context, seed, epoch
):
    sizes = data.draw(shapes(context + 1))
    stride = data.draw(st.one_of(st.none(), st.integers(1, 15)))
    documents = documents_of(sizes)
    windows = SequenceBuilder(context, stride).build(documents, seed=seed)
    windows.set_epoch(epoch)
    step = stride or context
    for index, row in enumerate(windows):
        document, offset = documents[windows.documents[index]], windows.offsets[index]
        assert row["input_ids"].tolist() == document[offset : offset + context + 1].tolist()
        assert row["labels"].tolist() == [IGNORED, *row["input_ids"][1:].tolist()]
        assert row["input_ids"].dtype == row["labels"].dtype == np.int64
    for number, size in enumerate(sizes):
        offsets = np.sort(windows.offsets[windows.documents == number])
        assert (np.diff(offsets) == step).all()
        assert 0 <= offsets[0] < min(step, size - context)
        assert offsets[-1] + step + context + 1 > size  # no room for one more
    assert windows.row_lengths.tolist() == [context + 1] * len(windows)
    assert windows.n_targets == context * len(windows)


def test_every_place_starts_a_window_in_time():
    builder = SequenceBuilder(5)
    windows = builder.build(documents_of([23, 6]), seed=1)
    starts = set()
    for epoch in range(60):
        windows.set_epoch(epoch)
        starts |= set(zip(windows.documents.tolist(), windows.offsets.tolist(), strict=True))
    assert starts == {(0, place) for place in range(18)} | {(1, 0)}


def test_order_follows_seed_and_epoch_alone():
    def order(seed, epoch):
        windows = SequenceBuilder(5).build(documents_of([400]), seed=seed)
        windows.set_epoch(epoch)
        return windows.offsets.tolist()

    first = order(0, 1)
    np.random.seed(1)  # noqa: NPY002 the global generator is what must not matter
    assert order(0, 1) == first
    others = [order(0, 0), order(0, 2), order(1, 1), sorted(first)]
    assert all(first != other for other in others)
    # (0, 1) and (1, 0) are keys of their own, not a sum
    assert order(1, 0) != first


def test_epochs_may_be_visited_in_any_order():
    windows = SequenceBuilder(5).build(documents_of([100]), seed=2)
    seen = []
    for epoch in (0, 1, 2, 1, 0):
        windows.set_epoch(epoch)
        seen.append(windows.offsets.tolist())
    assert seen[0] == seen[4]
    assert seen[1] == seen[3]
    apart = windows.at(seed=9, epoch=1)
    assert apart.offsets.tolist() != seen[1]
    assert windows.offsets.tolist() == seen[0]
    assert windows.at(epoch=1).offsets.tolist() == seen[1]


def test_windows_cross_documents_where_asked():
    documents = [[1, 2, 3], [4, 5], [6]]
    builder = SequenceBuilder(3, stride=1, cross_documents=True, boundary_id=0)
    windows = builder.build(documents)
    rows = {tuple(row["input_ids"].tolist()) for row in windows}
    stream = [1, 2, 3, 0, 4, 5, 0, 6]
    assert rows == {tuple(stream[start : start + 4]) for start in range(5)}
    placed = dict(
        zip(map(tuple, (row["input_ids"] for row in windows)), windows.documents, strict=True)
    )
    assert placed[3, 0, 4, 5] == 0
    assert placed[4, 5, 0, 6] == 1
    joined = SequenceBuilder(5, cross_documents=True).build(documents)
    assert joined[0]["input_ids"].tolist() == [1, 2, 3, 4, 5, 6]


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(sizes=shapes(2), context=st.integers(1, 12), data=st.data())
def test_a_batch_is_its_rows_filled_up(sizes, context, data):
    windows = SequenceBuilder(context).build_scoring(documents_of(sizes))
    rows = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=6))
    batch = windows.batch(rows)
    longest = max(int(windows.row_lengths[row]) for row in rows)
    for key, filling in (("input_ids", 0), ("labels", IGNORED)):
        assert batch[key].shape == (len(rows), longest)
        assert batch[key].dtype == np.int64
        for line, row in zip(batch[key], rows, strict=True):
            values = windows[row][key].tolist()
            assert line.tolist() == values + [filling] * (longest - len(values))


@pytest.mark.parametrize("vocab", [200, 60_000, 200_000])
def test_ids_of_any_tokenizer_come_back(vocab):
    ids = np.random.default_rng(0).integers(0, vocab, 500)
    windows = SequenceBuilder(16).build_scoring([ids])
    assert np.concatenate([windows.pairs(index)[1] for index in range(len(windows))]).tolist() == (
        ids[1:].tolist()
    )
    assert SequenceBuilder(16).build_scoring([ids.tolist()]).batch([1, 2])[
        "input_ids"
    ].tolist() == (windows.batch([1, 2])["input_ids"].tolist())


def test_rows_are_copies_and_windows_travel():
    windows = SequenceBuilder(5).build(documents_of([100]), seed=2)
    windows.set_epoch(3)
    windows[0]["input_ids"][:] = 0
    copy = pickle.loads(pickle.dumps(windows))
    assert isinstance(copy, TextWindows)
    assert [row["input_ids"].tolist() for row in copy] == [
        row["input_ids"].tolist() for row in windows
    ]
    assert windows[0]["input_ids"].any()
    with pytest.raises(IndexError):
        windows[len(windows)]
    with pytest.raises(IndexError):
        windows[-1]


# ── bad input ─────────────────────────────────────────────────────────────────────────────────


def test_a_document_shorter_than_one_window_is_refused():
    builder = SequenceBuilder(10)
    with pytest.raises(DataError, match=r"poem\.txt is shorter than one window") as caught:
        builder.build([range(11), range(10), range(3)], names=["a", "poem.txt", "b"])
    assert "10 ids" in caught.value.why
    assert "takes 11; 2 documents are too short" in caught.value.why
    assert "cross_documents" in caught.value.next_step
    with pytest.raises(DataError, match="document 0 is shorter") as caught:
        builder.build([range(10)])
    assert "cross_documents" not in caught.value.next_step
    assert len(builder.build([range(11)])) == 1
    crossing = SequenceBuilder(10, cross_documents=True)
    assert len(crossing.build([range(5), range(6)])) == 1
    with pytest.raises(DataError, match="the text is shorter"):
        crossing.build([range(5), range(5)])


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no ids"),
        ([[]], "no ids"),
        ([1, 2, 3], "document 0 is not a flat list"),
        ([[[1, 2]]], "document 0 is not a flat list"),
        ([[1, 2], [0.5, 1.0]], "document 1 holds what is no id"),
        ([[1, -2]], "the least -2"),
        (["text"], "not a flat list"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(documents, message):
    for build in (SequenceBuilder(2).build, SequenceBuilder(2).build_scoring):
        with pytest.raises(DataError, match=message):
            build(documents)


def test_settings_out_of_range_are_refused():
    for arguments, message in (
        ({"context": 0}, "context must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"boundary_id": 0}, "boundary_id is of no use"),
        ({"boundary_id": -1, "cross_documents": True}, "must not be negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            SequenceBuilder(**arguments)
    builder = SequenceBuilder(4)
    with pytest.raises(ConfigError, match="history must be from 0 to 3"):
        builder.build_scoring([range(9)], history=4)
    with pytest.raises(ConfigError, match="seed must not be negative"):
        builder.build([range(9)], seed=-1)
    with pytest.raises(ConfigError, match="epoch must not be negative"):
        builder.build([range(9)]).set_epoch(-1)
    with pytest.raises(DataError, match="nothing to score"):
        builder.build_scoring([[1], [2]])


@pytest.mark.parametrize("boundary", [None, 7])
def test_targets_are_counted_as_the_windows_have_them(boundary):
    documents = documents_of([23, 9, 40], vocab=12)
    crossing = {} if boundary is None else {"cross_documents": True, "boundary_id": boundary}
    windows = SequenceBuilder(context=8, **crossing).build_scoring(documents)
    labels = np.concatenate([windows[index]["labels"] for index in range(len(windows))])
    counts = windows.target_counts(12)
    assert counts.tolist() == np.bincount(labels[labels != IGNORED], minlength=12).tolist()
    assert counts.sum() == windows.n_targets
