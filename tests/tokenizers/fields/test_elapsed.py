"""Gaps between events: units, first events, ties."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest

from domainformer.errors import TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers.fields import ElapsedTimeTokenizer

DAY = 86_400.0


def fitted(column, bins=16, time_kind="datetime"):
    spec = FieldSpec("t", "temporal", elapsed_bins=bins)
    return ElapsedTimeTokenizer(spec, time_kind=time_kind).fit(pl.Series(column, dtype=pl.Float64))


def test_first_tie_and_missing_are_told_apart():
    tokenizer = fitted([None, 0.0, 5.0, 60.0, 3600.0])
    column = pl.Series([None, math.nan, 0.0, -3.0, 5.0])
    tokens = [tokenizer.vocab[i] for i in tokenizer.encode(column)[:, 0]]
    assert tokens == [
        "[T_ELAPSED=FIRST]",
        "[T_ELAPSED_MISSING]",
        "[T_ELAPSED=B00]",
        "[T_ELAPSED=B00]",
        "[T_ELAPSED=B01]",
    ]
    assert [tokenizer.describe(i)["kind"] for i in range(4)] == ["missing", "first", "zero", "bin"]
    decoded = tokenizer.decode([0, 1, 2])
    assert math.isnan(decoded[0])
    assert decoded.to_list()[1:] == [None, 0.0]


def test_edges_have_equal_ratios_over_the_central_gaps():
    gaps = np.random.default_rng(0).lognormal(8, 2, 5_000)
    gaps[0] = 1e12
    tokenizer = fitted(gaps)
    inner = tokenizer.edges[2:]
    assert len(tokenizer.vocab) == 2 + 16
    np.testing.assert_allclose(inner[1:] / inner[:-1], inner[1] / inner[0])
    assert inner[-1] == pytest.approx(np.quantile(gaps, 0.99), rel=0.01)
    counts = np.bincount(tokenizer.encode(pl.Series(gaps))[:, 0], minlength=18)
    assert (counts[3:] > 0).all()


@pytest.mark.parametrize(("time_kind", "unit"), [("date", DAY), ("integer", 1.0)])
def test_dates_and_integers_never_divide_a_unit(time_kind, unit):
    gaps = unit * np.random.default_rng(0).geometric(0.1, 3_000)
    tokenizer = fitted([None, 0.0, *gaps], bins=40, time_kind=time_kind)
    edges = tokenizer.edges[1:]
    assert (edges % unit == 0).all()
    assert edges[0] == unit
    assert len(tokenizer.vocab) < 42
    assert tokenizer.encode(pl.Series([0.0, unit])).tolist() == [[2], [3]]
    assert ((tokenizer.representatives[2:] % unit) == 0).all()


def test_durations_are_read_as_seconds():
    tokenizer = fitted([1.0, 60.0, 3600.0, DAY])
    gaps = [dt.timedelta(seconds=70), dt.timedelta(days=2, microseconds=5), None]
    column = pl.Series(gaps)
    assert tokenizer.encode(column).tolist() == [list(tokenizer.encode_one(gap)) for gap in gaps]
    assert tokenizer.encode_one(gaps[0]) == tokenizer.encode_one(70.0)


@pytest.mark.parametrize("bins", [2, 3, 4])
@pytest.mark.parametrize("column", [[], [None, None], [0.0], [3.0], [1.0, 100.0]])
def test_few_gaps_and_few_bins(bins, column):
    tokenizer = fitted(column, bins=bins)
    assert 4 <= len(tokenizer.vocab) <= 2 + bins
    assert (np.diff(tokenizer.edges) > 0).all()
    assert np.isfinite(tokenizer.representatives[2:]).all()


def test_impossible_kinds_are_refused():
    with pytest.raises(TokenizerError, match="cannot have elapsed times"):
        fitted([1.0], time_kind="none")
    with pytest.raises(TokenizerError, match="needs numbers"):
        fitted([1.0]).encode(pl.Series(["x"]))
