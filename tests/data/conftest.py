import numpy as np
import polars as pl
import pytest

from domainformer.data.store import TokenizedEvents, id_dtype


def _make_events(
    seed=0, entities=7, most_events=9, most_tokens=6, vocab_size=300, roles=True, first=0
):
    """Random ragged events; entity i of the whole collection is called "entity-i"."""
    rng = np.random.default_rng(seed)
    n_events = rng.integers(1, most_events + 1, entities)
    n_tokens = rng.integers(1, most_tokens + 1, n_events.sum())
    return TokenizedEvents(
        ids=rng.integers(0, vocab_size, n_tokens.sum()).astype(id_dtype(vocab_size)),
        event_offsets=np.concatenate([[0], np.cumsum(n_tokens)]).astype(np.int64),
        entity_offsets=np.concatenate([[0], np.cumsum(n_events)]).astype(np.int64),
        entity_ids=pl.Series([f"entity-{first + i}" for i in range(entities)], dtype=pl.String),
        times=rng.integers(-(10**15), 10**15, n_events.sum()),
        roles=rng.integers(0, 3, n_events.sum()).astype(np.uint8) if roles else None,
        tokenizer_fingerprint="f00d",
        vocab_size=vocab_size,
    )


@pytest.fixture(scope="session")
def make_events():
    return _make_events
