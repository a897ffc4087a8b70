"""Rules of attention, against models that have the same thing built in, and a slow formula."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from domainformer.errors import RuleError
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.rules import attach, chain
from domainformer.training.rules.forward import (
    AttentionSoftcap,
    AttentionTemperature,
    AttentionWindow,
    QueryKeyNorm,
)
from domainformer.training.rules.forward.interface import RuledAttention

V = 17
SIZES = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def built(cls, config):
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5)
    return model


def own(**settings):
    return built(
        DomainTransformerForCausalLM,
        DomainTransformerConfig.preset(
            "tiny",
            vocab_size=V,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            position_encoding="rope",
            **settings,
        ),
    )


def gpt2():
    return built(
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=V, n_embd=16, n_layer=2, n_head=4, n_positions=32,
            bos_token_id=0, eos_token_id=0,
        ),
    )  # fmt: skip


def ids(rows=2, length=9):
    return torch.randint(1, V, (rows, length), generator=torch.Generator().manual_seed(4))


def near(a, b):
    return torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def logits_with(rule, model, tokens=None, **inputs):
    with attach(rule, model), torch.no_grad():
        return model(ids() if tokens is None else tokens, **inputs).logits


# Temperature: queries are divided, which weights can do, too


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("family", ["own", "gpt2", "llama", "qwen2"])
def test_temperature_is_what_smaller_query_weights_do(family, temperature):
    model = {
        "own": own,
        "gpt2": gpt2,
        "llama": lambda: built(LlamaForCausalLM, LlamaConfig(**SIZES)),
        "qwen2": lambda: built(Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    }[family]()
    plain = logits_with(chain(), model)
    found = logits_with(AttentionTemperature(temperature=temperature), model)
    with torch.no_grad():
        for path, module in model.named_modules():
            if path.endswith("q_proj"):
                for weight in module.parameters():
                    weight /= temperature
            elif path.endswith("c_attn"):
                module.weight[:, :16] /= temperature
                module.bias[:16] /= temperature
    assert near(found, logits_with(chain(), model))
    assert not near(found, plain)


# Soft cap, as Gemma 2 has it


def test_softcap_is_that_of_gemma_2():
    gemma = {**SIZES, "final_logit_softcapping": None, "sliding_window": 32}
    with_cap = built(Gemma2ForCausalLM, Gemma2Config(**gemma, attn_logit_softcapping=2.0))
    without = built(Gemma2ForCausalLM, Gemma2Config(**gemma, attn_logit_softcapping=None))
    expected = logits_with(chain(), with_cap)
    assert near(logits_with(AttentionSoftcap(cap=2.0), without), expected)
    assert not near(logits_with(chain(), without), expected)
    # A model's own cap stays: a rule of large cap on top of it changes little.
    assert torch.allclose(logits_with(AttentionSoftcap(cap=1e4), with_cap), expected, atol=1e-4)


# Window, as Mistral has it


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [1, 3])
def test_window_is_that_of_mistral(size, implementation):
    windowed = built(MistralForCausalLM, MistralConfig(**SIZES, sliding_window=size))
    plain = built(MistralForCausalLM, MistralConfig(**SIZES, sliding_window=None))
    plain.set_attn_implementation(implementation)
    expected = logits_with(chain(), windowed)
    assert near(logits_with(AttentionWindow(size=size), plain), expected)
    assert not near(logits_with(chain(), plain), expected)


def test_strided_window_shows_what_its_picture_shows():
    at = torch.arange(6)
    seen = AttentionWindow(size=2, stride=3).visible(at[:, None], at[None]) & (at <= at[:, None])
    rows = ["".join("■" if cell else "." for cell in row) for row in seen.tolist()]
    assert rows == ["■.....", "■■....", ".■■...", "■.■■..", ".■.■■.", "..■.■■"]


def test_window_can_be_in_some_layers_alone():
    model = own()
    everywhere = logits_with(AttentionWindow(size=2), model)
    first = logits_with(AttentionWindow(size=2, sites=("blocks.0.attention",)), model)
    both = chain(
        AttentionWindow(size=2, sites=("blocks.0.attention",)),
        AttentionWindow(size=2, sites=("blocks.1.attention",)),
    )
    assert not near(first, everywhere)
    assert near(logits_with(both, model), everywhere)


# Normed queries and keys, as Qwen 3 has them


def test_qk_norm_is_that_of_qwen_3():
    normed = built(Qwen3ForCausalLM, Qwen3Config(**SIZES))
    plain = built(Qwen2ForCausalLM, Qwen2Config(**SIZES))
    weights = {n: w for n, w in normed.state_dict().items() if "_norm." not in n}
    missing = plain.load_state_dict(
        {**weights, **{n: w for n, w in plain.state_dict().items() if n.endswith("bias")}},
        strict=False,
    ).missing_keys
    assert all("norm" in name for name in missing)
    assert near(logits_with(QueryKeyNorm(), plain), logits_with(chain(), normed))


# All together


def test_rules_act_in_their_order():
    model = own()
    norm, heat = QueryKeyNorm(epsilon=1e-12), AttentionTemperature(temperature=4.0)
    # A norm takes off what a temperature before it did; a temperature after it counts.
    assert near(logits_with(chain(heat, norm), model), logits_with(norm, model))
    assert not near(logits_with(chain(norm, heat), model), logits_with(norm, model))
    cap, window = AttentionSoftcap(cap=1.0), AttentionWindow(size=3)
    both = logits_with(chain(cap, window), model)
    assert near(both, logits_with(chain(window, cap), model))
    assert not near(both, logits_with(cap, model))
    assert not near(both, logits_with(window, model))


@pytest.mark.parametrize("explicit", ["none", "bool", "additive"])
def test_equals_a_slow_formula(explicit):
    generator = torch.Generator().manual_seed(1)
    query, key, value = (
        torch.randn(2, heads, 5, 4, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)
    )
    hidden = torch.zeros(2, 1, 5, 5, dtype=torch.bool)
    hidden[1, :, :, 1] = explicit != "none"  # a token that nobody sees
    hidden[1, :, 1, 1] = False
    mask = {
        "none": None,
        "bool": ~hidden & torch.ones(5, 5).tril().bool(),
        "additive": torch.zeros(2, 1, 5, 5, dtype=torch.float64)
        .masked_fill(hidden, torch.finfo(torch.float64).min)
        .masked_fill(~torch.ones(5, 5).tril().bool(), torch.finfo(torch.float64).min),
    }[explicit]
    module = nn.Identity().eval()
    module.num_key_value_groups = 2
    here = frozenset({id(module)})
    rules = (
        AttentionTemperature(temperature=2),
        AttentionSoftcap(cap=0.7),
        AttentionWindow(size=3),
    )
    attend = RuledAttention(tuple((here, rule) for rule in rules), written_out=False)
    found, _ = attend(module, query, key, value, mask, scaling=0.5)
    for row, head, i in [(r, h, i) for r in range(2) for h in range(4) for i in range(5)]:
        seen = [j for j in range(5) if i - 3 < j <= i and not hidden[row, 0, i, j]]
        scores = [float(query[row, head, i] @ key[row, head // 2, j]) * 0.5 / 2 for j in seen]
        weights = [math.exp(0.7 * math.tanh(score / 0.7)) for score in scores]
        slow = sum(
            w / sum(weights) * value[row, head // 2, j] for w, j in zip(weights, seen, strict=True)
        )
        assert torch.allclose(found[row, i, head], slow, atol=1e-6)


RULES = [
    AttentionTemperature(temperature=0.5),
    AttentionSoftcap(cap=1.0),
    AttentionWindow(size=3),
    AttentionWindow(size=2, stride=3),
    QueryKeyNorm(gain=2.0),
    chain(AttentionWindow(size=3), AttentionSoftcap(cap=1.0), QueryKeyNorm()),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("build", [own, gpt2], ids=["own", "gpt2"])
def test_with_a_cache_and_padding_nothing_changes(rule, build):
    model = build()
    tokens = ids(rows=1)
    padded = torch.cat((torch.zeros(1, 2, dtype=torch.long), tokens), dim=1)
    mask = (padded != 0).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with attach(rule, model), torch.no_grad():
        whole = model(tokens).logits
        cache, steps = None, []
        for part in (tokens[:, :4], tokens[:, 4:6], *tokens[:, 6:].split(1, dim=1)):
            output = model(part, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
        left = model(padded, attention_mask=mask, position_ids=positions).logits[:, 2:]
    assert near(torch.cat(steps, dim=1), whole)
    assert near(left, whole)


def test_packed_documents_do_not_see_each_other():
    model = own()
    tokens = ids(rows=1)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    rule = chain(AttentionTemperature(temperature=0.5), AttentionWindow(size=3))
    packed = logits_with(rule, model, tokens, position_ids=positions)
    apart = [logits_with(rule, model, part) for part in (tokens[:, :4], tokens[:, 4:])]
    assert near(packed, torch.cat(apart, dim=1))


def test_weights_are_given_where_the_model_gave_them():
    model = own()
    model.set_attn_implementation("eager")
    with attach(AttentionWindow(size=2), model), torch.no_grad():
        weights = model(ids(), output_attentions=True).attentions[0]
    assert torch.allclose(weights.sum(-1), torch.ones(()))
    assert not weights.tril(-2).any()
    assert not weights.triu(1).any()


def test_an_error_inside_leaves_nothing_behind():
    model = own()
    with pytest.raises(ZeroDivisionError), attach(chain(*RULES[:3]), model):
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa"


def test_refuses_what_it_cannot_reach():
    plain = nn.Sequential(nn.Linear(2, 2))
    with (
        pytest.raises(RuleError, match="attention function up"),
        attach(AttentionWindow(sites=("0",)), plain),
    ):
        pass
    with (
        pytest.raises(RuleError, match="attention layers"),
        attach(AttentionWindow(sites=("blocks.*.mlp",)), own()),
    ):
        pass
    query = torch.zeros(1, 1, 2, 2)
    with pytest.raises(RuleError, match="s_aux"):
        RuledAttention((), written_out=False)(
            SimpleNamespace(), query, query, query, None, s_aux=torch.zeros(1)
        )
