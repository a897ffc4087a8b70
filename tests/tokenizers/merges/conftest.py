"""Small histories of sets, and how tests build events from them."""

import numpy as np
import polars as pl
import pytest

from domainformer.data.tokens import TokenizedEvents, id_dtype


def make_events(histories, base, *, roles=None, names=None, fingerprint="f00d"):
    """TokenizedEvents of histories given as lists of sorted sets."""
    events = [one for history in histories for one in history]
    lengths = [len(one) for one in events]
    owners = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    return TokenizedEvents(
        ids=np.array([t for one in events for t in one], dtype=id_dtype(base)),
        event_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        entity_offsets=owners,
        entity_ids=pl.Series("entity", names or list(range(len(histories))), strict=True),
        times=np.arange(len(events), dtype=np.int64),
        roles=None if roles is None else np.array(roles, dtype=np.uint8),
        tokenizer_fingerprint=fingerprint,
        vocab_size=base,
    )


def random_histories(seed, *, entities=30, events=8, width=4, base=14, empty=False):
    """Skewed random sets, so that some pairs are frequent."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, base + 1)
    histories = []
    for _ in range(entities):
        sizes = rng.integers(0 if empty else 1, width + 1, rng.integers(1, events + 1))
        histories.append(
            [
                sorted(rng.choice(base, size, replace=False, p=weight / weight.sum()).tolist())
                for size in sizes
            ]
        )
    return histories


@pytest.fixture(params=[False, True], ids=["python", "compiled"])
def compiled(request):
    """Both machines; the compiled one where numba is installed."""
    if request.param:
        pytest.importorskip("numba")
    return request.param
