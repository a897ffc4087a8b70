"""The tests against scipy's, and against what they promise: few false findings."""

import math

import numpy as np
import pytest
from scipy import stats

from domainformer.evaluation.comparisons.statistics import (
    holm,
    paired,
    quantile,
    standard_error,
    two_sided,
    welch,
)


@pytest.mark.parametrize("freedom", [0.7, 1, 2, 3.4, 9, 30, 250, 10_000])
def test_students_t_is_that_of_scipy(freedom):
    for t in (0.0, 1e-3, 0.3, -1.0, 2.2, 4.9, 17.0, -60.0, 1e4):
        assert two_sided(t, freedom) == pytest.approx(
            2 * stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-300
        )
    for share in (0.5, 0.9, 0.95, 0.999):
        assert quantile(share, freedom) == pytest.approx(
            stats.t.ppf((1 + share) / 2, freedom), rel=1e-9
        )
    assert two_sided(math.inf, freedom) == 0.0


def test_both_tests_are_those_of_scipy():
    draw = np.random.default_rng(0)
    for _ in range(40):
        n, m = draw.integers(2, 9, size=2)
        one = draw.normal(1.0, draw.uniform(0.1, 3), n).tolist()
        other = draw.normal(0.5, draw.uniform(0.1, 3), m).tolist()
        found, told = welch(one, other), stats.ttest_ind(one, other, equal_var=False)
        interval = told.confidence_interval(0.95)
        assert (found.t, found.p) == pytest.approx((told.statistic, told.pvalue), rel=1e-9)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-8)
        assert found.freedom == pytest.approx(told.df)
        k = min(n, m)
        found = paired(dict(enumerate(one)), dict(enumerate(other)))
        told = stats.ttest_rel(one[:k], other[:k])
        assert found.n == k
        assert (found.t, found.p) == pytest.approx((told.statistic, told.pvalue), rel=1e-9)


def test_seeds_are_paired_by_name_not_by_order():
    one, other = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 3.9, 0: 0.95, 1: 1.8}
    assert paired(one, other).difference == pytest.approx(0.35 / 3)


def test_what_is_not_defined_is_not_told():
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [1.0, 1.0]) is None
    assert paired({0: 1.0}, {0: 2.0}) is None
    assert paired({0: 1.0, 1: 2.0}, {7: 1.0, 8: 2.0}) is None
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) is None
    assert standard_error([2.0]) is None


def test_a_false_finding_is_as_rare_as_promised():
    """1,000 comparisons of equals: 5 % are found different, not more. A z-test finds 15 %."""
    draw = np.random.default_rng(1)
    values = draw.normal(size=(1000, 2, 4))
    found = [welch(one, other) for one, other in values.tolist()]
    wrong = np.mean([test.p < 0.05 for test in found])
    careless = np.mean([abs(test.t) > 1.96 for test in found])
    assert wrong < 0.065
    assert careless > 0.08  # what a normal distribution in place of Student's would do


def test_many_settings_make_no_finding_by_their_number():
    draw = np.random.default_rng(2)
    values = draw.normal(size=(200, 9, 4))
    families = [[welch(one, rows[0]).p for one in rows[1:]] for rows in values.tolist()]
    bare = np.mean([min(family) < 0.05 for family in families])
    held = np.mean([min(holm(family)) < 0.05 for family in families])
    assert bare > 0.15
    assert held < 0.09


def test_holm_keeps_the_order_and_never_passes_one():
    assert holm([0.5, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([]) == []
