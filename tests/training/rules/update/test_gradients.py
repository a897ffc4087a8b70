"""Clipping, centralisation and sign against loops, and in a training step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from domainformer.errors import ConfigError
from domainformer.training.rules import attach, make_rules
from domainformer.training.rules.base import Clock, Moment
from domainformer.training.rules.update import (
    AdaptiveGradientClipping,
    CentraliseGradient,
    ClipGradientNorm,
    ClipGradientValue,
    SignOfGradient,
)

SHAPES = {"matrix": (5, 7), "vector": (6,), "convolution": (3, 2, 4), "scalar": ()}


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}


def changed(rule, gradients, state=None, parameters=None):
    copies = {name: g.clone() for name, g in gradients.items()}
    return rule.update(copies, state or {}, parameters or {}, Moment(Clock()))


def test_value(gradients):
    found, _ = changed(ClipGradientValue(value=0.3), gradients)
    for name, g in gradients.items():
        expected = [min(max(x, -0.3), 0.3) for x in g.flatten().tolist()]
        torch.testing.assert_close(found[name].flatten(), torch.tensor(expected))


@pytest.mark.parametrize("norm", [0.1, 1e6])
def test_norm_of_all_equals_torch(gradients, norm):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients.values()]
    for p, g in zip(parameters, gradients.values(), strict=True):
        p.grad = g.clone()
    length = nn.utils.clip_grad_norm_(parameters, norm)
    rule = ClipGradientNorm(norm=norm)
    found, state = changed(rule, gradients)
    for p, name in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(found[name], p.grad)
    assert rule.metrics(state) == {"before": pytest.approx(length.item())}


def test_norm_of_each(gradients):
    found, _ = changed(ClipGradientNorm(norm=0.5, per="tensor"), gradients)
    for name, g in gradients.items():
        expected = g if g.norm() <= 0.5 else g / g.norm() * 0.5
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


def test_adaptive_clipping_row_by_row(gradients):
    generator = torch.Generator().manual_seed(1)
    weights = {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in SHAPES.items()}
    rule = AdaptiveGradientClipping(factor=0.4, smallest=0.5)
    found, _ = changed(rule, gradients, {"skipped": ["vector"]}, weights)
    assert torch.equal(found["vector"], gradients["vector"])
    for name in ("matrix", "convolution", "scalar"):
        g, w = gradients[name], weights[name].detach()
        rows = list(zip(g, w, strict=True)) if g.ndim else [(g, w)]
        expected = []
        for row, weight in rows:
            allowed = 0.4 * max(weight.norm().item(), 0.5)
            expected.append(row if row.norm() <= allowed else row * allowed / row.norm())
        torch.testing.assert_close(found[name], torch.stack(expected).reshape(g.shape))


def test_adaptive_clipping_leaves_embeddings_alone():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    assert AdaptiveGradientClipping().init(model, ()) == {"skipped": ["0.weight"]}


def test_centralised_rows_have_no_mean(gradients):
    found, _ = changed(CentraliseGradient(), gradients)
    assert found["matrix"].mean(1).abs().max() < 1e-6
    assert found["convolution"].mean((1, 2)).abs().max() < 1e-6
    assert torch.equal(found["vector"], gradients["vector"])
    half, _ = changed(CentraliseGradient(strength=0.5), gradients)
    torch.testing.assert_close(half["matrix"] * 2, found["matrix"] + gradients["matrix"])


def test_sign_is_blended(gradients):
    found, _ = changed(SignOfGradient(strength=0.25, scale=2.0), gradients)
    for name, g in gradients.items():
        torch.testing.assert_close(found[name], 0.75 * g + 0.5 * g.sign())


def test_no_gradients_at_all():
    for rule in (ClipGradientValue(), ClipGradientNorm(), SignOfGradient(), CentraliseGradient()):
        assert changed(rule, {})[0] == {}


def test_the_optimizer_sees_them_in_order():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rules = make_rules(["sign_of_gradient", {"clip_gradient_value": {"value": 0.25}}])
    with attach(rules, model) as attached:
        attached.bind(optimizer)
        model.weight.grad = torch.full((1, 1), 0.001)
        optimizer.step()
    assert model.weight.item() == -0.25


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="strength"):
        make_rules([{"sign_of_gradient": {"strength": 2}}])
    with pytest.raises(ConfigError, match="norm"):
        make_rules([{"clip_gradient_norm": {"norm": 0}}])
