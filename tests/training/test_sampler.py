"""Batches per epoch are fixed; every row comes once where the epoch has as many as expected."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainformer.training.sampler import EpochBatches, spread


@given(rows=st.integers(1, 60), batch=st.integers(1, 9), more=st.integers(-3, 3))
def test_each_epoch_has_the_same_batches_whatever_its_rows(rows, batch, more):
    available = max(1, rows + more)
    batches = list(EpochBatches(range(available), rows, batch))
    assert len(batches) == len(EpochBatches(range(available), rows, batch)) == -(-rows // batch)
    flat = [row for chosen in batches for row in chosen]
    assert flat == [i % available for i in range(rows)]
    assert all(len(chosen) == batch for chosen in batches[:-1])


def test_the_length_is_asked_anew_in_each_epoch():
    rows = list(range(5))
    batches = EpochBatches(rows, 5, 2)
    rows.pop()
    assert list(batches) == [[0, 1], [2, 3], [0]]


@given(rows=st.integers(0, 500), limit=st.integers(1, 50) | st.none())
def test_spread_is_even_and_without_repeats(rows, limit):
    chosen = spread(rows, limit)
    assert len(chosen) == min(rows, rows if limit is None else limit)
    assert len(set(chosen)) == len(chosen)
    assert all(0 <= row < rows for row in chosen)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("limit", [10, 11, None])
def test_all_rows_where_the_limit_allows(limit):
    assert spread(10, limit) == list(range(10))
