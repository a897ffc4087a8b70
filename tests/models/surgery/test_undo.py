"""Undo: after any operation, and after several, the model is bit for bit what it was."""

from __future__ import annotations

import json

import pytest
import torch
from surgery_cases import IDS, VOCAB, logits, make
from torch import nn

from domainformer.models.surgery import (
    drop_layers,
    duplicate_layers,
    freeze,
    replace_head,
    resize_embeddings,
    stacks_of,
    undo_point,
)


def state(model):
    """Everything that shall be as before: outputs, weights, what learns, structure, settings."""
    config = getattr(model, "config", None)
    return {
        "logits": logits(model).tolist(),
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "tensors": [id(weight) for weight in model.parameters()],
        "learns": {n: w.requires_grad for n, w in model.named_parameters(remove_duplicate=False)},
        "structure": {name: id(part) for name, part in model.named_modules()},
        "settings": None if config is None else json.loads(config.to_json_string()),
        "modes": [part.training for part in model.modules()],
        "places": [vars(part).get("layer_idx") for part in model.modules()],
    }


def write_into_weights(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)


def train_a_step(model):
    model.train()
    found = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in found:
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(found, lr=0.1).step()


OPERATIONS = {
    "freeze": lambda model: freeze(model, stacks_of(model)[0].path),
    "drop": lambda model: drop_layers(model, [0], path=stacks_of(model)[0].path),
    "duplicate": lambda model: duplicate_layers(model, [0, 1], path=stacks_of(model)[0].path),
    "grow": lambda model: resize_embeddings(model, VOCAB + 3),
    "shrink": lambda model: resize_embeddings(model, VOCAB - 3),
    "write": write_into_weights,
    "train": train_a_step,
}


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "t5", "own", "wrapped"])
def test_all_operations_one_after_another_are_undone(kind):
    model = make(kind)
    before = state(model)
    with undo_point(model):
        for operation in OPERATIONS.values():
            operation(model)
        assert state(model) != before
    assert state(model) == before


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_undone_by_a_token_any_number_of_times(name):
    model = make("qwen3")
    before = state(model)
    point = undo_point(model)
    for _ in range(2):
        OPERATIONS[name](model)
        assert state(model) != before
        point.undo()
        assert state(model) == before


@pytest.mark.parametrize("kind", ["qwen3", "plain"])
def test_no_operation_draws_from_the_global_generator(kind):
    model = make(kind)
    before = torch.get_rng_state()
    for operation in OPERATIONS.values():
        operation(model)
    resize_embeddings(model, VOCAB + 9, init="mean+noise")
    replace_head(model, 3, path="head" if kind == "plain" else None)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_inside_is_undone_and_passed_on():
    model = make("plain")
    before = state(model)
    with pytest.raises(RuntimeError, match="mine"), undo_point(model):
        replace_head(model, 2, path="head")
        raise RuntimeError("mine")
    assert state(model) == before
    assert model.head.weight is model.embed.weight


def test_the_check_of_states_would_notice_one_bit():
    model = make("plain")
    before = state(model)
    with torch.no_grad():
        model.norm.weight[0] = torch.nextafter(model.norm.weight[0], torch.tensor(9.0))
    assert state(model) != before


def test_plain_tensors_hooks_and_replaced_parameters_come_back():
    model = make("plain")
    model.memory = torch.arange(3.0)
    weight = model.norm.weight
    with undo_point(model):
        model.memory += 1
        model.norm.weight = nn.Parameter(torch.zeros(16))
        model.norm.register_forward_hook(lambda *_: 1 / 0)
        model.extra = nn.Linear(1, 1)
    assert model.norm.weight is weight
    assert model.memory.tolist() == [0.0, 1.0, 2.0]
    assert not hasattr(model, "extra")
    assert model(IDS).isfinite().all()
