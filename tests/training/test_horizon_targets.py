"""Horizons: which events lie within them, and which are asked, against slow ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from domainformer.data.keys import NULL_TIME
from domainformer.training import HorizonConfig
from domainformer.training.horizon_targets import look_ahead, sums_between


@pytest.mark.parametrize("roles", [None, "by_time", "by_third"])
@pytest.mark.parametrize(
    "settings",
    [{"within": "10d"}, {"within": "3d", "observed_until": "entity"}, {"steps": 1}, {"steps": 3}],
)
def test_horizons_equal_slow_ones(cases, roles, settings):
    roles = roles and getattr(cases, roles)
    config = HorizonConfig(**settings)
    case = cases.Case(cases.make_frame(entities=12, events=20), roles=roles)
    scored = [] if roles is None else [case.dataset(score_roles=(1,))]
    for dataset in [case.dataset(), *scored]:
        slow = cases.slow_horizons(case, dataset, config)
        (fast,) = look_ahead(dataset, config)
        assert fast.asked.tolist() == [ahead is not None for ahead in slow]
        assert sum(fast.asked) > 5 or dataset.score_roles
        for e in np.flatnonzero(fast.asked):
            assert list(range(e + 1, fast.stop[e])) == slow[e]


def test_events_without_a_time_ask_nothing(cases):
    frame = cases.make_frame().with_columns(day=pl.when(pl.int_range(pl.len()) % 5 > 0).then("day"))
    case = cases.Case(frame)
    config = HorizonConfig(within="10d")
    (fast,) = look_ahead(case.dataset(), config)
    assert (case.events.times == NULL_TIME).any()
    assert fast.asked.tolist() == [
        a is not None for a in cases.slow_horizons(case, case.dataset(), config)
    ]


def test_equal_sums_are_equal_numbers_wherever_they_stand():
    rng = np.random.default_rng(0)
    running = np.concatenate([[0.0], np.cumsum(rng.choice([9.99, 23.37], 20_000))])
    first = np.arange(len(running) - 3)
    assert len(np.unique(running[first + 3] - running[first])) > 4  # 0 to 3 of the larger size
    assert len(np.unique(sums_between(running, first, first + 3))) == 4
