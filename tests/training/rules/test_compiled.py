"""The check of compiled gradients: quiet where they agree, loud where compilation changes them.

The backend ``aot_eager`` traces and splits forward and backward as ``inductor`` does, without a
C++ compiler.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from domainformer.errors import RuleError
from domainformer.training.rules import LearningRule, attach, chain, check_compiled
from domainformer.training.rules.backward import (
    FeedbackAlignment,
    GradientNoise,
    SignGradient,
    StraightThrough,
)

BATCH = {"input_ids": torch.arange(12).remainder(7).view(2, 6)}
BATCH["labels"] = BATCH["input_ids"]


class Small(nn.Module):
    """Embedding, two layers with dropout, scores: as small as a language model can be."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.dropout = nn.Dropout(0.25)
        self.head = nn.Linear(6, 7)

    def forward(self, input_ids, labels):
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = self.dropout(torch.tanh(block(hidden)))
        logits = self.head(hidden)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Small()


class Halved(torch.autograd.Function):
    """The identity with half its gradient."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


class Sabotaged(LearningRule):
    """Has its backward in eager mode, and loses or changes something when it is compiled."""

    name: ClassVar[str] = "sabotaged"
    compiles: ClassVar[bool] = True
    sites: tuple[str, ...] = ("blocks.0",)
    how: str = "nothing"

    def replace(self, at, original, state, moment):
        how = self.how

        def changed(value):
            compiling = torch.compiler.is_compiling()
            if how == "drops" and compiling:
                return original(value)
            if how == "detaches" and compiling:
                return original(value).detach() + 0 * original(value)
            output = Halved.apply(original(value))
            if how == "slightly" and compiling:
                output = output + 0.005 * (output - output.detach())
            return output

        return changed


class Baked(LearningRule):
    """Adds what was right at step 0 for ever, when it is compiled: a constant in the graph."""

    name: ClassVar[str] = "baked"
    compiles: ClassVar[bool] = True
    sites: tuple[str, ...] = ("blocks.0",)

    def replace(self, at, original, state, moment):
        def changed(value):
            step = 0 if torch.compiler.is_compiling() else moment.step
            return original(value) * (1 + 0.1 * step)

        return changed


def everything(model):
    return (
        {n: w.clone() for n, w in model.state_dict().items()},
        [w.grad for w in model.parameters()],
        model.training,
        sorted(vars(model.blocks[0])),
        torch.get_rng_state(),
    )


def test_rules_that_are_the_same_compiled_pass_and_nothing_is_left_behind(model):
    before = everything(model)
    rules = chain(
        StraightThrough(sites=("blocks.0",), operation="ternary", gradient="clipped"),
        FeedbackAlignment(sites=("head",)),
        GradientNoise(sites=("blocks.1",), eta=1.0),
    )
    assert check_compiled(rules, model, BATCH, "aot_eager") < 1e-9
    after = everything(model)
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:4] == after[1:4]
    assert torch.equal(before[4], after[4])


@pytest.mark.parametrize("how", ["drops", "slightly", "detaches"])
def test_a_backward_that_compilation_changes_is_caught_and_named(model, how):
    rules = chain(SignGradient(sites=("blocks.1",)), Sabotaged(how=how))
    with pytest.raises(RuleError, match=r"'sabotaged'[\s\S]*differs by") as caught:
        check_compiled(rules, model, BATCH, "aot_eager")
    assert "sign_gradient" not in str(caught.value)


def test_the_same_rule_without_sabotage_passes(model):
    assert check_compiled(Sabotaged(), model, BATCH, "aot_eager") < 1e-9


def test_what_is_baked_into_the_graph_is_caught(model):
    with pytest.raises(RuleError, match=r"'baked'[\s\S]*step 1"):
        check_compiled(Baked(), model, BATCH, "aot_eager")


def test_a_rule_that_says_no_is_refused_before_anything_runs(model):
    class Never(LearningRule):
        name: ClassVar[str] = "never"

        def replace(self, at, original, state, moment):
            raise AssertionError("it was attached")

    with pytest.raises(RuleError, match=r"do not work compiled: 'never'\n"):
        check_compiled(chain(SignGradient(), Never()), model, BATCH, "aot_eager")


def test_a_model_that_differs_without_any_rule_is_not_blamed_on_one():
    class Differs(Small):
        def forward(self, input_ids, labels):
            output = super().forward(input_ids, labels)
            if torch.compiler.is_compiling():
                output.loss = output.loss * 2
            return output

    with pytest.raises(RuleError, match=r"without learning rules[\s\S]*differs by"):
        check_compiled(SignGradient(sites=("blocks.1",)), Differs(), BATCH, "aot_eager")


def test_a_compiler_that_fails_is_told_with_its_reason(model):
    with pytest.raises(RuleError, match=r"without learning rules[\s\S]*failed: InvalidBackend"):
        check_compiled(SignGradient(sites=("blocks.*",)), model, BATCH, "no_such_backend")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not:UserWarning")
def test_compiled_steps_see_a_new_draw_at_each_step(model):
    """The way in which training calls it: attach, compile, go on."""
    model.dropout.p = 0.0
    seen = []
    with attach(GradientNoise(sites=("blocks.0",), eta=1.0), model) as attached:
        compiled = torch.compile(model, backend="aot_eager")
        for step in (0, 0, 1):
            attached.clock.step = step
            model.zero_grad()
            compiled(**BATCH).loss.backward()
            seen.append(model.blocks[0].weight.grad.clone())
    torch.compiler.reset()
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
