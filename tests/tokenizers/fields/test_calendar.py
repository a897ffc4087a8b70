"""Calendar arithmetic against Python's own, zones, units, and very wide ranges."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from domainformer.errors import TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers.fields import CalendarTokenizer, calendar

ALL = ("month", "dow", "dom", "hour", "quarter", "year")


def fitted(column, parts=ALL, **options):
    spec = FieldSpec("t", "temporal", calendar_fields=parts, **options)
    return CalendarTokenizer(spec).fit(column)


def test_every_day_from_year_1_to_9999():
    first = dt.date(1, 1, 1).toordinal()
    last = dt.date(9999, 12, 31).toordinal()
    epoch = dt.date(1970, 1, 1).toordinal()
    civil = calendar._civil(np.arange(first - epoch, last - epoch + 1))
    for ordinal in [*range(first, last + 1, 7_919), last, *range(730_000, 731_500)]:
        date, row = dt.date.fromordinal(ordinal), ordinal - first
        assert (civil["year"][row], civil["month"][row], civil["dom"][row]) == (
            date.year,
            date.month,
            date.day,
        )
        assert civil["dow"][row] == date.isoweekday()
    days = pl.select(pl.date_range(dt.date(1, 1, 1), dt.date(9999, 12, 31))).to_series()
    assert civil["dom"].tolist() == days.dt.day().to_list()
    assert civil["quarter"].tolist() == days.dt.quarter().to_list()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_all_time_units_before_and_after_1970(unit):
    moments = [dt.datetime(1969, 12, 31, 23, 59, 59), dt.datetime(1970, 1, 1), None]
    moments.append(dt.datetime(2024, 2, 29, 12))
    column = pl.Series(moments, dtype=pl.Datetime(unit))
    tokenizer = fitted(column)
    assert tokenizer.encode(column).tolist() == [list(tokenizer.encode_one(m)) for m in moments]


def test_a_zone_is_read_as_its_wall_clock():
    london = ZoneInfo("Europe/London")
    moments = [dt.datetime(2024, m, 15, 23, 30, tzinfo=ZoneInfo("UTC")) for m in (1, 7)]
    column = pl.Series(moments, dtype=pl.Datetime("us", "Europe/London"))
    tokenizer = fitted(column, ("dom", "hour"))
    tokens = [[tokenizer.vocab[i] for i in row] for row in tokenizer.encode(column)]
    assert tokens == [["[T_DOM=15]", "[T_HOUR=23]"], ["[T_DOM=16]", "[T_HOUR=00]"]]
    local = [moment.astimezone(london) for moment in moments]
    assert tokenizer.encode(column).tolist() == [list(tokenizer.encode_one(m)) for m in local]


def test_a_range_too_wide_for_a_table_gives_the_same_ids():
    moments = [
        dt.datetime(1, 1, 1, 5),
        None,
        dt.datetime(9999, 12, 31, 23),
        dt.datetime(2024, 3, 1),
    ]
    column = pl.Series(moments)
    tokenizer = fitted(column, year_anchor=2020)
    assert tokenizer.plan(column) is None
    assert tokenizer.encode(column).tolist() == [list(tokenizer.encode_one(m)) for m in moments]


def test_the_plan_is_what_a_kernel_needs():
    column = pl.Series([dt.datetime(2024, 3, 1, 7), None, dt.datetime(2024, 3, 9, 22, 59)])
    tokenizer = fitted(column)
    plan = tokenizer.plan(column)
    rows = np.where(plan.missing, 0, plan.times // plan.unit - plan.first + 1)
    np.testing.assert_array_equal(plan.table[rows], tokenizer.encode(column))
    assert len(plan.table) == 1 + 8 * 24 + 16


def test_years_are_counted_from_the_first_year_or_the_anchor_and_clipped():
    column = pl.Series([dt.date(2010, 5, 1), dt.date(2025, 5, 1), dt.date(2001, 1, 1)])
    learned = fitted(column[:2], ("year",))
    assert learned.anchor == 2010
    assert learned.encode(column)[:, 0].tolist() == [1, 10, 1]
    assert learned.describe(10)["value"] == 2019
    assert learned.decode([[0], [3]]).struct.field("year").to_list() == [None, 2012]
    assert fitted(column, ("year",), year_anchor=2000).encode(column)[:, 0].tolist() == [10, 10, 2]


def test_dates_have_no_hour():
    dates = pl.Series([dt.date(2024, 3, 1)])
    tokenizer = fitted(dates, ("dom", "hour"))
    assert [tokenizer.vocab[i] for i in tokenizer.encode(dates)[0]] == [
        "[T_DOM=01]",
        "[T_HOUR_MISSING]",
    ]


def test_integers_have_no_calendar():
    with pytest.raises(
        TokenizerError, match="needs dates or datetimes, and the column holds Int64"
    ):
        fitted(pl.Series([1, 2]))
    with pytest.raises(TokenizerError, match="no calendar parts"):
        CalendarTokenizer(FieldSpec("t", "temporal", calendar_fields=(), elapsed_bins=4))


def test_pandas_missing_time_is_missing():
    pandas = pytest.importorskip("pandas")
    tokenizer = fitted(pl.Series([dt.datetime(2024, 1, 1)]), ("month", "hour"))
    assert tokenizer.encode_one(pandas.NaT) == (0, 13)
    assert tokenizer.encode_one(pandas.Timestamp("2024-05-01 03:00")) == (5, 17)
