"""The shared numeric core: bins by comparison, bins by search, medians."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.fields.shapes import bin_medians, interval
from domainformer.tokenizers.kernels import bin_ids, sources
from domainformer.tokenizers.statistics import Weighted

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-9, 9).map(float)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    x=st.lists(NUMBERS, max_size=30),
    edges=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=70, unique=True).map(
        sorted
    ),
)
def test_bins_equal_counting_edges(x, edges):
    want = [0 if v != v else 1 + sum(edge <= v for edge in edges) for v in x]
    assert bin_ids(np.array(x, dtype=float), np.array(edges, dtype=float)).tolist() == want


def test_comparison_and_search_agree_over_several_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=3 * sources._BLOCK + 17)
    x[::50] = np.nan
    edges = np.sort(rng.normal(size=20))
    compared = bin_ids(x, edges)
    monkeypatch.setattr(sources, "MOST_COMPARED_EDGES", 0)
    np.testing.assert_array_equal(compared, bin_ids(x, edges))


def test_medians_lie_in_their_bins():
    ordered = np.sort(np.random.default_rng(1).lognormal(size=999))
    edges = ordered[[100, 500, 501]]
    medians = bin_medians(Weighted(ordered, np.ones(len(ordered), np.int64)), edges)
    assert bin_ids(medians, edges).tolist() == [1, 2, 3, 4]
    assert np.isin(medians, ordered).all()


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(1.0, 2.5, "[1, 2.5)"), (None, 0.0, "(-∞, 0)"), (1e9, None, "[1e+09, ∞)")],
)
def test_intervals_are_readable(low, high, want):
    assert interval(low, high) == {"low": low, "high": high, "interval": want}
