"""AdamW, SGD and Lion against torch's and slow twins; groups of parameters; state on the disk."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from domainformer.errors import RuleError
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.optimizer import adamw
from domainformer.training.rules import make_rules
from domainformer.training.rules.update import SGD, AdamW, Lion, Muon, parameter_kinds
from domainformer.training.rules.update.groups import make_groups

RATE, DECAY = 0.01, 0.1


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


def small():
    torch.manual_seed(0)
    return Small()


def gradients_of(model, step):
    ids = torch.randint(0, 7, (4, 6), generator=torch.Generator().manual_seed(step))
    model.zero_grad()
    nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(1, 1).flatten()).backward()


def train(model, optimizer, steps, start=0):
    for step in range(start, start + steps):
        gradients_of(model, step)
        optimizer.step()
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def optimizer_of(rule, model):
    return rule.optimizer(model, learning_rate=RATE, weight_decay=DECAY)


def test_adamw_is_the_engines_own_bit_for_bit():
    expected = train(model := small(), adamw(model, learning_rate=RATE, weight_decay=DECAY), 5)
    found = train(model := small(), optimizer_of(AdamW(), model), 5)
    assert all(torch.equal(expected[n], found[n]) for n in expected)
    other = train(model := small(), optimizer_of(AdamW(betas=(0.5, 0.9)), model), 5)
    assert not all(torch.equal(expected[n], other[n]) for n in expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_against_a_loop(nesterov):
    model, twin = small(), small()
    optimizer = optimizer_of(SGD(momentum=0.8, nesterov=nesterov), model)
    decays = {n: DECAY * (k in ("hidden", "head")) for n, k in parameter_kinds(twin).items()}
    momentum = {n: torch.zeros_like(p) for n, p in twin.named_parameters()}
    for step in range(4):
        train(model, optimizer, 1, step)
        gradients_of(twin, step)
        for name, p in twin.named_parameters():
            momentum[name] = 0.8 * momentum[name] + p.grad
            move = p.grad + 0.8 * momentum[name] if nesterov else momentum[name]
            p.data = p.data - RATE * decays[name] * p.data - RATE * move
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {DECAY, 0.0}


def test_lion_against_a_loop():
    model, twin = small(), small()
    optimizer = optimizer_of(Lion(betas=(0.8, 0.95)), model)
    decays = {n: DECAY * (k in ("hidden", "head")) for n, k in parameter_kinds(twin).items()}
    momentum = {n: torch.zeros_like(p) for n, p in twin.named_parameters()}
    for step in range(4):
        train(model, optimizer, 1, step)
        gradients_of(twin, step)
        for name, p in twin.named_parameters():
            direction = (0.8 * momentum[name] + 0.2 * p.grad).sign()
            momentum[name] = 0.95 * momentum[name] + 0.05 * p.grad
            p.data = p.data - RATE * decays[name] * p.data - RATE * direction
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


RULES = [AdamW(), SGD(), Lion(), Muon(precision="fp32"), Muon(precision="bf16", every=2)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_its_state_survives_the_disk_bit_for_bit(rule):
    model = small()
    whole = train(model, optimizer_of(rule, model), 5)
    model = small()
    optimizer = optimizer_of(rule, model)
    train(model, optimizer, 3)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    resumed, forgetful = small(), small()
    for target, remembers in ((resumed, True), (forgetful, False)):
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
        target.load_state_dict(saved["model"])
        fresh = optimizer_of(rule, target)
        if remembers:
            fresh.load_state_dict(saved["optimizer"])
        end = train(target, fresh, 2, start=3)
        assert all(torch.equal(whole[n], end[n]) for n in whole) is remembers


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_schedule_multiplies_the_rate_of_every_group(rule):
    model = small()
    optimizer = optimizer_of(rule, model)
    peaks = [g["lr"] for g in optimizer.param_groups]
    before = copy.deepcopy(model.state_dict())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    assert min(peaks) > 0
    train(model, optimizer, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_parameters_without_gradients_stay():
    for rule in RULES:
        model = small()
        optimizer = optimizer_of(rule, model)
        before = model.blocks[1][0].weight.detach().clone()
        gradients_of(model, 0)
        model.blocks[1][0].weight.grad = None
        optimizer.step()
        assert torch.equal(before, model.blocks[1][0].weight)


# Groups


def test_kinds():
    kinds = parameter_kinds(small())
    assert kinds["embedding.weight"] == "embedding"
    assert kinds["head.weight"] == "head"
    assert kinds["norm.weight"] == kinds["blocks.0.0.bias"] == "vector"
    assert kinds["blocks.0.0.weight"] == "hidden"
    model = small()
    model.head.weight = model.embedding.weight
    assert "head.weight" not in parameter_kinds(model)
    model.norm.weight.requires_grad_(False)
    assert "norm.weight" not in parameter_kinds(model)


def test_the_first_group_that_fits_counts():
    config = DomainTransformerConfig.preset("tiny", vocab_size=9, hidden_size=8)
    model = DomainTransformerForCausalLM(config)
    rule = AdamW(
        groups=(
            {"parameters": ["blocks.0.attention"], "learning_rate": 0.5},
            {"parameters": ["blocks.*.attention", "**.norm*"], "weight_decay": 0.25},
        )
    )
    optimizer = optimizer_of(rule, model)
    of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    blocks = model.model.layers
    first, second = (of[id(block.self_attn.q_proj.weight)] for block in blocks[:2])
    assert (first["lr"], first["weight_decay"]) == (0.5, DECAY)
    assert (second["lr"], second["weight_decay"]) == (RATE, 0.25)
    assert len(of) == len(list(model.parameters()))


def test_a_group_that_fits_nothing_names_the_nearest():
    (rule,) = make_rules([{"lion": {"groups": [{"parameters": ["embeding"]}]}}]).rules
    with pytest.raises(RuleError, match=r"lion[\s\S]*'embedding'"):
        optimizer_of(rule, small())


def test_groups_hold_every_parameter_once():
    groups = make_groups(small(), (), learning_rate=1, weight_decay=1, rule="x")
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(small().parameters()))
