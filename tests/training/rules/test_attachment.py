"""Rules on a model: order, residue, state, and what they are not allowed to do."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from domainformer.errors import CheckpointError, ConfigError, RuleError
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.config import TrainingConfig
from domainformer.training.objectives import ObjectiveModel
from domainformer.training.rules import LearningRule, attach, chain, find_sites


class Nothing(LearningRule):
    name: ClassVar[str] = "nothing"
    sites: tuple[str, ...] = ("blocks.*.mlp",)

    def forward(self, value, at, state, moment):
        return value, state

    def backward(self, gradient, at, state, moment):
        return gradient, state

    def replace(self, at, original, state, moment):
        return lambda *args, **kwargs: original(*args, **kwargs)

    def update(self, gradients, state, parameters, moment):
        return gradients, state

    def after_step(self, parameters, state, moment):
        return state

    def auxiliary_loss(self, seen, state, moment):
        return seen.logits.new_zeros(()), state


class Affine(LearningRule):
    name: ClassVar[str] = "affine"
    sites: tuple[str, ...] = ("0",)
    times: float = 1.0
    plus: float = 0.0

    def forward(self, value, at, state, moment):
        return value * self.times + self.plus, state

    def backward(self, gradient, at, state, moment):
        return gradient * self.times + self.plus, state

    def update(self, gradients, state, parameters, moment):
        return {n: g * self.times + self.plus for n, g in gradients.items()}, state


class Breaks(LearningRule):
    name: ClassVar[str] = "breaks"
    sites: tuple[str, ...] = ("0",)
    how: str = "shape"

    def forward(self, value, at, state, moment):
        return (value[..., :1] if self.how == "shape" else value / 0 * 0), state


class Counts(LearningRule):
    name: ClassVar[str] = "counts"

    def init(self, model, sites):
        return {"steps": 0}

    def after_step(self, parameters, state, moment):
        return {"steps": state["steps"] + 1}


def tiny():
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2
    )
    return DomainTransformerForCausalLM(config)


def footprint(model):
    return [
        (path, sorted(module.__dict__), len(module._forward_hooks), len(module._forward_pre_hooks))
        for path, module in model.named_modules()
    ]


def curve(model, rule, steps=4):
    ids = torch.arange(16).remainder(11)[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    with attach(rule, model) as attached:
        attached.bind(optimizer)
        for _ in range(steps):
            output = model(ids, labels=ids)
            loss = attached.add_auxiliary(
                output.loss,
                output.logits,
                torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100),
                {"input_ids": ids},
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, {name: weight.clone() for name, weight in model.state_dict().items()}


def test_a_rule_that_does_nothing_leaves_the_curve_bit_identical():
    model = tiny()
    plain, weights = curve(copy.deepcopy(model), chain())
    with_rule, same = curve(copy.deepcopy(model), chain(Nothing(), Nothing()))
    assert plain == with_rule
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_rule_that_does_something_does_not():
    model = tiny()
    plain, _ = curve(copy.deepcopy(model), chain())
    other, _ = curve(copy.deepcopy(model), Affine(sites=("blocks.*.mlp",), times=0.5))
    assert plain != other


def test_nothing_is_left_behind():
    model = tiny()
    before = footprint(model)
    with attach(chain(Nothing(), Affine(sites=("blocks.*.attention",))), model):
        assert footprint(model) != before
    assert footprint(model) == before


def test_nothing_is_left_behind_after_an_error():
    model = tiny()
    before = footprint(model)
    with pytest.raises(ZeroDivisionError), attach(Nothing(), model):
        raise ZeroDivisionError
    assert footprint(model) == before


def test_values_and_gradients_go_through_the_rules_in_their_order():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    x = torch.ones(1, 1, requires_grad=True)
    with attach(chain(Affine(times=2), Affine(plus=3)), model):
        y = model(x)
        assert y.item() == 1 * 2 + 3
        y.backward()
    # The gradient 1 arrives at the output: × 2, then + 3; then the forward's own factor of 2.
    assert x.grad.item() == (1 * 2 + 3) * 2


def test_gradients_of_weights_go_through_the_rules_in_their_order():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rules = chain(Affine(sites=(), times=2), Affine(sites=(), plus=3))
    with attach(rules, model) as attached:
        attached.bind(optimizer)
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    assert model.weight.item() == -(1 * 2 + 3)
    model.weight.grad = torch.ones(1, 1)
    optimizer.step()  # nothing is bound any more
    assert model.weight.item() == -6


@pytest.mark.parametrize(("how", "said"), [("shape", "shape"), ("nan", "not finite")])
def test_a_rule_that_breaks_the_value_is_named(how, said):
    model = nn.Sequential(nn.Linear(2, 2))
    with (
        attach(Breaks(how=how), model),
        pytest.raises(RuleError, match=rf"'breaks'[\s\S]*{said}"),
    ):
        model(torch.ones(1, 2))


@pytest.mark.parametrize("step", ["update", "after_step", "auxiliary_loss"])
def test_a_rule_that_breaks_what_has_no_site_is_named(step):
    class Spoils(LearningRule):
        name: ClassVar[str] = "spoils"

    def update(self, gradients, state, parameters, moment):
        return {name: g / 0 for name, g in gradients.items()}, state

    def after_step(self, parameters, state, moment):
        for weight in parameters.values():
            weight.div_(0)
        return state

    def auxiliary_loss(self, seen, state, moment):
        return seen.logits.sum() * float("nan"), state

    setattr(Spoils, step, locals()[step])
    with pytest.raises(RuleError, match="'spoils' made a"):
        curve(tiny(), chain(Nothing(), Spoils()), steps=1)


def test_state_goes_on_and_refuses_other_rules():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(Counts(), model) as attached:
        attached.bind(optimizer)
        for _ in range(3):
            optimizer.step()
        state = copy.deepcopy(attached.state_dict())
    with attach(Counts(), model) as attached:
        attached.load_state_dict(state)
        assert attached.state == {"0:counts": {"steps": 3}}
        assert attached.clock.step == 3
    with attach(chain(), model) as attached, pytest.raises(CheckpointError, match="other learning"):
        attached.load_state_dict(state)


def test_an_unknown_site_names_the_nearest():
    with pytest.raises(RuleError, match=r"blocks\.\*\.mlp"):
        find_sites(tiny(), ["blocks.*.mpl"], rule="noise")


def test_two_optimizers_are_refused():
    class Own(LearningRule):
        name: ClassVar[str] = "own"

        def optimizer(self, model, *, learning_rate, weight_decay):
            return torch.optim.SGD(model.parameters(), lr=learning_rate)

    with pytest.raises(ConfigError, match="own, own"):
        chain(Own(), Own())


def test_a_container_is_no_site():
    """Nothing calls a list of modules: a rule there would never act."""
    with pytest.raises(RuleError, match=r"'blocks' [\s\S]*blocks\.\*"):
        find_sites(tiny(), ["blocks"], rule="noise")
    assert not any(isinstance(s.module, nn.ModuleList) for s in find_sites(tiny(), ["**"], rule=""))


def test_words_mean_the_language_model_where_objectives_surround_it():
    learner = ObjectiveModel(tiny(), [nn.Linear(200, 200)], TrainingConfig())
    found = find_sites(learner, ["blocks.*", "embedding"], rule="noise")
    assert [site.path for site in found] == [
        "model.model.embed_tokens",
        "model.model.layers.0",
        "model.model.layers.1",
    ]


class Named(nn.Module):
    def forward(self, *, x):
        return {"x": x}


class TapsTheInput(Affine):
    tap: ClassVar[str] = "input"


@pytest.mark.parametrize("rule", [Affine, TapsTheInput])
def test_a_site_without_a_tensor_is_named(rule):
    model = nn.Sequential(Named())
    with attach(rule(), model), pytest.raises(RuleError, match=r"no tensor[\s\S]*where: 0"):
        model[0](x=torch.ones(1))
