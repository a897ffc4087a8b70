"""The sign of a gradient, against loops over numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from domainformer.training.rules import attach
from domainformer.training.rules.backward import SignGradient


def gradient_through(rule, arriving):
    values = torch.zeros(arriving.shape, requires_grad=True)
    model = nn.Sequential(nn.Identity())
    with attach(rule, model):
        (model(values) * arriving).sum().backward()
    return values.grad


def slow(gradient, strength, per):
    out = gradient.clone()
    mean = float(gradient.abs().sum() / gradient.numel())
    for place in range(gradient.shape[0]):
        row = gradient[place]
        sizes = {"tensor": mean, "position": float(row.abs().sum() / row.numel()), "none": 1.0}
        for index in range(gradient.shape[1]):
            g = float(row[index])
            sign = (g > 0) - (g < 0)
            out[place, index] = (1 - strength) * g + strength * sizes[per] * sign
    return out


@pytest.mark.parametrize("per", ["tensor", "position", "none"])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_equals_the_slow_version(per, strength):
    arriving = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    arriving[2] = 0
    rule = SignGradient(sites=("0",), strength=strength, per=per)
    torch.testing.assert_close(gradient_through(rule, arriving), slow(arriving, strength, per))


def test_what_is_masked_stays_masked():
    arriving = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert gradient_through(SignGradient(sites=("0",)), arriving)[1].tolist() == [0, 0]
