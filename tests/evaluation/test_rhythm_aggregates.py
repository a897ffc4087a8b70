import itertools
import math

import numpy as np
import polars as pl
import pytest

from domainformer.evaluation.rhythm_aggregates import YEAR, rhythm_aggregates

HORIZON = 90.0


def rhythm(ages, **more):
    visits = pl.DataFrame({"row": [0] * len(ages), "age": sorted(map(float, ages), reverse=True)})
    found = visits.group_by("row").agg(rhythm_aggregates(HORIZON, **more)).to_dicts()[0]
    return {name.removeprefix("rhythm."): value for name, value in found.items() if name != "row"}


def plain(ages):
    """Some of them by plain Python."""
    ages = sorted(ages, reverse=True)
    gaps = [a - b for a, b in itertools.pairwise(ages)]
    recency = ages[-1]
    longer = [gap for gap in gaps if gap > recency]
    known = max(ages) + 1
    since_last = [age - recency for age in ages]
    return {
        "returned": sum(gap <= recency + HORIZON for gap in longer),
        "stayed": sum(gap > recency + HORIZON for gap in longer),
        "return_share": (sum(g <= recency + HORIZON for g in longer) + 1) / (len(longer) + 2),
        "long_gaps": sum(gap > HORIZON for gap in gaps),
        "long_gaps.share": sum(gap for gap in gaps if gap > HORIZON) / known,
        "empty.share": sum(max(gap - HORIZON, 0) for gap in gaps) / known,
        "activity.1": sum(math.exp(-age / HORIZON) for age in ages),
        "activity_before.1": sum(math.exp(-age / HORIZON) for age in since_last),
        "visits_before.1": sum(age <= HORIZON for age in since_last),
        "missed.1": recency * sum(age <= HORIZON for age in since_last) / HORIZON,
        "periods.last_12": len({int(age // 30) for age in ages if age < 360}),
        "periods.share": len({int(age // 30) for age in ages}) / (int(max(ages) // 30) + 1),
        "horizons.last_8": len({int(age // 90) for age in ages if age < 720}),
        "gap.mean_of_last_5": np.mean(gaps[-5:]),
    }


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_plain_python(seed):
    ages = np.unique(np.random.default_rng(seed).integers(1, 900, size=25)).tolist()
    found = rhythm(ages, year=YEAR)
    for name, expected in plain(ages).items():
        assert found[name] == pytest.approx(expected), name


def test_an_entity_that_always_came_back_differs_from_one_that_does_not():
    """Both are silent for 40 days; one has been so before and returned."""
    used_to_it = rhythm([40, 100, 160, 220, 280, 340])
    new_to_it = rhythm([40, 45, 50, 55, 60, 65])
    assert used_to_it["return_share"] > new_to_it["return_share"] == 0.5
    assert used_to_it["missed.1"] < new_to_it["missed.1"]


def test_seasons_are_the_windows_after_the_cuts_of_years_before():
    found = rhythm([20, 300, 320, 400, 700], year=YEAR)
    assert found["season.1"] == 2  # ages 300 and 320 lie in the 90 days after the cut a year ago
    assert found["season.1.ratio"] == 3 / 2
    assert found["season.2"] is None  # the record does not reach that far back
    assert "season.1" not in rhythm([20, 300])


def test_one_visit_has_no_gaps():
    found = rhythm([12], year=YEAR)
    assert found["returned"] == found["stayed"] == 0
    assert found["return_share"] == 0.5
    assert found["gap.q75"] is None
    assert found["periods.share"] == 1.0
