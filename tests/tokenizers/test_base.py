"""Ragged rows and the behaviour that all field tokenizers inherit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.base import Ragged

ROWS = st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=ROWS, data=st.data())
def test_take_equals_a_loop_over_rows(rows, data):
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    ragged = Ragged.of(rows)
    assert ragged.rows() == rows
    taken = ragged.take(np.array(index, dtype=np.int32))
    assert taken.rows() == [rows[i] for i in index]
    assert taken.values.dtype == np.int32
    assert taken.offsets.dtype == np.int64


def test_ragged_of_nothing():
    empty = Ragged.of([])
    assert empty.rows() == []
    assert empty.offsets.tolist() == [0]
    assert empty.take(np.empty(0, dtype=np.int64)).rows() == []
