"""Stochastic rounding: where it rounds to, how often, and that its mean is right."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.training.rules.backward import StochasticRounding
from domainformer.training.rules.backward.rounding import to_bfloat16
from domainformer.training.rules.base import Clock, Moment, Site


def neighbours(x: float) -> tuple[float, float]:
    """The bfloat16 numbers below and above, by arithmetic alone."""
    if x == 0:
        return 0.0, 0.0
    exponent = max(math.frexp(x)[1] - 1, -126)
    step = 2.0 ** (exponent - 7)
    return math.floor(x / step) * step, math.ceil(x / step) * step


@settings(max_examples=60, deadline=None)
@given(st.floats(-(2.0**126), 2.0**126, width=32))
def test_rounds_to_a_neighbour(x):
    below, above = neighbours(x)
    rounded = to_bfloat16(torch.full((64,), x), torch.Generator().manual_seed(0))
    assert set(rounded.tolist()) <= {below, above}
    assert torch.equal(rounded, rounded.bfloat16().float())


@pytest.mark.parametrize("x", [1.0 + 2**-9, -3.3, 7e-5, -1e-39, 12345.678])
def test_its_mean_is_the_number(x):
    n = 200_000
    x = float(torch.tensor(x))
    below, above = neighbours(x)
    rounded = to_bfloat16(torch.full((n,), x), torch.Generator().manual_seed(3)).double()
    share = (x - below) / (above - below)
    error = (above - below) * math.sqrt(share * (1 - share) / n)
    assert abs(float(rounded.mean()) - x) < 4 * error
    # Sabotage twin: rounding to the nearest is off by far more than that.
    nearest = float(torch.tensor(x).bfloat16())
    assert abs(nearest - x) > 4 * error


def test_nothing_finite_becomes_infinite():
    values = torch.tensor([torch.finfo(torch.float32).max, -torch.finfo(torch.float32).max])
    assert bool(torch.isfinite(to_bfloat16(values.repeat(100), torch.Generator())).all())


def test_infinite_and_nan_pass():
    values = torch.tensor([math.inf, -math.inf, math.nan])
    found = to_bfloat16(values, torch.Generator())
    assert found[:2].tolist() == [math.inf, -math.inf]
    assert math.isnan(found[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_dtype_stays(dtype):
    gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    at = Site("0", torch.nn.Identity(), 0)
    changed, _ = StochasticRounding().backward(gradient, at, {}, Moment(Clock()))
    assert changed.dtype == dtype
    assert torch.equal(changed, changed.bfloat16().to(dtype))
