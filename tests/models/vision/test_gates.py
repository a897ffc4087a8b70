import math

import pytest
import torch

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.allocator import top_tokens
from domainformer.models.vision.gates import TemperatureSchedule, harden, open_gate, threshold_gate


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def slow_threshold_gate(scores, budget, temperature):
    """One image, in plain Python."""
    values = scores.tolist()
    if budget >= len(values):
        return torch.zeros(len(values))
    ranked = sorted(values, reverse=True)
    middle = (ranked[budget - 1] + ranked[budget]) / 2
    return torch.tensor(
        [-math.log1p(math.exp(-(value - middle) / temperature)) for value in values]
    )


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_gate_is_that_of_each_image_alone(temperature):
    scores = drawn(4, 7)
    lengths = torch.tensor([7, 5, 3, 1])
    mask = torch.arange(7) < lengths.unsqueeze(1)
    budgets = torch.tensor([3, 5, 1, 4])
    gate = threshold_gate(scores, budgets, temperature, mask=mask)
    for row, length in enumerate(lengths.tolist()):
        alone = slow_threshold_gate(scores[row, :length], int(budgets[row]), temperature)
        assert torch.allclose(gate[row, :length], alone, atol=1e-5)
        assert torch.equal(gate[row, length:], torch.zeros(7 - length))


def test_a_cold_gate_is_the_hard_selection():
    scores = drawn(20)
    gate = threshold_gate(scores, 6, 1e-4).exp()
    hard = torch.zeros(20).index_fill(0, top_tokens(scores, 6), 1.0)
    assert torch.allclose(gate, hard, atol=1e-4)


def test_gradient_reaches_open_and_closed_tokens_and_no_common_shift():
    scores = drawn(9).requires_grad_()
    gate = threshold_gate(scores, 3, 0.5)
    gate[scores.argmin()].backward()
    assert scores.grad[scores.argmin()] > 0.5
    assert abs(float(scores.grad.sum())) < 1e-6
    # Sabotage: without centring a shift of all scores would get a gradient that means nothing.
    uncentred = scores.detach().requires_grad_()
    torch.nn.functional.logsigmoid(uncentred / 0.5)[uncentred.argmin()].backward()
    assert float(uncentred.grad.sum()) > 0.5


def test_a_budget_of_everything_is_open_and_has_finite_gradients():
    scores = drawn(2, 4).requires_grad_()
    gate = threshold_gate(scores, torch.tensor([4, 9]), 0.05)
    gate.sum().backward()
    assert torch.equal(gate.detach(), torch.zeros(2, 4))
    assert torch.isfinite(scores.grad).all()


def test_open_gate_has_its_midpoint_at_zero():
    gate = open_gate(torch.tensor([-1.0, 0.0, 1.0]), 0.1).exp()
    assert gate[1] == pytest.approx(0.5)
    assert gate[0] < 1e-4
    assert gate[2] > 0.9999


@pytest.mark.parametrize("shape", ["exponential", "linear", "cosine"])
def test_schedules_fall_from_start_to_end_and_stay(shape):
    schedule = TemperatureSchedule(steps=10, start=2.0, end=0.1, shape=shape)
    values = [schedule(step) for step in range(15)]
    assert values[0] == pytest.approx(2.0)
    assert values[10:] == pytest.approx([0.1] * 5)
    assert values == sorted(values, reverse=True)


def test_what_a_gate_refuses():
    scores = drawn(3)
    with pytest.raises(VisionError, match="no tokens"):
        threshold_gate(scores, 0, 1.0)
    with pytest.raises(VisionError, match="temperature must be above 0"):
        threshold_gate(scores, 1, 0.0)
    with pytest.raises(VisionError, match="temperature must be above 0"):
        open_gate(scores, -1.0)
    with pytest.raises(ConfigError, match="steps ≥ 1"):
        TemperatureSchedule(steps=0)
    with pytest.raises(ConfigError, match="shape 'cubic'"):
        TemperatureSchedule(steps=3, shape="cubic")


def test_a_hardened_gate_is_the_selection_forward_and_the_smooth_gate_backward():
    scores = torch.randn(20, generator=torch.Generator().manual_seed(3), requires_grad=True)
    smooth = threshold_gate(scores, 5, 0.5)
    (wanted,) = torch.autograd.grad(smooth.sum(), scores, retain_graph=True)
    hard = harden(smooth, 0.5)
    (found,) = torch.autograd.grad(hard.sum(), scores)
    kept = torch.zeros(20, dtype=torch.bool)
    kept[scores.topk(5).indices] = True
    assert torch.equal(hard.detach(), torch.where(kept, 0.0, -2.0))
    assert torch.equal(found, wanted)


def test_scores_that_are_all_alike_cheat_the_smooth_gate_and_not_the_hard_one():
    alike = torch.linspace(0, 1e-3, 16)
    smooth = threshold_gate(alike, 4, 0.05)
    assert smooth.exp().min() > 0.49  # everything is half open: nothing is dropped
    assert (harden(smooth, 0.05) < -19).sum() == 12
