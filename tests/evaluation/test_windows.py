import numpy as np
import polars as pl
import pytest

from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError
from domainformer.evaluation.windows import ScoringWindow, batch_windows, plan_scoring


def events_of(lengths, seed=0):
    """Histories whose events have one to five tokens."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, size=sum(lengths))
    return TokenizedEvents(
        ids=np.zeros(int(sizes.sum()), np.uint8),
        event_offsets=np.cumsum([0, *sizes]),
        entity_offsets=np.cumsum([0, *lengths]),
        entity_ids=pl.Series(range(len(lengths))),
        times=np.zeros(len(sizes), np.int64),
        roles=None,
        tokenizer_fingerprint="f",
        vocab_size=8,
    )


@pytest.mark.parametrize("most", [None, 1, 4])
@pytest.mark.parametrize("context", [12, 40, 1000])
def test_each_chosen_event_is_scored_once_with_enough_past(context, most):
    events = events_of([30, 1, 80, 5])
    chosen = np.sort(np.random.default_rng(1).choice(events.n_events, size=50, replace=False))
    windows = plan_scoring(events, chosen, context, most=most)
    np.testing.assert_array_equal(np.sort(np.concatenate([w.scored for w in windows])), chosen)
    offsets, starts = events.event_offsets, events.entity_offsets
    for window in windows:
        owner = int(np.searchsorted(starts, window.event_start, side="right")) - 1
        assert starts[owner] <= window.event_start
        assert window.event_stop <= starts[owner + 1]
        assert window.tokens == 1 + offsets[window.event_stop] - offsets[window.event_start]
        assert window.tokens <= context
        assert most is None or len(window.scored) <= most
        for event in window.scored:
            past = offsets[event] - offsets[window.event_start]
            whole = window.event_start == starts[owner]
            assert whole or past >= (context - 1) // 2 - 2 * 5  # up to whole events


def test_an_event_longer_than_the_context_is_told():
    with pytest.raises(DataError, match="longer than the context"):
        plan_scoring(events_of([20]), np.arange(20), 4)


def test_batches_hold_every_window_within_the_budget():
    rng = np.random.default_rng(0)
    windows = [
        ScoringWindow(0, np.arange(rng.integers(1, 9)), int(rng.integers(2, 60))) for _ in range(70)
    ]
    batches = batch_windows(windows, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(70))
    for batch in batches:
        area = len(batch) * max(windows[i].tokens for i in batch)
        assert area <= 100 or len(batch) == 1
    assert len(batches) < 50
