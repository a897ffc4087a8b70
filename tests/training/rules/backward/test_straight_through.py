"""Quantised values and weights: forward against loops, backward against what is promised."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from domainformer.errors import RuleError
from domainformer.training.rules import attach, chain
from domainformer.training.rules.backward import FeedbackAlignment, StraightThrough


def slow_row(row, operation, levels):
    """One row of numbers, each at the nearest of a written-out set."""
    sizes = [abs(x) for x in row]
    if operation == "round":
        s = max(sizes)
        grid = [-s + 2 * s * k / (levels - 1) for k in range(levels)]
    else:
        s = sum(sizes) / len(sizes)
        grid = [-s, s] if operation == "sign" else [-s, 0.0, s]
    if operation == "sign":
        return [s if x >= 0 else -s for x in row]
    return [min(grid, key=lambda g: abs(g - x)) for x in row]


CASES = [("round", 2), ("round", 3), ("round", 8), ("round", 255), ("sign", 2), ("ternary", 2)]


@pytest.mark.parametrize(("operation", "levels"), CASES)
def test_outputs_equal_the_slow_version_and_gradients_those_of_the_identity(operation, levels):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    arriving = torch.randn(6, 9, generator=torch.Generator().manual_seed(1)).double()
    model = nn.Sequential(nn.Identity())
    with attach(StraightThrough(sites=("0",), operation=operation, levels=levels), model):
        y = model(x)
        (y * arriving).sum().backward()
    expected = [slow_row(row, operation, levels) for row in x.tolist()]
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64))
    assert len(set(y[0].tolist())) <= (3 if operation == "ternary" else levels)
    assert torch.equal(x.grad, arriving)


def test_without_the_rule_there_is_no_gradient():
    x = torch.tensor([0.3, 1.0], requires_grad=True)
    x.round().sum().backward()
    assert x.grad.tolist() == [0, 0]


def test_clipped_gradients_stop_beyond_the_limit():
    x = torch.tensor([[0.5, -1.0, 3.0, -3.5]], requires_grad=True)  # mean size 2
    model = nn.Sequential(nn.Identity())
    rule = StraightThrough(sites=("0",), operation="sign", gradient="clipped", limit=1.6)
    with attach(rule, model):
        model(x).sum().backward()
    assert x.grad.tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("layer", [lambda: nn.Linear(4, 3), lambda: Conv1D(3, 4)])
def test_weights(layer):
    torch.manual_seed(0)
    model = nn.Sequential(layer())
    weight = model[0].weight if isinstance(model[0], nn.Linear) else model[0].weight.T
    x = torch.randn(5, 4)
    flat = weight.detach().flatten().tolist()
    quantised = torch.tensor(slow_row(flat, "ternary", 3)).view(weight.shape)
    with attach(StraightThrough(sites=("0",), operation="ternary", target="weight"), model):
        y = model(x)
        y.square().sum().backward()
    torch.testing.assert_close(y, x @ quantised.T + model[0].bias)
    grad = model[0].weight.grad if isinstance(model[0], nn.Linear) else model[0].weight.grad.T
    torch.testing.assert_close(grad, (2 * y).detach().T @ x)


def test_the_first_of_several_outputs_is_meant():
    class Two(nn.Module):
        def forward(self, x):
            return x, "kept"

    model = nn.Sequential(Two())
    with attach(StraightThrough(sites=("0",), operation="sign"), model):
        first, second = model(torch.tensor([[1.0, -3.0]]))
    assert first.tolist() == [[2.0, -2.0]]
    assert second == "kept"


def test_all_zeros_stay_zeros():
    model = nn.Sequential(nn.Identity())
    for operation in ("round", "sign", "ternary"):
        with attach(StraightThrough(sites=("0",), operation=operation), model):
            assert torch.equal(model(torch.zeros(2, 3)).abs(), torch.zeros(2, 3))


def test_weights_of_what_has_none_are_refused():
    rule = StraightThrough(sites=("0",), target="weight")
    with pytest.raises(RuleError, match="linear layers"), attach(rule, nn.Sequential(nn.ReLU())):
        pass


def test_two_rules_in_one_place_are_refused():
    rules = chain(FeedbackAlignment(sites=("0",)), StraightThrough(sites=("0",), target="weight"))
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuleError, match="another rule"), attach(rules, model):
        pass
    assert "forward" not in vars(model[0])
