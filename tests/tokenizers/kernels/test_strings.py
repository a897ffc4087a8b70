"""Distinct strings from Arrow's buffers: equal to a dictionary, wherever the strings are stored."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.kernels import (
    compiling,
    distinct_codes,
    distinct_strings,
    string_views,
    strings,
)
from domainformer.tokenizers.spans import known_values

pytest.importorskip("numba")

LONG = "a string too long for an Arrow view to hold"
WORDS = st.one_of(
    st.text(max_size=14),
    st.sampled_from(["", "a", "twelve bytes", "thirteen byte", LONG, LONG[:-1], LONG + LONG]),
    st.sampled_from([LONG + "é", "é" * 6, "é" * 7, "\x00" * 3, "\x00" * 13]),
)


def numbered(values):
    seen = {}
    return [seen.setdefault(value, len(seen)) for value in values], list(seen)


def check(column, **options):
    found = distinct_strings(string_views(column), **options)
    codes, distinct = numbered(column.to_list())
    assert found.codes.tolist() == codes
    assert column.gather(found.first).to_list() == distinct


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(WORDS, min_size=1, max_size=60), st.integers(0, 3), st.randoms())
def test_numbering_equals_a_dictionary(words, cut, random):
    column = pl.Series(words, dtype=pl.String)
    check(column)
    shuffled = random.choices(range(len(words)), k=3 * len(words))
    check(column.gather(shuffled).slice(min(cut, len(words))))
    check(pl.concat([column, column, column.gather(shuffled)], rechunk=False))


def test_a_table_that_grows_keeps_its_numbers():
    words = [f"{i % 7000} {'x' * (i % 20)}" for i in range(20_000)]
    check(pl.Series(words))


def test_overlapping_places_are_told_apart():
    base = pl.Series(["0123456789" * 4] * 3)
    parts = [base.str.slice(start, length) for start in range(12) for length in (13, 14, 21)]
    check(pl.concat(parts))


def test_colliding_hashes_are_refused(monkeypatch):
    real = strings.compiled

    def weak(loop):
        if loop is strings._loop_hash:
            return lambda views, words, base, hashes: hashes.fill(1)
        return real(loop)

    monkeypatch.setattr(strings, "compiled", weak)
    assert distinct_strings(string_views(pl.Series(["a", "b"]))) is None
    assert known_values(pl.Series(["a", "b"] * 9)) is None


def test_columns_that_do_not_repeat_are_left_early(monkeypatch):
    monkeypatch.setattr(strings, "_SAMPLE", 100)
    column = pl.Series([f"{LONG} {i % 500}" for i in range(1000)])
    assert distinct_strings(string_views(column), most=0.9) is None
    assert len(distinct_strings(string_views(column)).first) == 500


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["b", "never", "a"])])
@pytest.mark.parametrize("values", [["a", "b", "a"], [None, "b", None, "a"], ["a"] * 5])
def test_known_values_give_the_column_back(kind, values):
    column = pl.Series(values, dtype=kind)
    found = known_values(column)
    assert [found.values[int(found.rows[code])] for code in found.codes] == values
    assert found.values.drop_nulls().n_unique() == len(found.values.drop_nulls())


def test_what_is_no_string_is_not_known():
    assert known_values(pl.Series([1, 2])) is None
    assert known_values(pl.Series([None, None], dtype=pl.String)) is None


def test_first_rows_of_codes():
    codes = np.array([3, 1, 3, 0], np.uint32)
    assert distinct_codes(codes, 5).tolist() == [3, 1, -1, 0, -1]


def test_words_overlap():
    ids = np.arange(9, dtype=np.uint16)
    words = compiling.overlapping_words(ids)
    assert len(words) == 6
    assert words[2:3].copy().view(np.uint16).tolist() == [2, 3, 4, 5]
