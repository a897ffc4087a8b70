"""Noise on gradients: its size over the steps, and what it depends on."""

from __future__ import annotations

import math

import pytest
import torch

from domainformer.training.rules.backward import GradientNoise
from domainformer.training.rules.base import Clock, Moment, Site

SITE = Site("0", torch.nn.Identity(), 0)


def noise(rule, gradient, step=0, seed=0):
    changed, _ = rule.backward(gradient, SITE, {}, Moment(Clock(seed=seed, step=step)))
    return changed - gradient


@pytest.mark.parametrize("step", [0, 9, 999])
@pytest.mark.parametrize("relative", [False, True])
def test_its_variance_is_that_of_the_paper(step, relative):
    gradient = torch.full((200, 500), 0.25)
    found = noise(GradientNoise(eta=0.3, relative=relative), gradient, step)
    expected = math.sqrt(0.3 / (1 + step) ** 0.55) * (0.25 if relative else 1)
    # 10⁵ draws: the deviation is known to 0.22 %, the mean to 0.32 % of it.
    assert float(found.std()) == pytest.approx(expected, rel=0.01)
    assert abs(float(found.mean())) < 0.015 * expected


def test_draws_are_those_of_seed_and_step_alone():
    rule, gradient = GradientNoise(eta=1.0), torch.ones(8)
    torch.manual_seed(1)
    first = noise(rule, gradient, step=3)
    torch.manual_seed(2)
    assert torch.equal(first, noise(rule, gradient, step=3))
    assert not torch.equal(first, noise(rule, gradient, step=4))
    assert not torch.equal(first, noise(rule, gradient, step=3, seed=1))


def test_half_precision_stays_half_precision():
    changed, _ = GradientNoise().backward(torch.ones(4).bfloat16(), SITE, {}, Moment(Clock()))
    assert changed.dtype == torch.bfloat16
