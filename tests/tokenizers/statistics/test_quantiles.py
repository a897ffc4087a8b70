"""Quantile sketches: exact while few values are distinct, within the stated error beyond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.statistics import Limits, QuantileSketch, Weighted, bucket_floor

FEW = Limits(most_numbers=8)
ERROR = 2.0**-10
numbers = st.lists(
    st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([0.99, 1.0, 25.0, -3.0])
    | st.floats(1e-3, 1e6),
    max_size=60,
)


def sketch_of(values, limits=FEW, parts=1):
    """One sketch of some parts, merged from right to left."""
    sketches = []
    for part in np.array_split(np.asarray(values, dtype=np.float64), parts):
        sketches.append(QuantileSketch(limits))
        sketches[-1].add(part)
    while len(sketches) > 1:
        sketches[-2].merge(sketches.pop())
    return sketches[0]


def positive(values):
    array = np.asarray(values, dtype=np.float64)
    return np.sort(array[(array > 0) & (array < np.inf)])


@settings(deadline=None)
@given(numbers)
def test_few_values_are_counted_exactly(values):
    sketch = sketch_of(values, Limits())
    want, counts = np.unique(positive(values), return_counts=True)
    np.testing.assert_array_equal(sketch.counted().values, want)
    np.testing.assert_array_equal(sketch.counted().counts, counts)
    assert not sketch.collapsed


@settings(deadline=None)
@given(numbers)
def test_every_rank_is_within_the_stated_error(values):
    ordered = positive(values)
    sketch = sketch_of(values)
    assert sketch.collapsed == (len(np.unique(ordered)) > FEW.most_numbers)
    assert sketch.counted().total == len(ordered)
    found = sketch.counted().at(np.arange(len(ordered)))
    normal = ordered >= np.finfo(np.float64).tiny  # subnormal numbers have fewer bits
    assert (found <= ordered).all()
    assert ((ordered - found)[normal] < ERROR * found[normal]).all() or not sketch.collapsed
    if not sketch.collapsed:
        np.testing.assert_array_equal(found, ordered)


@settings(deadline=None)
@given(numbers, st.integers(1, 9), st.randoms(use_true_random=False))
def test_neither_order_nor_partition_matters(values, parts, random):
    whole = sketch_of(values).state()
    shuffled = list(values)
    random.shuffle(shuffled)
    other = sketch_of(shuffled, parts=parts).state()
    assert whole.meta == other.meta
    for name, array in whole.arrays.items():
        assert array.tobytes() == other.arrays[name].tobytes()


def test_the_boundary_of_collapse_belongs_to_exact():
    exact = sketch_of([1.0001 + 0.0001 * index for index in range(8)], parts=3)
    assert not exact.collapsed
    assert len(exact.counted().values) == 8
    exact.add(np.array([1.9]))
    assert exact.counted().counts.tolist() == [8, 1]  # the buckets of 1 and of 1.9
    assert exact.collapsed


def test_merging_a_sketch_that_collapses_only_when_settled():
    """The other sketch has added too many values, but not looked at them yet."""
    first, second = QuantileSketch(FEW), QuantileSketch(FEW)
    first.add(np.array([1.00001]))
    for index in range(9):
        second.add(np.array([1.0 + index * 1e-5]))
    first.merge(second)
    assert first.collapsed
    assert first.counted() == Weighted(np.array([1.0]), np.array([10]))


def test_many_numbers_collapse_alike_by_counting_and_by_sorting():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=5_000) * 3)
    together = sketch_of(values)
    one_by_one = sketch_of(values, parts=700)
    wide = sketch_of(np.concatenate([values, [5e-324, 1.7e308]]))
    np.testing.assert_array_equal(together.counted(), one_by_one.counted())
    np.testing.assert_array_equal(wide.counted().values[1:-1], together.counted().values)


def test_a_bucket_is_narrower_than_the_error():
    values = np.exp(np.random.default_rng(1).uniform(-600, 600, 10_000))
    floors = bucket_floor(values)
    assert (floors <= values).all()
    assert (values < floors * (1 + ERROR)).all()
    np.testing.assert_array_equal(bucket_floor(floors), floors)


@pytest.mark.parametrize("rank", [0, 4, 9])
def test_ranks_of_weighted_values_are_those_of_the_column(rank):
    column = np.sort(np.array([1.0, 1, 1, 2, 2, 5, 5, 5, 5, 7]))
    values, counts = np.unique(column, return_counts=True)
    assert Weighted(values, counts).at(np.array([rank]))[0] == column[rank]
