"""Where the bins lie, and what becomes of unusual numbers."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from domainformer.errors import TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers.fields import (
    DiscreteTokenizer,
    MagnitudeBucketTokenizer,
    SignTokenizer,
)


def magnitude(column, **options):
    spec = FieldSpec("x", "numerical_continuous", **options)
    return MagnitudeBucketTokenizer(spec).fit(pl.Series(column, dtype=pl.Float64))


def test_quantile_bins_hold_equally_many_values():
    values = np.random.default_rng(0).lognormal(2, 2, 10_000)
    bins = magnitude(values, n_bins=21)
    counts = np.bincount(bins.encode(pl.Series(values))[:, 0], minlength=22)
    assert counts[:2].tolist() == [0, 0]  # neither missing nor zero
    assert counts[2:].min() == counts[2:].max() == 500


def test_quantile_edges_are_the_obvious_ones():
    ordered = sorted(np.random.default_rng(3).lognormal(size=777).tolist())
    want = [ordered[k * 777 // 10] for k in range(1, 10)]
    assert magnitude(ordered, n_bins=11).edges[1:].tolist() == want


def test_repeated_values_merge_edges_and_leave_no_empty_bin():
    values = [0.99] * 900 + [5.0] * 50 + list(np.linspace(6, 90, 50)) + [0.0] * 40
    bins = magnitude(values, n_bins=21)
    counts = np.bincount(bins.encode(pl.Series(values))[:, 0], minlength=len(bins.vocab))
    assert len(bins.vocab) < 22
    assert counts[1] == 40
    assert (counts[1:] > 0).all()
    assert bins.vocab[1:] == [f"[X=B{i:02d}]" for i in range(len(bins.vocab) - 1)]


def test_zero_has_a_bin_of_its_own():
    bins = magnitude([1e-300, 0.0, 3.0, 4.0], n_bins=3)
    codes = bins.encode(pl.Series([0.0, -0.0, 1e-300, -1e-300]))[:, 0]
    assert codes.tolist() == [1, 1, 2, 2]
    assert bins.describe(1)["interval"] == "[0, 0]"
    assert bins.describe(2)["interval"].startswith("(0, ")


def test_unusual_numbers():
    bins = magnitude([1.0, 2.0, 3.0, 4.0, math.inf, math.nan, None], n_bins=3)
    last = len(bins.vocab) - 1
    codes = bins.encode(pl.Series([math.nan, None, math.inf, -math.inf, 1e300, 1e-9]))[:, 0]
    assert codes.tolist() == [0, 0, last, last, last, 2]
    assert bins.encode_one(10**400) == bins.encode_one(-(10**400)) == (last,)
    assert bins.representatives[last] == 3.0  # the lower median of 3 and 4


def test_representatives_are_medians_of_the_bin():
    bins = magnitude([1.0, 2.0, 10.0, 20.0, 30.0, 1000.0], n_bins=3)
    assert bins.describe(3)["low"] == 20.0
    assert bins.decode([2, 3, 1, 0]).to_list() == [2.0, 30.0, 0.0, None]


def test_log_bins_have_equal_ratios():
    bins = magnitude([0.01, 1e6], n_bins=9, binning="log")
    ratios = bins.edges[2:] / bins.edges[1:-1]
    np.testing.assert_allclose(ratios, 10.0)
    # Bins that no value fell in decode to the geometric mean of their ends.
    middle = bins.describe(4)
    assert middle["representative"] == pytest.approx(math.sqrt(middle["low"] * middle["high"]))


def test_fixed_bins_are_the_edges_of_the_spec():
    bins = magnitude([1e9], binning="fixed", edges=(10, 100))
    intervals = [bins.describe(i).get("interval") for i in range(len(bins.vocab))]
    assert intervals == [None, "[0, 0]", "(0, 10)", "[10, 100)", "[100, ∞)"]
    assert bins.decode([2, 3]).to_list() == [5.0, pytest.approx(math.sqrt(1000))]


@pytest.mark.parametrize("binning", ["quantile", "log"])
@pytest.mark.parametrize("column", [[], [None], [0.0], [math.nan, math.inf], [7.0, 7.0, -7.0]])
def test_columns_with_nothing_to_divide(binning, column):
    bins = magnitude(column, binning=binning)
    assert bins.vocab == ["[X_MISSING]", "[X=B00]", "[X=B01]"]
    assert bins.encode(pl.Series([None, 0.0, 7.0])).tolist() == [[0], [1], [2]]


def test_sign_of_unusual_numbers():
    sign = SignTokenizer(FieldSpec("x", "sign")).fit(pl.Series([1.0]))
    column = pl.Series([-0.0, 0.0, -math.inf, math.inf, math.nan, -5e-324])
    assert sign.encode(column)[:, 0].tolist() == [2, 2, 1, 2, 0, 1]
    assert sign.decode([1, 2, 0]).to_list() == [-1.0, 1.0, None]


def discrete(column, **options):
    spec = FieldSpec("n", "numerical_discrete", **options)
    return DiscreteTokenizer(spec).fit(pl.Series(column))


def test_discrete_keeps_the_most_frequent_in_increasing_order():
    column = [5, 5, 5, -2, -2, 9, 9, 1, None]
    assert discrete(column).kept.tolist() == [-2, 1, 5, 9]
    assert discrete(column, vocab_size=2).kept.tolist() == [-2, 5]  # ties: the smaller value
    assert discrete(column, min_frequency=3).kept.tolist() == [5]


def test_discrete_reads_whole_numbers_of_every_type():
    tokenizer = discrete([0, 1, 3])
    for column in (
        pl.Series([3, None, 7], dtype=pl.Int8),
        pl.Series([3.0, None, 7.5]),
        pl.Series([3.0, math.nan, math.inf]),
        pl.Series([Decimal("3.0"), None, Decimal("3.1")]),
        pl.Series([3, None, 2**64 - 1], dtype=pl.UInt64),
        pl.Series([3, None, -(2**100)], dtype=pl.Int128),
    ):
        assert tokenizer.encode(column)[:, 0].tolist() == [4, 0, 1]
        assert [tokenizer.encode_one(v) for v in column] == [(4,), (0,), (1,)]
    assert tokenizer.encode(pl.Series([True, False])).tolist() == [[3], [2]]
    assert tokenizer.encode_one(np.int64(3)) == tokenizer.encode_one(np.float32(3)) == (4,)


def test_discrete_values_far_apart_need_no_large_table():
    tokenizer = discrete([-(2**63), 0, 2**63 - 1])
    codes, table = tokenizer.codes(pl.Series([0, 2**63 - 1, -(2**63), 1]))
    assert table.size == len(tokenizer.vocab)
    assert codes.tolist() == [3, 4, 2, 1]


def test_discrete_refuses_text():
    with pytest.raises(
        TokenizerError, match="field 'n' needs numbers, and the column holds String"
    ):
        discrete(["1"])
