"""The losses over a catalogue, against cross-entropy as torch writes it out."""

import pytest
import torch
from torch.nn import functional as F

from domainformer.models.item_softmax import item_cross_entropy, sampled_item_cross_entropy

ITEMS, WIDTH, ROWS = 50, 6, 300  # more rows than one block


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, requires_grad=True)
    table = torch.randn(ITEMS, WIDTH, requires_grad=True)
    bias = torch.randn(ITEMS, requires_grad=True)
    targets = torch.randint(ITEMS, (ROWS, 3))
    targets[0] = 7  # the same item three times
    weights = torch.rand(ROWS, 3)
    return hidden, table, bias, targets, weights / weights.sum(1, keepdim=True)


def written_out(hidden, table, bias, targets, weights, smoothing=0.0):
    goal = torch.zeros(ROWS, ITEMS).scatter_add_(1, targets, weights)
    goal = (1 - smoothing) * goal + smoothing / ITEMS
    return F.cross_entropy(hidden @ table.T + bias, goal)


def gradients(loss, *leaves):
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_full_softmax_and_its_gradients_are_those_of_torch(inputs, smoothing):
    leaves = inputs[:3]
    ours = item_cross_entropy(*inputs, smoothing=smoothing)
    oracle = written_out(*inputs, smoothing)
    assert torch.allclose(ours, oracle, atol=1e-5)
    for mine, theirs in zip(
        gradients(3 * ours, *leaves), gradients(3 * oracle, *leaves), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_bfloat16_is_near(inputs):
    exact, rough = (
        item_cross_entropy(*inputs, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert abs(exact - rough) < 0.02
    assert exact != rough


def test_a_draw_of_all_items_is_the_full_softmax(inputs):
    leaves = inputs[:3]
    drawn = sampled_item_cross_entropy(*inputs, torch.randperm(ITEMS), torch.zeros(ITEMS))
    full = written_out(*inputs)
    assert torch.allclose(drawn, full, atol=1e-5)
    for mine, theirs in zip(gradients(drawn, *leaves), gradients(full, *leaves), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_correction_makes_the_sum_right_on_average(inputs):
    """exp of the loss's log-sum, over many draws; without log E it is far too small (the twin)."""
    hidden, table, bias, targets, _ = (
        one[:1].detach() if i in (0, 3) else one.detach() for i, one in enumerate(inputs)
    )
    targets = torch.tensor([[3]])
    chances = torch.softmax(torch.randn(ITEMS), 0).double()
    size = 20
    log_expected = torch.log(-torch.expm1(size * torch.log1p(-chances))).float()
    own = (hidden @ table.T + bias)[0, 3]
    truth = torch.logsumexp(hidden @ table.T + bias, 1).exp().item()

    def mean(correction):
        sums = []
        for _ in range(3000):
            drawn = torch.multinomial(chances, size, replacement=True).unique()
            loss = sampled_item_cross_entropy(hidden, table, bias, targets, None, drawn, correction)
            sums.append((loss + own).exp().item())
        return sum(sums) / len(sums)

    assert mean(log_expected) == pytest.approx(truth, rel=0.05)
    assert mean(torch.zeros(ITEMS)) < 0.8 * truth
