"""Noise, dropout, bounds, factors, norms, functions, the recorder: each against a slow formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from domainformer.errors import ConfigError, RuleError
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.rules import attach, chain, make_rules, site_names
from domainformer.training.rules.base import Clock, Moment, Site
from domainformer.training.rules.forward import (
    ActivationClamp,
    ActivationDropout,
    ActivationNoise,
    ActivationNorm,
    ActivationRecorder,
    HeadDropout,
    NormScaling,
    ReplaceActivation,
    ResidualScaling,
    StochasticDepth,
)

SITE = Site("model.layers.1.mlp", nn.Identity(), 0)


def apply(rule, value, state=None, *, step=0, micro=0, site=SITE, seed=0):
    moment = Moment(Clock(seed=seed, step=step, micro=micro), "0:rule")
    return rule.forward(value, site, state or {}, moment)[0]


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**settings):
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset(
        "tiny",
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        **settings,
    )
    return DomainTransformerForCausalLM(config)


# Noise


def test_noise_is_normal_and_of_the_size_that_was_asked_for():
    x = 3 * torch.ones(100, 200)
    absolute = apply(ActivationNoise(std=0.5, relative=False), x) - x
    relative = apply(ActivationNoise(std=0.5), x) - x
    for noise, std in ((absolute, 0.5), (relative, 1.5)):
        assert abs(float(noise.mean())) < 0.02 * std
        assert float(noise.std()) == pytest.approx(std, rel=0.02)
        inside = (noise.abs() < std).float().mean()
        assert float(inside) == pytest.approx(math.erf(2**-0.5), abs=0.01)


def test_noise_is_another_at_each_step_pass_site_and_seed():
    x, rule = torch.zeros(50), ActivationNoise(std=1, relative=False)
    other = Site("model.layers.0.mlp", nn.Identity(), 0)
    drawn = [
        apply(rule, x),
        apply(rule, x, step=1),
        apply(rule, x, micro=1),
        apply(rule, x, site=other),
        apply(rule, x, seed=1),
    ]
    for i, a in enumerate(drawn):
        assert torch.equal(a, drawn[i])
        assert not any(torch.allclose(a, b) for b in drawn[i + 1 :])
    assert torch.equal(drawn[0], apply(rule, x))


def test_relative_noise_of_a_token_of_zeros_has_a_gradient():
    x = torch.zeros(1, 4, requires_grad=True)
    apply(ActivationNoise(std=0.5), x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4])
def test_rules_in_time_act_in_their_steps_alone(step):
    rule = ActivationNoise(std=1, first_step=1, last_step=3)
    x = torch.ones(1, 8)
    assert torch.equal(apply(rule, x, step=step), x) is (step not in (1, 2))


# Dropout


@pytest.mark.parametrize("unit", ["element", "token", "feature"])
def test_dropout_drops_whole_units_and_keeps_the_mean(unit):
    y = apply(ActivationDropout(rate=0.25, unit=unit), torch.ones(40, 30, 20))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    zero = y.eq(0)
    assert float(zero.float().mean()) == pytest.approx(0.25, abs=0.05)
    alike = {"token": -1, "feature": 1}
    for other, dim in alike.items():
        assert bool((zero.all(dim) == zero.any(dim)).all()) is (other == unit)


def test_stochastic_depth_drops_rows_at_rates_that_grow():
    model = tiny()
    rule = StochasticDepth(rate=0.5)
    with attach(rule, model) as attached:
        state = attached.state["0:stochastic_depth"]
        assert list(state["rates"].values()) == [0.25, 0.25, 0.5, 0.5]
    for path, rate in state["rates"].items():
        y = apply(rule, torch.ones(2000, 3, 2), state, site=Site(path, nn.Identity(), 0))
        zero = y.eq(0).flatten(1)
        assert torch.equal(zero.all(1), zero.any(1))
        assert float(zero.float().mean()) == pytest.approx(rate, abs=0.04)
        assert float(y.max()) == pytest.approx(1 / (1 - rate))
    flat = StochasticDepth(rate=0.3, grows=False)
    with attach(flat, model) as attached:
        assert set(attached.state["0:stochastic_depth"]["rates"].values()) == {0.3}


def test_stochastic_depth_refuses_the_stream_itself():
    with (
        pytest.raises(RuleError, match="stream"),
        attach(StochasticDepth(sites=("blocks.*",)), tiny()),
    ):
        pass
    with (
        pytest.raises(RuleError, match="in no block"),
        attach(StochasticDepth(sites=("embedding",)), tiny()),
    ):
        pass


def test_head_dropout_takes_heads_out_before_they_are_mixed():
    model = tiny().train()
    seen = {}
    layer = model.model.layers[1].self_attn.o_proj
    ids = torch.arange(11)[None].repeat(64, 1)
    with attach(HeadDropout(rate=0.5), model) as attached:
        assert attached.state["0:head_dropout"] == {"heads": 2}
        handle = layer.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
        model(ids)
        handle.remove()
    heads = seen["x"].unflatten(-1, (2, 4))
    zero = heads.eq(0).permute(0, 2, 1, 3).flatten(2)
    assert torch.equal(zero.all(-1), zero.any(-1))
    assert 0.3 < float(zero.float().mean()) < 0.7
    with (
        pytest.raises(RuleError, match="number of heads"),
        attach(HeadDropout(sites=("0",)), nn.Sequential(nn.Identity())),
    ):
        pass


def test_one_seed_drops_the_same_whatever_else_was_drawn():
    x, rule = torch.ones(8, 8), ActivationDropout(rate=0.5)
    first = apply(rule, x)
    torch.rand(10)
    assert torch.equal(first, apply(rule, x))


# Bounds, factors, norms


def test_clamp():
    x = values(5, 4) * 3
    hard, smooth = (
        apply(ActivationClamp(limit=2), x),
        apply(ActivationClamp(limit=2, smooth=True), x),
    )
    for before, cut, bent in zip(x.flatten(), hard.flatten(), smooth.flatten(), strict=True):
        assert float(cut) == min(max(float(before), -2), 2)
        assert float(bent) == pytest.approx(2 * math.tanh(float(before) / 2), rel=1e-5)


@pytest.mark.parametrize("rule", [ResidualScaling, NormScaling])
def test_factors_depend_on_depth(rule):
    x = values(3, 4)
    made = rule(scale=3.0, depth_power=0.5)
    assert torch.allclose(apply(made, x), 3 / math.sqrt(2) * x)
    assert apply(rule(scale=1, depth_power=0), x) is x


def test_norm_scaling_finds_the_norms_of_all_families():
    names = {
        "attention_norm", "mlp_norm", "input_layernorm", "post_attention_layernorm",
        "pre_feedforward_layernorm", "ln_1", "ln_2",
    }  # fmt: skip
    others = {"attention", "attn", "self_attn", "mlp", "dropout", "activation", "crossattention"}
    block = nn.ModuleDict({name: nn.Identity() for name in names | others})
    block["weights"] = nn.Linear(1, 1)
    model = nn.Module()
    model.layers = nn.ModuleList([block])
    assert "blocks.0.ln_1" in site_names(model)
    found = {
        site.path.rpartition(".")[2]
        for site in chain(NormScaling()).sites_of(model)["0:norm_scaling"]
    }
    assert found == names


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm_equals_that_of_torch(kind):
    x = values(3, 8) + 1
    norm = nn.RMSNorm(8, eps=1e-6) if kind == "rms" else nn.LayerNorm(8, eps=1e-6)
    assert torch.allclose(apply(ActivationNorm(kind=kind, gain=2.0), x), 2 * norm(x), atol=1e-5)


# Functions


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_another_function_is_what_the_mlp_computes(mlp):
    model = tiny(mlp=mlp).eval()
    layer = model.model.layers[0].mlp
    x = values(2, 3, 8)
    with attach(ReplaceActivation(function="squared_relu"), model):
        found = layer(x)
    inner = torch.relu(layer.up_proj(x) if mlp == "gelu" else layer.gate_proj(x)) ** 2
    expected = layer.down_proj(inner if mlp == "gelu" else inner * layer.up_proj(x))
    assert torch.allclose(found, expected)
    assert not torch.allclose(found, layer(x))


def test_an_unknown_function_is_refused():
    with pytest.raises(ConfigError, match="squared_relu"):
        make_rules([{"replace_activation": {"function": "squared"}}])


# The recorder


def test_the_recorder_tells_the_last_values_that_it_saw():
    model = nn.Sequential(nn.ReLU()).train()
    rule = ActivationRecorder(sites=("0",), every=2)
    with attach(rule, model) as attached:
        for step in range(4):
            attached.clock.step, attached.clock.micro = step, 0
            model(values(4, 5, seed=step))
            attached.clock.micro = 1
            model(torch.full((2, 2), 1e3))
        model.eval()(torch.full((2, 2), 1e6))
        told = attached.metrics()
    seen = values(4, 5, seed=2).relu().flatten().tolist()
    mean = sum(seen) / 20
    assert told == {
        "rule_activation_recorder_0.mean": pytest.approx(mean),
        "rule_activation_recorder_0.std": pytest.approx(
            math.sqrt(sum((x - mean) ** 2 for x in seen) / 20)
        ),
        "rule_activation_recorder_0.zeros": seen.count(0) / 20,
        "rule_activation_recorder_0.largest": pytest.approx(max(seen)),
    }


# All together


def test_recomputed_activations_draw_what_they_drew_before():
    ids = torch.arange(11)[None]
    gradients = []
    for recompute in (False, True):
        model = tiny().train()
        if recompute:
            model.activation_checkpointing_enable()
        rules = chain(
            ActivationNoise(std=0.5), ActivationDropout(), StochasticDepth(), HeadDropout()
        )
        with attach(rules, model):
            model(ids, labels=ids).loss.backward()
        gradients.append([weight.grad for weight in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
