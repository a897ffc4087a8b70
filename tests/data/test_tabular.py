"""Frames as arrays: the same columns and categories, whatever frame comes later."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from domainformer.data.tabular import TabularSchema
from domainformer.errors import DataError


@pytest.fixture
def frame():
    return pl.DataFrame(
        {
            "example": [1, 2, 3, 4],
            "income": [1.5, None, float("nan"), float("inf")],
            "young": [True, False, None, True],
            "region": ["n", "s", "n", None],
            "kind": pl.Series(["x", "x", "x", "x"], dtype=pl.Categorical),
        }
    )


def test_numbers_categories_missing_and_unknown(frame):
    schema = TabularSchema.fit(frame, exclude=["example"], min_count=1)
    assert schema.columns == ("income", "young", "region", "kind")
    arrays = schema.encode(frame)
    assert np.array_equal(
        arrays.numbers, [[1.5, 1], [np.nan, 0], [np.nan, np.nan], [np.inf, 1]], equal_nan=True
    )
    assert arrays.codes.tolist() == [[2, 2], [3, 2], [2, 2], [0, 2]]
    later = frame.with_columns(region=pl.lit("moon"), kind=pl.lit(None)).select(
        reversed(frame.columns)
    )
    assert schema.encode(later).codes.tolist() == [[1, 0]] * 4


def test_rare_categories_are_unknown_and_the_commonest_are_kept(frame):
    schema = TabularSchema.fit(frame.select("region"), min_count=2)
    assert schema.categories == {"region": ("n",)}
    assert schema.encode(frame).codes.tolist() == [[2], [1], [2], [0]]
    assert TabularSchema.fit(frame.select("region"), min_count=1, most=1).sizes == [3]


def test_a_column_may_be_all_null_later(frame):
    schema = TabularSchema.fit(frame.select("income", "region"), min_count=1)
    arrays = schema.encode(pl.DataFrame({"income": [None], "region": [None]}))
    assert np.isnan(arrays.numbers).all()
    assert arrays.codes.tolist() == [[0]]


def test_it_survives_as_plain_data(frame):
    schema = TabularSchema.fit(frame, min_count=1)
    assert TabularSchema.from_json(schema.to_json()) == schema


def test_wrong_frames_are_told(frame):
    schema = TabularSchema.fit(frame, exclude=["example"])
    with pytest.raises(
        DataError, match=r"lack 1 of 4 columns: 'income'[\s\S]*did you mean 'incom'"
    ):
        schema.encode(frame.rename({"income": "incom"}))
    with pytest.raises(DataError, match="'income' is String, and was a number in training"):
        schema.encode(frame.with_columns(income=pl.lit("much")))
    with pytest.raises(DataError, match=r"'since' of type Date is neither a number nor a category"):
        TabularSchema.fit(frame.with_columns(since=pl.date(2020, 1, 1)))
