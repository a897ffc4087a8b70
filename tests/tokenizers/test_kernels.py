"""The joining pass: numpy, compiled, and a loop that anybody can check."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import MissingExtraError
from domainformer.tokenizers import kernels
from domainformer.tokenizers.kernels import Spans, distinct_keys, event_offsets, join

PATHS = [False, True]


@pytest.fixture(params=PATHS, ids=["numpy", "compiled"])
def compiled(request):
    if request.param:
        pytest.importorskip("numba")
    return request.param


def oracle(fields, n_events):
    ids, offsets = [], [0]
    for event in range(n_events):
        for codes, values, rows, _ in fields:
            row = codes[event]
            ids += values[rows[row] : rows[row + 1]].tolist()
        offsets.append(len(ids))
    return ids, offsets


@st.composite
def random_fields(draw):
    n_events = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fields = []
    for width in draw(st.lists(st.sampled_from([1, 2, 4, 7, None]), min_size=1, max_size=5)):
        n_rows = int(rng.integers(1, 9))
        codes = rng.integers(0, n_rows, n_events, dtype=np.int32)
        if width is None:
            offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, n_rows))]).astype(np.int64)
            fields.append(Spans(codes, rng.integers(0, 200, offsets[-1]), offsets, None))
        else:
            table = rng.integers(0, 200, (n_rows, width))
            fields.append(Spans.of_table(codes, table))
    return fields, n_events


@settings(max_examples=150, deadline=None, derandomize=True)
@given(random_fields(), st.sampled_from([np.uint8, np.uint16, np.uint32]), st.integers(1, 9))
def test_equal_to_a_plain_loop(case, dtype, block):
    fields, n_events = case
    expected = oracle(fields, n_events)
    for compiled in PATHS if kernels.numba_available() else [False]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "_BLOCK", block)
            ids, offsets = join(fields, n_events, dtype, compiled=compiled)
        assert ids.dtype == dtype
        assert (ids.tolist(), offsets.tolist()) == expected


def test_blocks_do_not_show(compiled):
    rng = np.random.default_rng(0)
    n_events = 3 * kernels._BLOCK + 17
    rows = np.concatenate([[0], np.cumsum(rng.integers(0, 9, 50))]).astype(np.int64)
    fields = [
        Spans.of_table(rng.integers(0, 5, n_events, dtype=np.int32), np.arange(5)[:, None]),
        Spans(rng.integers(0, 50, n_events, dtype=np.int32), np.arange(rows[-1]), rows, None),
        Spans.of_table(rng.integers(0, 3, n_events, dtype=np.int32), np.arange(12).reshape(3, 4)),
    ]
    ids, offsets = join(fields, n_events, np.uint16, compiled=compiled)
    assert (ids.tolist(), offsets.tolist()) == oracle(fields, n_events)


def test_read_only_codes_are_fine(compiled):
    codes = np.array([0, 1], np.int32)
    codes.setflags(write=False)
    field = Spans.of_table(codes, np.array([[1], [2]]))
    assert join([field], 2, np.uint8, compiled=compiled).ids.tolist() == [1, 2]


def test_offsets_of_fixed_fields_need_no_codes():
    field = Spans.of_table(np.zeros(3, np.int32), np.zeros((1, 4), np.uint8))
    assert event_offsets([field], 3).tolist() == [0, 4, 8, 12]


def test_without_numba_the_numpy_path_serves(monkeypatch):
    field = Spans.of_table(np.array([0], np.int32), np.array([[7]]))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(kernels, "numba_available", lambda: False)
    kernels._compiled.cache_clear()
    try:
        assert join([field], 1, np.uint8).ids.tolist() == [7]
        with pytest.raises(MissingExtraError, match=r"domainformer\[fast\]"):
            join([field], 1, np.uint8, compiled=True)
    finally:
        kernels._compiled.cache_clear()


def test_a_kernel_that_drops_a_row_is_found(monkeypatch):
    """The twin of the oracle test: one wrong length and the ids differ."""
    real = kernels._NUMPY

    def short(codes, values, rows, position, ids):
        real.ragged(codes, values, np.minimum(rows, rows[-1] - 1), position, ids)

    monkeypatch.setattr(kernels, "_NUMPY", real._replace(ragged=short))
    field = Spans(np.array([1, 0], np.int32), np.array([5, 6, 7]), np.array([0, 1, 3]), None)
    ids, _ = join([field], 2, np.uint8, compiled=False)
    assert ids.tolist()[:3] != oracle([field], 2)[0]


# ── rows by their keys ────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2000), st.integers(1, 500), st.integers(0, 2**32))
def test_numbering_equals_a_dictionary(n_rows, n_keys, seed):
    pytest.importorskip("numba")
    rng = np.random.default_rng(seed)
    # Keys that differ in one half only, and zeros, which an empty slot must not be taken for.
    pool = np.stack([rng.integers(0, 3, n_keys), rng.integers(0, 1 << 60, n_keys)], axis=1)
    pool[0] = 0
    keys = pool[rng.integers(0, n_keys, n_rows)].astype(np.uint64)
    seen, wanted = {}, []
    for key in map(tuple, keys.tolist()):
        wanted.append(seen.setdefault(key, len(seen)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_SMALLEST_TABLE", 3)  # so that it grows
        found = distinct_keys(keys, most=n_rows)
    assert found.codes.tolist() == wanted
    assert [tuple(key) for key in keys[found.first].tolist()] == list(seen)


def test_numbering_gives_up_on_too_many_keys():
    pytest.importorskip("numba")
    keys = np.arange(20_000, dtype=np.uint64).reshape(-1, 2)
    assert distinct_keys(keys, most=5_000) is None
    assert len(distinct_keys(keys, most=10_000).first) == 10_000
