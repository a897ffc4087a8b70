"""Freezing by pattern: what is taken, what is said where nothing is, and ties."""

from __future__ import annotations

import re

import pytest
import torch
from surgery_cases import KINDS, Plain, Wrapper, make
from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery import freeze, select, unfreeze


def learning(model):
    return {n for n, w in model.named_parameters(remove_duplicate=False) if w.requires_grad}


def test_names_parts_globs_and_expressions_take_what_they_say():
    model = make("gpt2")
    assert freeze(model, "transformer.h.1.ln_1.bias") == ("transformer.h.1.ln_1.bias",)
    part = freeze(model, "transformer.h.1")
    assert part
    assert all(name.startswith("transformer.h.1.") for name in part)
    assert set(freeze(model, "*.h.[01]")) == {
        n for n, _ in model.named_parameters() if re.match(r"transformer\.h\.[01]\.", n)
    }
    assert set(freeze(model, r"re:\.ln_\d\.")) == set(freeze(model, re.compile(r"\.ln_\d\.")))
    assert learning(model).isdisjoint(part)
    unfreeze(model)
    assert learning(model) == {n for n, _ in model.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_can_be_frozen_and_unfrozen(kind):
    model = make(kind)
    everything = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    assert set(freeze(model)) == everything
    assert not learning(model)
    assert set(unfreeze(model)) == everything
    assert learning(model) == everything


@pytest.mark.parametrize("end", ["lm_head", "transformer.wte"])
def test_a_tied_weight_is_one_weight_by_any_of_its_names(end):
    model = make("gpt2")
    assert set(freeze(model, end)) == {"lm_head.weight", "transformer.wte.weight"}
    assert not model.lm_head.weight.requires_grad


def test_what_is_frozen_gets_no_gradient_and_no_step():
    model = Plain()
    out = model(torch.tensor([[1, 2, 3]])).sum()
    out.backward()
    freeze(model, "blocks.0")
    frozen = [w.clone() for w in model.blocks[0].parameters()]
    torch.optim.AdamW(model.parameters(), lr=1.0).step()  # also decays what has a gradient
    assert all(torch.equal(a, b) for a, b in zip(frozen, model.blocks[0].parameters(), strict=True))


def test_a_pattern_that_takes_nothing_is_an_error_with_the_nearest_name():
    model = make("llama")
    before = learning(model)
    with pytest.raises(SurgeryError, match=r"did you mean 'model.layers'"):
        freeze(model, "lm_head", "model.layer")
    assert learning(model) == before  # not even the pattern before it was carried out
    with pytest.raises(SurgeryError, match="no regular expression"):
        freeze(model, "re:layers.(")


def test_in_a_wrapper_the_names_of_the_wrapped_model_do():
    model = Wrapper(Plain())
    assert set(freeze(model, "embed")) == {"module.embed.weight", "module.head.weight"}
    assert freeze(model, "module.blocks.0") == freeze(model, "blocks.0")
    # A part called `module` beside others is no wrapper.
    odd = nn.Module()
    odd.module, odd.other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert {weight.names[0] for weight in select(odd, ["module"])} == {
        "module.weight", "module.bias",
    }  # fmt: skip
    with pytest.raises(SurgeryError, match="no parameter"):
        select(odd, ["weight"])


def test_quantised_weights_stay_as_they_are():
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    assert unfreeze(model) == ("bias",)


@pytest.mark.parametrize("pattern", [["*.0.*"], None, 0])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(SurgeryError, match="is no pattern"):
        freeze(make("gpt2"), pattern)
