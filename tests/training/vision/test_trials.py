"""What further tokens are worth."""

import pytest
import torch

from domainformer.training.vision.answers import per_row
from domainformer.training.vision.trials import trial_loss


def test_descent_finds_the_cheapest_of_the_budgets_tried():
    """Many tokens are needed together: no gain before the last of them is there."""
    tokens, price = [1, 2, 4, 8, 16], 0.01
    for needed in (1, 4, 16):
        costs = torch.tensor([(0.0 if kept >= needed else 2.0) + price * kept for kept in tokens])
        scores = torch.linspace(1.0, -1.0, 16).requires_grad_()
        shift = torch.zeros((), requires_grad=True)
        optimizer = torch.optim.Adam([scores, shift], lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            trial_loss(scores + shift, tokens, costs).backward()
            optimizer.step()
        assert max(1, int((scores + shift > 0).sum())) == needed


def test_equal_budgets_are_one_band_and_the_first_has_no_alternative():
    scores = torch.tensor([3.0, -1.0, 0.5, 2.0], requires_grad=True)
    costs = torch.tensor([5.0, 4.0, 4.0, 1.0])
    twice = trial_loss(scores, [1, 2, 2, 4], costs)
    once = trial_loss(scores, [1, 2, 4], costs[[0, 1, 3]])
    assert torch.equal(twice, once)
    twice.backward()
    assert scores.grad[0] == 0
    assert bool((scores.grad[1:] < 0).all())
    assert float(trial_loss(scores, [4, 4], costs[:2])) == 0.0


def test_a_band_rises_as_far_as_it_is_worth_and_falls_where_it_costs():
    scores = torch.zeros(4, requires_grad=True)
    trial_loss(scores, [1, 2, 4], torch.tensor([2.0, 0.0, 0.5])).backward()
    # σ'(0) = 1/4, shared by the tokens of a band.
    assert scores.grad.tolist() == pytest.approx([0.0, -0.5, 0.0625, 0.0625])


def test_means_per_row():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert per_row(losses, torch.tensor([1, 1, 0]), 2).tolist() == [6.0, 1.5]
