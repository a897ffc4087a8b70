import math

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.evaluation.item_baselines import (
    Blend,
    Ease,
    ItemHistories,
    Popularity,
    Transitions,
    TransitionSettings,
    ranking_figures,
    target_ranks,
)
from domainformer.evaluation.item_search import (
    LeaveLastOut,
    _sparse_ranks,
    tune_blend,
    tune_ease,
    tune_transitions,
)

SETTINGS = TransitionSettings(
    reach=3,
    gap_decay=0.5,
    backward=0.4,
    source_power=0.7,
    target_power=0.2,
    count_power=0.9,
    decay=0.6,
    memory=3,
)


def histories_of(rows, n_items):
    offsets = np.cumsum([0, *map(len, rows)])
    return ItemHistories(
        np.array([item for row in rows for item in row], np.int64), offsets, n_items
    )


def random_histories(users=40, n_items=12, seed=0, chain=0.0):
    """Random items; with ``chain``, item + 1 follows that often."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        row = [int(rng.integers(n_items))]
        for _ in range(rng.integers(3, 9)):
            follows = rng.random() < chain
            row.append((row[-1] + 1) % n_items if follows else int(rng.integers(n_items)))
        rows.append(row)
    return rows, histories_of(rows, n_items)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    rows, histories = random_histories()
    seen = np.zeros((len(rows), 12))
    for user, row in enumerate(rows):
        seen[user, row] = 1.0
    fitted = Ease.fit(histories, penalty=3.0).matrix
    for item in range(12):
        others = np.delete(np.arange(12), item)
        x = seen[:, others]
        weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(11), x.T @ seen[:, item])
        np.testing.assert_allclose(fitted[others, item], weights, atol=2e-5)
        assert fitted[item, item] == 0.0


def test_ease_reads_recent_items_more():
    rows, histories = random_histories()
    model = Ease.fit(histories, penalty=3.0, decay=0.5)
    expected = sum(model.matrix[item] * 0.5**back for back, item in enumerate(reversed(rows[0])))
    np.testing.assert_allclose(model.scores(histories)[0], expected, atol=1e-5)


def test_transitions_equal_a_loop():
    rows, histories = random_histories()
    counts, s = np.zeros((12, 12)), SETTINGS
    for row in rows:
        for place, first in enumerate(row):
            for gap in range(1, s.reach + 1):
                if place + gap < len(row) and row[place + gap] != first:
                    counts[first, row[place + gap]] += s.gap_decay ** (gap - 1)
                    counts[row[place + gap], first] += s.backward * s.gap_decay ** (gap - 1)
    seen = np.bincount(histories.items, minlength=12)
    table = counts**s.count_power / counts.sum(1, keepdims=True) ** s.source_power
    table = table / seen[None, :] ** s.target_power
    model = Transitions.fit(histories, s)
    np.testing.assert_allclose(model.matrix.toarray(), table, rtol=1e-5)
    expected = sum(table[item] * s.decay**back for back, item in enumerate(rows[3][::-1][:3]))
    np.testing.assert_allclose(model.scores(histories)[3], expected, rtol=1e-5)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_equal_a_loop_and_the_sparse_way(exclude_seen):
    rows, histories = random_histories(chain=0.3)
    shown, targets = histories.without_last(1), histories.last(1)
    model = Transitions.fit(shown.take(np.arange(10)), SETTINGS)
    ranks = target_ranks(model, shown, targets, exclude_seen=exclude_seen)
    scores = model.scores(shown)
    for user, row in enumerate(rows):
        own, others = scores[user, row[-1]], set(range(12)) - {row[-1]}
        if exclude_seen:
            others -= set(row[:-1])
        higher = sum(scores[user, j] > own for j in others)
        equal = sum(scores[user, j] == own for j in others)
        assert ranks[user] == 1 + higher + equal / 2
    seen = shown.weights(1.0, 100) if exclude_seen else None
    np.testing.assert_array_equal(_sparse_ranks(model.sparse_scores(shown), targets, seen), ranks)


def test_figures_by_hand():
    figures = ranking_figures(np.array([1.0, 2.0, 7.0, 100.0]))
    assert figures["recall@5"] == 0.5
    assert figures["recall@10"] == 0.75
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3) + 1 / 3) / 4)


def test_a_constant_model_ranks_in_the_middle():
    _, histories = random_histories()
    flat = Popularity(np.ones(12, np.float32))
    assert set(target_ranks(flat, histories.without_last(1), histories.last(1))) == {6.5}


def test_the_search_finds_the_order_that_was_planted():
    """A chain of items: transitions beat popularity and EASE, and nothing reads the test item."""
    rows, histories = random_histories(users=300, n_items=30, seed=1, chain=0.7)
    split = LeaveLastOut(histories, choose_by=200)
    grid = {"backward": (0.0, 0.5), "decay": (0.2, 0.8)}
    settings, _ = tune_transitions(split, grid=grid)
    transitions = Transitions.fit(split.train, settings)
    plain, decayed, found = tune_ease(split, (10.0, 50.0))
    blend, _ = tune_blend(split, transitions, decayed)
    assert settings.backward == 0.0
    figures = {
        "popularity": split.judge(Popularity.fit(split.train)),
        "ease": split.judge(plain),
        "transitions": split.judge(transitions),
        "blend": split.judge(blend),
    }
    recall = {name: one["recall@5"] for name, one in figures.items()}
    assert recall["transitions"] > 0.7 > recall["ease"] > recall["popularity"]
    assert recall["blend"] > recall["transitions"] - 0.05
    assert found["penalty"] in (10.0, 50.0)

    other = [[*row[:-1], 0] for row in rows]
    changed = LeaveLastOut(histories_of(other, 30), choose_by=200)
    assert tune_transitions(changed, grid=grid)[0] == settings
    same = Transitions.fit(changed.train, settings)
    assert (same.matrix != transitions.matrix).nnz == 0
    # Twin: an item of the training part does change what is counted.
    broken = LeaveLastOut(histories_of([[0, *row[1:]] for row in rows], 30))
    assert (Transitions.fit(broken.train, settings).matrix != transitions.matrix).nnz > 0


def test_histories_are_read_from_a_table():
    frame = pl.DataFrame({"u": [2, 1, 1], "t": [0, 1, 0], "item": ["c", "b", "a"]})
    table = EventTable.of(frame, entity="u", time="t")
    histories = ItemHistories.of(table, "item", ["a", "b", "c", "d"])
    assert histories.items.tolist() == [0, 1, 2]
    assert (histories.offsets.tolist(), histories.n_items) == ([0, 2, 3], 4)
    with pytest.raises(DataError, match="'c' is not in the catalogue"):
        ItemHistories.of(table, "item", ["a", "b"])
    with pytest.raises(DataError, match="no column 'product'"):
        ItemHistories.of(table, "product")


def test_bad_input_is_told():
    with pytest.raises(DataError, match="outside"):
        histories_of([[0, 5]], 3)
    with pytest.raises(DataError, match="penalty"):
        Ease.fit(histories_of([[0, 1]], 2), penalty=0.0)
    with pytest.raises(DataError, match="user 1 has fewer than 3"):
        LeaveLastOut(histories_of([[0, 1, 2], [0, 1]], 3))


def test_empty_histories_score_nothing():
    model = Transitions.fit(histories_of([[0, 1], [1, 2]], 3), SETTINGS)
    empty = ItemHistories(np.array([], np.int64), np.array([0, 0]), 3)
    assert model.scores(empty).tolist() == [[0.0, 0.0, 0.0]]
    assert Blend(model, model, 1.0).scores(empty).tolist() == [[0.0, 0.0, 0.0]]
