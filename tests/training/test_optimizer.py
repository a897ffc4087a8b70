"""Decay reaches matrices only; the schedule and the choice of precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training import optimizer as module
from domainformer.training.optimizer import (
    adamw,
    choose_precision,
    make_schedule,
    parameter_groups,
    trainable,
)


@pytest.fixture(scope="module")
def model():
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=30, num_hidden_layers=1, hidden_size=8, num_attention_heads=2,
        position_encoding="learned", max_position_embeddings=16,
    )  # fmt: skip
    return DomainTransformerForCausalLM(config)


def test_only_matrices_decay(model):
    decayed, plain = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed_names = {names[id(p)] for p in decayed["params"]}
    assert decayed_names
    assert all("proj" in name and name.endswith("weight") for name in decayed_names)
    plain_names = {names[id(p)] for p in plain["params"]}
    assert {"model.embed_tokens.weight", "model.embed_positions.weight", "model.norm.weight"} <= (
        plain_names
    )
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_every_parameter_is_in_one_group(model):
    groups = parameter_groups(model, 0.1)
    together = [id(p) for group in groups for p in group["params"]]
    assert sorted(together) == sorted(id(p) for p in model.parameters())


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    assert trainable(model) == list(model[1].parameters())
    assert sum(len(group["params"]) for group in parameter_groups(model, 0.1)) == 2


def test_decay_shrinks_a_matrix_without_gradient_and_not_a_bias():
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = adamw(layer, learning_rate=0.1, weight_decay=0.5)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(layer.weight, torch.full((2, 2), 1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, torch.ones(2))


@pytest.mark.parametrize(("steps", "ratio"), [(1, 0.5), (10, 0.0), (100, 0.1), (7, 0.9)])
def test_the_schedule_is_the_formula(steps, ratio):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = make_schedule(optimizer, steps=steps, warmup_ratio=ratio)
    warmup = min(round(steps * ratio), steps - 1)
    for step in range(steps):
        if step < warmup:
            expected = 2.0 * step / warmup
        else:
            expected = 2.0 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        assert schedule.get_last_lr()[0] == pytest.approx(expected)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_schedules_end_where_they_should(kind, final):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = make_schedule(optimizer, steps=20, warmup_ratio=0.25, kind=kind, final_rate=final)
    rates = [schedule.get_last_lr()[0]]
    for _ in range(20):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates[:6] == pytest.approx([0.0, 0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[20] == pytest.approx(2.0 if kind == "constant" else 2.0 * final)


@pytest.mark.parametrize(
    ("wanted", "width", "supported", "expected"),
    [
        ("auto", 512, True, "bf16"),
        ("auto", 512, False, "fp32"),
        ("auto", 64, True, "fp32"),
        ("bf16", 64, False, "bf16"),
        ("fp32", 512, True, "fp32"),
    ],
)
def test_precision(monkeypatch, wanted, width, supported, expected):
    monkeypatch.setattr(module, "bf16_supported", lambda device: supported)
    assert choose_precision(wanted, torch.device("cpu"), width) == expected


def test_the_probe_of_the_processor_answers():
    assert module.bf16_supported(torch.device("cpu")) in (True, False)
    assert module.bf16_supported(torch.device("meta")) is False
