"""`bind`: models of transformers and ours as they are, others by what their `forward` takes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from domainformer.errors import AdapterError, UnresolvedInput
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.models.universal import Role, bind

from .corpus.architectures import ModelOutput, RecurrentWithState, WithPositions
from .corpus.case import Base, V
from .corpus.signatures import InvertedMask, Keywords, NanoGPT, StarTokens, SwitchesAndNumbers

IDS = torch.arange(8).view(2, 4)


def _gpt2():
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=V, **sizes, **ends)).eval()


def _ours():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DomainTransformerConfig(vocab_size=V, intermediate_size=16, **sizes)
    return DomainTransformerForCausalLM(config).eval()


@pytest.mark.parametrize("make", [_gpt2, _ours])
def test_native_models_are_called_as_they_are(make):
    torch.manual_seed(0)
    model = make()
    bound = bind(model)
    assert bound.native
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    direct = model(input_ids=IDS, attention_mask=mask, labels=IDS)
    output = bound(IDS, attention_mask=mask, labels=IDS)
    assert torch.equal(output.logits, direct.logits)
    assert torch.equal(output.loss, direct.loss)
    first = bound(IDS[:, :3], use_cache=True)
    rest = bound(IDS[:, 3:], past_key_values=first.past_key_values)
    torch.testing.assert_close(rest.logits[:, 0], bound(IDS).logits[:, 3])
    assert bound(IDS, logits_to_keep=1).logits.shape == (2, 1, V)


def test_an_encoder_decoder_of_transformers():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    bound = bind(
        T5ForConditionalGeneration(T5Config(vocab_size=V, decoder_start_token_id=0, **sizes)).eval()
    )
    labels = IDS[:, :3].contiguous()
    assert bound(IDS, labels=labels).logits.shape == (2, 3, V)
    assert bound(IDS, decoder_input_ids=labels[:, :2]).logits.shape == (2, 2, V)
    with pytest.raises(UnresolvedInput, match="needs the ids of its decoder"):
        bound(IDS)


def _next_token_loss(logits, labels):
    rows = [
        F.cross_entropy(logits[b, t], labels[b, t + 1], reduction="none")
        for b in range(labels.shape[0])
        for t in range(labels.shape[1] - 1)
        if labels[b, t + 1] != -100
    ]
    return torch.stack(rows).mean()


def test_the_loss_is_that_of_the_next_token_and_of_labels_that_count():
    bound = bind(Keywords())
    labels = IDS.clone()
    labels[0, 2:] = -100
    output = bound(IDS, labels=labels)
    torch.testing.assert_close(output.loss, _next_token_loss(output.logits, labels))


def test_a_model_that_takes_labels_as_they_are_keeps_its_own_loss():
    assert bind(ModelOutput())(IDS, labels=IDS).loss.item() == 7


def test_targets_of_nanogpt_give_all_positions_and_not_its_loss():
    bound = bind(NanoGPT().eval())
    with pytest.raises(AdapterError, match=r"float32 \[2, 1, 20\]"):
        bind(NanoGPT().eval(), roles={"targets": "option"})(IDS)
    output = bound(IDS, labels=IDS)
    assert output.logits.shape == (2, 4, V)
    torch.testing.assert_close(output.loss, _next_token_loss(output.logits, IDS))
    assert not torch.equal(output.loss, output.raw[1])


def test_a_mask_of_torch_says_the_opposite():
    bound = bind(InvertedMask())
    assert bound(IDS, attention_mask=torch.ones_like(IDS)).logits.shape == (2, 4, V)
    with pytest.raises(ValueError, match="True is padding"):
        bound(IDS, attention_mask=torch.zeros_like(IDS))


def test_a_state_goes_round():
    bound = bind(RecurrentWithState().eval())
    whole = bound(IDS).logits
    first = bound(IDS[:, :2])
    rest = bound(IDS[:, 2:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole)


def test_what_cannot_be_passed_is_refused_and_not_dropped():
    class Plain(Base):
        def forward(self, input_ids):
            return self.body(input_ids)

    bound = bind(Plain())
    for name in ("position_ids", "past_key_values"):
        with pytest.raises(AdapterError, match=f"forward takes no {name}"):
            bound(IDS, **{name: IDS})
    with pytest.raises(AdapterError, match="forward takes no inputs_ids"):
        bound(IDS, inputs_ids=IDS)
    assert not bound.takes("mask")
    assert bound(IDS, attention_mask=torch.zeros_like(IDS)).logits.shape == (2, 4, V)


def test_positions_are_passed():
    bound = bind(WithPositions().eval())
    positions = torch.arange(4)[None]
    assert torch.equal(bound(IDS, position_ids=positions).logits, bound(IDS).logits)
    assert not torch.equal(bound(IDS, position_ids=positions + 1).logits, bound(IDS).logits)
    assert bound.takes(Role.POSITIONS)
    assert not bound.requires("positions")


def test_further_keywords_reach_the_model():
    bound = bind(SwitchesAndNumbers())
    torch.testing.assert_close(bound(IDS, scale=2.0).logits, 2 * bound(IDS).logits)


@pytest.mark.parametrize("chosen", ["no", 7, lambda output: output.mean()])
def test_a_wrong_choice_of_logits_is_told(chosen):
    with pytest.raises(AdapterError):
        bind(StarTokens(), logits=chosen)(IDS)


def test_a_bound_model_is_a_module():
    model = Keywords()
    bound = bind(model)
    assert next(name for name, _ in bound.named_parameters()).startswith("module.")
    assert {id(p) for p in bound.parameters()} == {id(p) for p in model.parameters()}
    copied = copy.deepcopy(bound)
    nn.init.zeros_(copied.module.head.weight)
    assert not torch.equal(copied(IDS).logits, bound(IDS).logits)
