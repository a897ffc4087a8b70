"""Clipping at a site, against loops over numbers."""

from __future__ import annotations

import math

import pytest
import torch

from domainformer.config import build
from domainformer.errors import ConfigError
from domainformer.training.rules.backward import GradientClippingAtSite
from domainformer.training.rules.base import Clock, Moment, Site


def clip(gradient, **settings):
    rule = build(GradientClippingAtSite, settings)
    at = Site("0", torch.nn.Identity(), 0)
    changed, _ = rule.backward(gradient, at, {}, Moment(Clock()))
    return changed


def slow(gradient, by, limit, per, relative):
    rows = [[float(g) for g in row] for row in gradient]
    lengths = [math.sqrt(sum(g * g for g in row)) for row in rows]
    whole = math.sqrt(sum(length**2 for length in lengths))
    out = []
    for row, length in zip(rows, lengths, strict=True):
        if by == "value":
            mean_square = length**2 / len(row) if per == "position" else whole**2 / gradient.numel()
            bound = limit * math.sqrt(mean_square) if relative else limit
            out.append([min(max(g, -bound), bound) for g in row])
        else:
            size = length if per == "position" else whole
            bound = limit * (sum(lengths) / len(lengths)) if relative else limit
            out.append([g * min(1.0, bound / size) if size else g for g in row])
    return torch.tensor(out)


@pytest.mark.parametrize("by", ["value", "norm"])
@pytest.mark.parametrize("per", ["position", "tensor"])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("limit", [0.5, 1.0, 100.0])
def test_equals_the_slow_version(by, per, relative, limit):
    if by == "norm" and per == "tensor" and relative:
        return
    gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    gradient[0] *= 10
    gradient[3] = 0
    found = clip(gradient, by=by, limit=limit, per=per, relative=relative)
    torch.testing.assert_close(found, slow(gradient, by, limit, per, relative))


@pytest.mark.parametrize("by", ["value", "norm"])
def test_what_is_within_the_limit_stays_bit_for_bit(by):
    gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(clip(gradient, by=by, limit=1e6), gradient)


def test_a_unit_that_is_itself_is_refused():
    with pytest.raises(ConfigError, match="own unit"):
        clip(torch.ones(1, 1), by="norm", per="tensor", relative=True)
