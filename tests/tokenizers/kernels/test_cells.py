"""Bins by cells: equal to counting edges, whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.kernels import Binned, bin_ids
from domainformer.tokenizers.kernels.cells import cells, ordered_keys, united

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-9, 9).map(float),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, np.inf, -np.inf]),
)


def by_cells(x, edges):
    found = cells(edges)
    cell = (ordered_keys(x) >> np.uint64(found.shift)).astype(int)
    codes = 1 + found.below[cell] + (x >= found.edge[cell])
    return np.where(np.isnan(x), 0, codes)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(NUMBERS, max_size=30), st.lists(FINITE, max_size=30, unique=True).map(sorted))
def test_cells_equal_comparisons(x, edges):
    # −0 and 0 are one edge.
    edges = np.unique(np.array(edges, dtype=float) + 0.0)
    x = np.concatenate([np.array(x, dtype=float), edges, np.nextafter(edges, 0)])
    if cells(edges) is not None:
        assert by_cells(x, edges).tolist() == bin_ids(x, edges).tolist()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("close", [False, True])
def test_the_compiled_loop_equals_comparisons(absolute, close):
    pytest.importorskip("numba")
    from domainformer.tokenizers.kernels.fused import _codes

    rng = np.random.default_rng(0)
    x = rng.normal(size=5000) * 10.0 ** rng.integers(-320, 300, 5000)
    x[:7] = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, -5e-324]
    edges = np.unique(np.abs(rng.choice(x[7:], 12)) if absolute else rng.choice(x[7:], 12))
    if close:
        edges = np.unique([*edges, np.nextafter(edges[3], np.inf)])
    assert (cells(edges) is None) == close
    source = Binned(np.concatenate([x, edges, -edges]), edges, absolute)
    n = len(source.numbers)
    found = _codes(source, 0, n, np.empty(n, np.int32))
    assert found.tolist() == source.codes(0, n).tolist()


def test_two_edges_in_one_cell_are_refused():
    assert cells(np.array([1.0, np.nextafter(1.0, 2.0)])) is None
    assert cells(np.empty(0)) is not None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(NUMBERS, max_size=30),
    st.lists(st.tuples(st.booleans(), st.lists(FINITE, max_size=8, unique=True)), min_size=2),
)
def test_united_bins_tell_the_bins_of_each(x, wanted):
    drawn = [(np.unique(np.array(e, dtype=float) + 0.0), absolute) for absolute, e in wanted]
    edges = np.concatenate([edges for edges, _ in drawn])
    x = np.concatenate([np.array(x, dtype=float), edges, -edges, np.nextafter(-edges, 0)])
    sources = [Binned(x, edges, absolute) for edges, absolute in drawn]
    both, codes = united(*sources)
    found = both.codes(0, len(x))
    for source, code in zip(sources, codes, strict=True):
        assert code[found].tolist() == source.codes(0, len(x)).tolist()
