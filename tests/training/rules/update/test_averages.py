"""Averages of the weights against loops over the weights of every step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from domainformer.training.rules import attach, make_rules
from domainformer.training.rules.update import EMAWeights, Lookahead, ScheduleFree

STEPS = 7


def run(rule, *, rate=0.3):
    """Weights after each step, and the weights to evaluate with."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    trained, evaluated = [], []
    with attach(rule, model) as attached:
        attached.bind(optimizer)
        for step in range(STEPS):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(x) - x[:, :2].roll(1)).square().mean().backward()
            optimizer.step()
            trained.append(model.weight.detach().clone())
            with attached.evaluating():
                evaluated.append(model.weight.detach().clone())
            assert torch.equal(model.weight, trained[-1])
    return trained, evaluated


@pytest.mark.parametrize(("start", "every"), [(0, 1), (2, 1), (1, 3)])
def test_ema_is_the_corrected_average_of_all_weights(start, every):
    decay = 0.8
    plain, _ = run(make_rules([]))
    trained, evaluated = run(EMAWeights(decay=decay, start=start, every=every))
    assert all(torch.equal(a, b) for a, b in zip(plain, trained, strict=True))
    for step in range(STEPS):
        taken = trained[start : step + 1 : every]
        expected = trained[step]
        if taken:
            weights = [decay ** (len(taken) - 1 - i) for i in range(len(taken))]
            expected = sum(w * t for w, t in zip(weights, taken, strict=True)) / sum(weights)
        torch.testing.assert_close(evaluated[step], expected)


def test_without_memory_the_average_is_the_weights():
    trained, evaluated = run(EMAWeights(decay=0))
    assert all(torch.equal(a, b) for a, b in zip(trained, evaluated, strict=True))


def test_lookahead_goes_back_a_part_of_the_way():
    torch.manual_seed(0)
    slow = nn.Linear(3, 2).weight.detach().clone()
    free, _ = run(Lookahead(every=3, alpha=1.0))
    plain, _ = run(make_rules([]))
    assert all(torch.equal(a, b) for a, b in zip(free, plain, strict=True))
    trained, evaluated = run(Lookahead(every=3, alpha=0.25))
    assert torch.equal(evaluated[1], slow)
    expected = slow + 0.25 * (plain[2] - slow)
    torch.testing.assert_close(trained[2], expected)
    assert torch.equal(evaluated[2], trained[2])
    assert torch.equal(evaluated[4], trained[2])
    assert not torch.equal(evaluated[5], trained[2])


@pytest.mark.parametrize(("beta", "power", "warmup"), [(0.0, 0.0, 0), (0.9, 0.0, 0), (0.7, 2.0, 3)])
def test_schedule_free_against_the_equations(beta, power, warmup):
    trained, evaluated = run(ScheduleFree(beta=beta, power=power, warmup=warmup), rate=0.1)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    x = {n: p.detach().clone() for n, p in model.named_parameters()}
    z = {n: p.detach().clone() for n, p in model.named_parameters()}
    total = 0.0
    for step in range(STEPS):
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        for n, p in model.named_parameters():
            p.data = (1 - beta) * z[n] + beta * x[n]
        model.zero_grad()
        (model(batch) - batch[:, :2].roll(1)).square().mean().backward()
        weight = min(1.0, (step + 1) / warmup) ** 2 if warmup else 1.0
        weight *= (step + 1) ** power
        total += weight
        for n, p in model.named_parameters():
            z[n] = z[n] - 0.1 * p.grad
            x[n] = (1 - weight / total) * x[n] + weight / total * z[n]
        torch.testing.assert_close(evaluated[step], x["weight"])
        torch.testing.assert_close(trained[step], (1 - beta) * z["weight"] + beta * x["weight"])
