"""Counts of values: exact, or by a count-min table and a second pass that loses nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import FingerprintError, TokenizerError
from domainformer.tokenizers.fields.counting import count_integers, count_texts
from domainformer.tokenizers.statistics import CountMinTable, CountSketch, Limits, RecountSketch

FEW = Limits(most_distinct=8)


def counted(values):
    column = pl.Series("value", values)
    if column.dtype == pl.String:
        return count_texts(column, field="x")
    return count_integers(column, field="x")


def sketch_of(parts, kind="text", limits=FEW, least=1):
    sketches = []
    for part in parts:
        sketches.append(CountSketch(kind, limits, least=least))
        sketches[-1].add(counted(part))
    while len(sketches) > 1:
        sketches[-2].merge(sketches.pop())
    return sketches[0]


def recounted(sketch, parts):
    seconds = []
    for part in parts:
        second = sketch.recounting()
        second.add(counted(part))
        # As it would come from another machine: without the table.
        seconds.append(RecountSketch.from_state(second.state(), sketch.limits))
    whole = sketch.recounting()
    for second in seconds:
        whole.merge(second)
    sketch.adopt(whole)
    return sketch


def same(one, other):
    a, b = one.state(), other.state()
    return a.meta == b.meta and {k: v.tobytes() for k, v in a.arrays.items()} == {
        k: v.tobytes() for k, v in b.arrays.items()
    }


def random_values(seed, size=400, kind="text"):
    ranks = np.minimum(np.random.default_rng(seed).zipf(1.4, size), 10_000)
    return [f"value {rank}" for rank in ranks] if kind == "text" else ranks.tolist()


def split(values, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(values))
    cuts = np.sort(rng.integers(0, len(values), rng.integers(1, 7)))
    return [[values[row] for row in rows] for rows in np.split(order, cuts) if len(rows)]


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_few_values_are_counted_exactly(kind):
    values = random_values(0, kind=kind)
    sketch = sketch_of(split(values, 1), kind, Limits())
    found = sketch.frequent()
    assert dict(zip(found.values.to_list(), found.counts.tolist(), strict=True)) == Counter(values)
    assert found.values.to_list() == sorted(set(values))
    assert found.threshold == 1
    assert not sketch.needs_recount


@pytest.mark.parametrize("kind", ["text", "integer"])
@pytest.mark.parametrize("seed", range(8))
def test_the_second_pass_finds_all_that_are_frequent_enough(kind, seed):
    values = random_values(seed, kind=kind)
    sketch = recounted(sketch_of(split(values, seed), kind), split(values, seed + 1))
    found = sketch.frequent()
    want = {v: n for v, n in Counter(values).items() if n >= found.threshold}
    assert dict(zip(found.values.to_list(), found.counts.tolist(), strict=True)) == want
    assert want
    assert len(want) <= FEW.most_distinct


@pytest.mark.parametrize("seed", range(8))
def test_neither_order_nor_partition_matters(seed):
    values = random_values(seed)
    whole = recounted(sketch_of([values]), [values])
    other = recounted(sketch_of(split(values, seed)), split(values, seed + 9))
    assert same(whole, other)


def test_rarer_values_than_asked_for_are_not_counted_again():
    values = random_values(3)
    sketch = recounted(sketch_of([values], least=20), [values])
    assert sketch.frequent().threshold >= 20


def test_long_texts_fill_the_room_of_many():
    few = ["x" * 600 + str(index) for index in range(3)]
    assert sketch_of([few]).overflowed
    assert not sketch_of([[text[-1] for text in few]]).overflowed


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), max_size=80))
def test_an_estimate_is_never_below_the_count(pairs):
    table, want = CountMinTable.of_width(16), Counter()
    for value, count in pairs:
        table.add(pl.Series([value]), np.array([count]))
        want[value] += count
    values = sorted(want)
    estimates = table.estimate(pl.Series(values, dtype=pl.Int64))
    assert (estimates >= [want[value] for value in values]).all()


def test_estimates_of_a_table_with_room_are_close():
    values, counts = pl.Series(range(1000)), np.arange(1000)
    table = CountMinTable.of_width(4096)
    table.add(values, counts)
    too_much = table.estimate(values) - counts
    assert (too_much <= np.e * counts.sum() / 4096).mean() > 0.98


def test_a_result_that_is_not_there_is_refused_with_the_remedy():
    sketch = sketch_of([random_values(0)])
    with pytest.raises(TokenizerError, match=r"recounting\(\), and adopt"):
        sketch.frequent()
    with pytest.raises(TokenizerError, match="nothing to count again"):
        sketch_of([["a"]]).recounting()


def test_a_second_pass_belongs_to_its_first():
    values = random_values(0)
    sketch, other = sketch_of([values]), sketch_of([values + ["more"]])
    with pytest.raises(FingerprintError, match="different tables"):
        sketch.recounting().merge(other.recounting())
    with pytest.raises(FingerprintError, match="does not belong"):
        sketch.adopt(other.recounting())


def test_what_was_read_from_bytes_cannot_be_added_to():
    second = sketch_of([random_values(0)]).recounting()
    read = RecountSketch.from_state(second.state(), FEW)
    with pytest.raises(TokenizerError, match="cannot be added to"):
        read.add(counted(["a"]))


def test_further_values_make_another_second_pass_necessary():
    values = random_values(0)
    sketch = recounted(sketch_of([values]), [values])
    sketch.add(counted(["a"]))
    assert sketch.needs_recount
