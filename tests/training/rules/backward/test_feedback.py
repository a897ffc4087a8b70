"""Feedback alignment, against backpropagation written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from domainformer.errors import RuleError
from domainformer.training.rules import attach
from domainformer.training.rules.backward import DirectFeedbackAlignment, FeedbackAlignment


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def by_hand(model, x, target, back):
    """Gradients of half the squared error, with ``back`` in place of the second weight."""
    first, second = model[0], model[2]
    h = torch.tanh(x @ first.weight.T + first.bias)
    error = h @ second.weight.T + second.bias - target
    below = (error @ back) * (1 - h**2)
    return {
        "0.weight": below.T @ x,
        "0.bias": below.sum(0),
        "2.weight": error.T @ h,
        "2.bias": error.sum(0),
    }


def run(model, rule, x, target):
    with attach(rule, model) as attached:
        (0.5 * (model(x) - target).square().sum()).backward()
        return {n: p.grad for n, p in model.named_parameters()}, attached.state


def data():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(6, 4, generator=generator).double(),
        torch.randn(6, 3, generator=generator).double(),
    )


def test_random_matrices_equal_backpropagation_by_hand():
    model, (x, target) = network(), data()
    found, state = run(model, FeedbackAlignment(sites=("0", "2")), x, target)
    back = state["0:feedback_alignment"]["2"]
    assert back.shape == model[2].weight.shape
    for name, gradient in by_hand(model, x, target, back).items():
        torch.testing.assert_close(found[name], gradient.detach())
    true = by_hand(model, x, target, model[2].weight)
    assert not torch.allclose(found["0.weight"], true["0.weight"])


def test_signs_equal_backpropagation_by_hand():
    model, (x, target) = network(), data()
    found, state = run(model, FeedbackAlignment(sites=("0", "2"), feedback="sign"), x, target)
    weight = model[2].weight
    for name, gradient in by_hand(model, x, target, weight.sign() * weight.abs().mean()).items():
        torch.testing.assert_close(found[name], gradient.detach())
    assert state == {"0:feedback_alignment": {}}


def test_the_true_matrix_gives_the_true_gradient():
    model, (x, _) = network(), data()
    rule = FeedbackAlignment(sites=("0", "2"))
    with attach(rule, model) as attached:
        for path in ("0", "2"):
            weight = model[int(path)].weight.detach().clone()
            attached.state["0:feedback_alignment"][path] = weight
        assert torch.autograd.gradcheck(model, (x.requires_grad_(),))


def test_matrices_have_the_size_of_the_weights_and_follow_the_seed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 200))
    nn.init.normal_(model[0].weight, std=0.02)

    def matrix(seed, **settings):
        rule = FeedbackAlignment(sites=("0",), **settings)
        with attach(rule, model, seed=seed) as attached:
            return attached.state["0:feedback_alignment"]["0"]

    assert float(matrix(0).std()) == pytest.approx(0.02, rel=0.02)
    assert float(matrix(0, scale=3.0).std()) == pytest.approx(0.06, rel=0.02)
    assert torch.equal(matrix(0), matrix(0))
    assert not torch.equal(matrix(0), matrix(1))
    nn.init.zeros_(model[0].weight)
    assert float(matrix(0).std()) == pytest.approx(300**-0.5, rel=0.02)


def test_a_transposed_layer_is_the_same_layer():
    torch.manual_seed(0)
    linear, other = nn.Linear(4, 3), Conv1D(3, 4)
    with torch.no_grad():
        other.weight.copy_(linear.weight.T)
        other.bias.copy_(linear.bias)
    grads = []
    for layer in (linear, other):
        x = torch.ones(2, 4, requires_grad=True)
        model = nn.Sequential(layer)
        with attach(FeedbackAlignment(sites=("0",)), model):
            model(x).square().sum().backward()
        grads.append((x.grad, layer.weight.grad))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1].T)


def test_under_autocast_gradients_have_the_dtype_of_the_weights():
    model = nn.Sequential(nn.Linear(4, 3))
    x = torch.ones(2, 4, requires_grad=True)
    with attach(FeedbackAlignment(sites=("0",)), model):
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
    assert x.grad.dtype == model[0].weight.grad.dtype == torch.float32


def test_a_loaded_state_is_what_is_used():
    model = nn.Sequential(nn.Linear(4, 3))
    rule = FeedbackAlignment(sites=("0",))
    with attach(rule, model, seed=1) as attached:
        state = attached.state_dict()
    x = torch.ones(1, 4, requires_grad=True)
    with attach(rule, model, seed=2) as attached:
        attached.load_state_dict(state)
        model(x).sum().backward()
    torch.testing.assert_close(x.grad[0], state["rules"]["0:feedback_alignment"]["0"].sum(0))


def test_direct_errors_skip_what_lies_between():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3))
    x = torch.randn(2, 7, 4)
    rule = DirectFeedbackAlignment(sites=("*",), scale=2.0)
    with attach(rule, model, seed=3) as attached:
        y = model(x)
        (0.5 * y.square().sum()).backward()
        state = attached.state["0:direct_feedback_alignment"]
    assert set(state) == {"last", "matrices"}  # no error is kept in a checkpoint
    error = y.detach()  # of half the squares
    for index, below in ((0, x), (1, model[0](x))):
        arrived = error @ state["matrices"][str(index)]
        expected = torch.einsum("blo,bli->oi", arrived, below.detach())
        torch.testing.assert_close(model[index].weight.grad, expected)
    true = torch.einsum("blo,bli->oi", error, model[1](model[0](x)).detach())
    torch.testing.assert_close(model[2].weight.grad, true)


def test_direct_feedback_needs_two_sites_in_a_row():
    with pytest.raises(RuleError, match="two sites"):
        attach(DirectFeedbackAlignment(sites=("0",)), nn.Sequential(nn.Linear(2, 2)))

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.a(x)  # b never sees the error

    model = Apart()
    with (
        attach(DirectFeedbackAlignment(sites=("a", "b")), model),
        pytest.raises(RuleError, match="no error for this site"),
    ):
        model(torch.ones(1, 2)).sum().backward()
