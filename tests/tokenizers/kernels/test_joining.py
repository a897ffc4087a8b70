"""The joining pass: numpy, compiled, and a loop that anybody can check."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import MissingExtraError
from domainformer.tokenizers.kernels import (
    Binned,
    Spans,
    Stepped,
    compiling,
    event_offsets,
    fused,
    join,
    joining,
    numba_available,
)
from domainformer.tokenizers.kernels.sources import codes_of

PATHS = [False, True]


@pytest.fixture(params=PATHS, ids=["numpy", "compiled"])
def compiled(request):
    if request.param:
        pytest.importorskip("numba")
    return request.param


def oracle(fields, n_events):
    ids, offsets = [], [0]
    for event in range(n_events):
        for source, values, rows, _ in fields:
            row = codes_of(source, event, event + 1)[0]
            ids += values[rows[row] : rows[row + 1]].tolist()
        offsets.append(len(ids))
    return ids, offsets


@st.composite
def random_fields(draw):
    n_events = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fields = []
    for width in draw(st.lists(st.sampled_from([1, 2, 4, 9, None]), min_size=1, max_size=6)):
        n_rows = int(rng.integers(1, 9))
        kind = rng.choice([np.int32, np.uint32, np.uint8])
        codes = rng.integers(0, n_rows, n_events).astype(kind)
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
    for compiled in PATHS if numba_available() else [False]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joining, "_BLOCK", block)
            patch.setattr(fused, "_BLOCK", block)
            ids, offsets = join(fields, n_events, dtype, compiled=compiled)
        assert ids.dtype == dtype
        assert (ids.tolist(), offsets.tolist()) == expected


def test_blocks_do_not_show(compiled):
    rng = np.random.default_rng(0)
    n_events = 3 * max(joining._BLOCK, fused._BLOCK) + 17
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


def test_numbers_are_coded_while_joining(compiled):
    rng = np.random.default_rng(1)
    n_events = fused._BLOCK + 100
    amounts = rng.lognormal(2, 2, n_events) * rng.choice([-1, 1], n_events)
    amounts[:6] = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324]
    times = rng.integers(-(10**9), 10**9, n_events)
    times[:4] = [-7200, -3600, 0, 3599]
    missing = rng.random(n_events) < 0.1
    first = int(times.min() // 3600)
    steps = np.arange(2 * (int(times.max() // 3600) - first + 2)).reshape(-1, 2) % 60_000
    fields = [
        Spans.of_table(Binned(amounts, np.array([0.0]), False), np.arange(3)[:, None]),
        Spans.of_table(Binned(amounts, np.array([1e-300, 1.0, 9.0]), True), np.arange(5)[:, None]),
        Spans.of_table(Stepped(times, 3600, first, None), steps),
        Spans.of_table(Stepped(times, 3600, first, missing), steps),
        Spans.of_table(Stepped(times // 3600, 1, first, missing), steps),
    ]
    few = 200
    ids, offsets = join(fields, n_events, np.uint16, compiled=compiled)
    assert (ids[: offsets[few]].tolist(), offsets[: few + 1].tolist()) == oracle(fields, few)
    if compiled:
        assert ids.tolist() == join(fields, n_events, np.uint16, compiled=False).ids.tolist()


def test_times_at_both_ends_of_their_range_are_coded_alike():
    pytest.importorskip("numba")
    ends = np.iinfo(np.int64)
    day = 86_400 * 10**9
    times = np.array([ends.min, ends.min + day, -1, 0, 1, day - 1, day, ends.max - 1, ends.max])
    source = Stepped(times, day, int(ends.min // day), None)
    table = np.arange(int(ends.max // day) - source.first + 2)[:, None]
    field = Spans.of_table(source, table.astype(np.uint32))
    compiled = join([field], len(times), np.uint32, compiled=True)
    assert compiled.ids.tolist() == source.codes(0, len(times)).tolist()


def test_without_numba_the_numpy_path_serves(monkeypatch):
    field = Spans.of_table(np.array([0], np.int32), np.array([[7]]))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(compiling, "numba_available", lambda: False)
    compiling.compiled.cache_clear()
    try:
        many = field._replace(codes=np.zeros(1 << 14, np.int32))
        assert join([many], 1 << 14, np.uint8).ids.tolist() == [7] * (1 << 14)
        with pytest.raises(MissingExtraError, match=r"domainformer\[fast\]"):
            join([field], 1, np.uint8, compiled=True)
    finally:
        compiling.compiled.cache_clear()


def test_a_kernel_that_drops_a_row_is_found(monkeypatch):
    """The twin of the oracle test: one wrong length and the ids differ."""
    real = joining._scatter_ragged

    def short(codes, values, rows, position, ids):
        real(codes, values, np.minimum(rows, rows[-1] - 1), position, ids)

    monkeypatch.setattr(joining, "_scatter_ragged", short)
    field = Spans(np.array([1, 0], np.int32), np.array([5, 6, 7]), np.array([0, 1, 3]), None)
    ids, _ = join([field], 2, np.uint8, compiled=False)
    assert ids.tolist()[:3] != oracle([field], 2)[0]
