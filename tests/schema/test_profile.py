import itertools
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.schema.profile import kind_of, profile_column, profile_time, words_of

LABELS = st.lists(st.none() | st.sampled_from(["a", "b c", "ÄÖ", "", "12.5"]), min_size=1)


def follows_of(entities):
    return pl.Series([False] + [a == b for a, b in itertools.pairwise(entities)])


@given(LABELS)
@settings(deadline=None, max_examples=50)
def test_facts_about_labels_equal_the_obvious_count(values):
    profile = profile_column(pl.Series("x", values, dtype=pl.String))
    filled = [v for v in values if v is not None]
    assert profile.rows == len(values)
    assert profile.distinct == len(set(filled))
    assert profile.null_share == pytest.approx(1 - len(filled) / len(values))
    if filled:
        assert filled.count(profile.top) == max(filled.count(v) for v in filled)
        assert profile.top_share == pytest.approx(filled.count(profile.top) / len(filled))
        lengths = sorted(map(len, filled))
        at_least = [n for n in lengths if sum(m <= n for m in lengths) >= 0.95 * len(filled)]
        assert profile.length_95 == at_least[0]
        kinds = set(filled)
        assert profile.words == pytest.approx(sum(" " in v for v in kinds) / len(kinds))


@given(st.lists(st.none() | st.floats(-10, 10) | st.just(float("nan")), min_size=1))
@settings(deadline=None, max_examples=50)
def test_facts_about_numbers_equal_the_obvious_count(values):
    profile = profile_column(pl.Series("x", values, dtype=pl.Float64))
    filled = [v for v in values if v is not None and v == v]
    assert profile.distinct == len(set(filled))
    if filled:
        assert profile.negative_share == pytest.approx(np.mean([v < 0 for v in filled]))
        assert profile.zero_share == pytest.approx(np.mean([v == 0 for v in filled]))
        assert (profile.minimum, profile.maximum) == (min(filled), max(filled))
        assert profile.whole == all(v == int(v) for v in filled)


@given(st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 1)), min_size=2))
@settings(deadline=None, max_examples=50)
def test_stability_compares_with_the_previous_event_of_the_entity(events):
    events.sort(key=lambda event: event[0])
    pairs = [(a, b) for a, b in itertools.pairwise(events) if a[0] == b[0]]
    profile = profile_column(
        pl.Series("x", [v for _, v in events], dtype=pl.Int64), follows_of([e for e, _ in events])
    )
    expected = sum(a[1] == b[1] for a, b in pairs) / len(pairs) if pairs else None
    assert profile.stability == (None if expected is None else pytest.approx(expected))


def test_skew_is_that_of_the_finite_values():
    values = np.exp(np.random.default_rng(0).normal(size=500))
    deviations = values - values.mean()
    expected = (deviations**3).mean() / (deviations**2).mean() ** 1.5
    series = pl.Series("x", [*values, float("inf"), None])
    assert profile_column(series).skew == pytest.approx(expected)


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("x", [None, None]),
        pl.Series("x", [None, None], dtype=pl.String),
        pl.Series("x", [float("nan")] * 2),
        pl.Series("x", [None], dtype=pl.Date),
        pl.Series("x", [], dtype=pl.Int64),
    ],
)
def test_a_column_without_values_has_none(series):
    profile = profile_column(series)
    assert (profile.distinct, profile.null_share, profile.repeats) == (0, 1.0, 0.0)


def test_infinite_values_alone_are_no_crash():
    assert profile_column(pl.Series("x", [float("inf")] * 3)).distinct == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.5", "-2,25", "3.0"], "numbers"),
        (["2024-01-02", "2024-03-04 10:00"], "dates"),
        (["01.02.2024", "3/4/2024"], "dates"),
        (["0007", "1234"], None),
        (["a 1.5", "b"], None),
    ],
)
def test_numbers_and_dates_read_as_text_are_seen(values, expected):
    assert profile_column(pl.Series("x", values)).looks_like == expected


def test_kinds_and_names():
    kinds = [pl.Boolean(), pl.UInt8(), pl.Decimal(9, 2), pl.Categorical(), pl.Date(), pl.Time()]
    assert [kind_of(kind) for kind in kinds] == [
        "boolean",
        "integer",
        "float",
        "string",
        "date",
        "other",
    ]
    assert words_of("InvoiceNo") == ["invoice", "no"]
    assert words_of("HTTPStatus_code2") == ["http", "status", "code2"]
    assert words_of("--") == []


def test_times_with_and_without_a_time_of_day():
    follows = pl.Series([False, True, True])
    midnight = pl.Series("t", [datetime(2024, 1, d) for d in (1, 2, 5)])
    assert not profile_time(midnight, follows).time_of_day
    noon = midnight + pl.duration(hours=12)
    noon = pl.select(noon).to_series()
    assert not profile_time(noon, follows).time_of_day, "one hour of the day says nothing"
    day = pl.Series("t", [datetime(2024, 1, 1, h) for h in (9, 10, 15)])
    found = profile_time(day, follows)
    assert found.time_of_day
    assert found.parts["hour"] == 3


@pytest.mark.parametrize(
    ("dates", "monthly"),
    [
        ([date(2024, m, 1) for m in (1, 2, 3)], True),
        ([date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31)], True),
        ([date(2024, 1, 1), date(2024, 1, 8), date(2024, 1, 15)], False),
    ],
)
def test_monthly_dates_are_seen(dates, monthly):
    found = profile_time(pl.Series("t", dates), pl.Series([False, True, True]))
    assert found.monthly is monthly
    assert found.regular


def test_steps_ties_and_regularity():
    follows = pl.Series([False, True, True, False, True])
    found = profile_time(pl.Series("t", [0, 0, 5, 3, 4]), follows)
    assert (found.step_low, found.step_high, found.tie_share) == (0.0, 5.0, pytest.approx(1 / 3))
    assert not found.regular
    alone = profile_time(pl.Series("t", [1, 2]), pl.Series([False, False]))
    assert alone.regular
    assert profile_time(pl.Series("t", [None], dtype=pl.Date), pl.Series([False])) is None
