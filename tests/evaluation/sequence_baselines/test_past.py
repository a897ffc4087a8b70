"""Questions about the past against a loop that reads every earlier event."""

import numpy as np
import pytest

from domainformer.evaluation.sequence_baselines.past import Past, SharedCounts, ranks


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    group, values = rng.integers(-1, 6, 300), rng.integers(0, 5, 300)
    clock = np.cumsum(rng.integers(0, 3, 300)).astype(float)
    events, asked = rng.integers(0, 300, 400), rng.integers(0, 5, 400)
    return group, values, clock, events, asked


def earlier(group, values, event, value):
    return [
        j
        for j in range(event)
        if group[event] >= 0 and group[j] == group[event] and values[j] == value
    ]


def test_counts_and_last_occurrences_are_those_of_a_loop(drawn):
    group, values, _, events, asked = drawn
    past = Past(group, values, 5)
    found = [earlier(group, values, e, v) for e, v in zip(events, asked, strict=True)]
    assert past.count(events, asked).tolist() == [len(one) for one in found]
    assert past.last(events, asked).tolist() == [one[-1] if one else -1 for one in found]


def test_counts_since_an_event(drawn):
    group, values, _, events, asked = drawn
    since = events // 2
    expected = [
        sum(j >= s for j in earlier(group, values, e, v))
        for e, v, s in zip(events, asked, since, strict=True)
    ]
    assert Past(group, values, 5).count(events, asked, since=since).tolist() == expected


def test_decayed_counts_are_those_of_a_loop(drawn):
    group, values, clock, events, asked = drawn
    now = clock[events] + 1
    expected = [
        sum(np.exp(-(n - clock[j]) / 3.0) for j in earlier(group, values, e, v))
        for e, v, n in zip(events, asked, now, strict=True)
    ]
    found = Past(group, values, 5).decayed(events, asked, clock, now, 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_an_event_never_knows_itself():
    past = Past(np.zeros(3, np.int64), np.array([4, 1, 4]), 5)
    assert past.count(np.array([0]), np.array([4])).tolist() == [0]
    assert past.last(np.array([2]), np.array([4])).tolist() == [0]


def test_no_group_has_no_past():
    past = Past(np.full(3, -1), np.array([0, 0, 0]), 1)
    every, zero = np.arange(3), np.zeros(3, np.int64)
    assert not past.count(every, zero).any()
    assert (past.last(every, zero) == -1).all()
    assert not past.decayed(every, zero, np.arange(3.0), np.arange(3.0), 1.0).any()


def test_ranks_are_those_of_a_loop(drawn):
    group = drawn[0]
    expected = [int((group[:i] == g).sum()) if g >= 0 else 0 for i, g in enumerate(group)]
    assert ranks(group).tolist() == expected


def test_shared_counts_are_weighted_shares_smoothed_to_the_lower_ones():
    contexts, values = np.array([3, 3, 3, 8, -1]), np.array([0, 1, 1, 2, 0])
    table = SharedCounts.of(contexts, values, 3, np.array([1.0, 2.0, 3.0, 1.0, 9.0]))
    asked, lower = np.array([3, 3, 8, 5]), np.full(4, 0.5)
    shares = table.share(asked, np.array([1, 2, 2, 0]), lower, 2.0)
    np.testing.assert_allclose(shares, [6 / 8, 1 / 8, 2 / 3, 0.5])


def test_nothing_counted_gives_the_lower_shares():
    table = SharedCounts.of(np.array([-1]), np.array([0]), 3)
    assert table.share(np.array([4]), np.array([1]), np.array([0.25]), 8.0).tolist() == [0.25]
