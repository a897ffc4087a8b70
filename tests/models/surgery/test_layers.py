"""Layers out, layers twice: the same model as one built so, and caches that keep their places."""

from __future__ import annotations

import copy

import pytest
import torch
from surgery_cases import DECODERS, IDS, KINDS, Plain, gpt2, logits, make
from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery import (
    arrange_layers,
    drop_layers,
    duplicate_layers,
    rebuild,
    stacks_of,
)

ORDERS = ([2, 0], [1], [0, 0, 1, 2, 1])
EACH = [(kind, [2, 0, 0]) for kind in KINDS]
EACH += [(kind, order) for kind in ("qwen3", "plain") for order in ORDERS]
CACHED = [*[(kind, [2, 0, 0]) for kind in DECODERS], ("qwen3", [1])]


def stack_path(model):
    return stacks_of(model)[0].path


@pytest.mark.parametrize(("kind", "order"), EACH)
def test_the_result_saves_loads_and_holds_the_layers_in_that_order(kind, order, tmp_path):
    model = make(kind)
    path = stack_path(model)
    old = copy.deepcopy(stacks_of(model)[0].blocks)
    assert arrange_layers(model, order, path=path) is model
    new = stacks_of(model)[0].blocks
    assert len(new) == len(order)
    for block, index in zip(new, order, strict=True):
        for name, weight in block.named_parameters():
            if "relative_attention_bias" not in name:
                assert torch.equal(weight, old[index].get_parameter(name))
    # Copies are their own; nothing that was tied came apart.
    assert len({id(w) for block in new for w in block.parameters()}) == sum(
        1 for block in new for _ in block.parameters()
    )
    told = logits(model)
    if hasattr(model, "config"):
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        assert torch.equal(logits(again), told)


@pytest.mark.parametrize(("kind", "order"), CACHED)
def test_with_a_cache_the_model_says_the_same(kind, order):
    model = make(kind)
    arrange_layers(model, order)
    ids = torch.cat([IDS, IDS], dim=1)  # longer than the sliding window
    whole = logits(model, ids)
    cache, steps = None, []
    with torch.no_grad():
        for place in range(ids.shape[1]):  # without position_ids: the cache alone knows the place
            step = model(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
            cache, steps = step.past_key_values, [*steps, step.logits]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)
    settings = {"do_sample": False, "max_new_tokens": 5, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(IDS)
    both = [
        model.generate(IDS, attention_mask=mask, use_cache=on, **settings) for on in (True, False)
    ]
    assert torch.equal(*both)


def test_a_layer_that_kept_its_old_place_in_the_cache_would_be_noticed():
    model = make("llama")
    drop_layers(model, [0])
    model.model.layers[1].self_attn.layer_idx = 0  # both layers in one cache entry
    with torch.no_grad(), pytest.raises(RuntimeError, match="size of tensor"):
        first = model(input_ids=IDS[:, :3], use_cache=True)
        model(input_ids=IDS[:, 3:], past_key_values=first.past_key_values)


def test_dropping_equals_skipping():
    model = Plain()
    oracle = copy.deepcopy(model)
    oracle.blocks[1].forward = lambda x: x
    assert torch.equal(logits(drop_layers(model, [-2])), logits(oracle))


def test_kinds_of_layers_move_with_them():
    model = make("qwen3", layers=4)
    kinds = list(model.config.layer_types)
    assert len(set(kinds)) == 2
    drop_layers(model, [0, 3])
    assert model.config.layer_types == kinds[1:3]
    assert [b.self_attn.layer_idx for b in model.model.layers] == [0, 1]
    assert [b.self_attn.sliding_window for b in model.model.layers] == [None, 4]


def test_encoder_and_decoder_are_counted_apart():
    model = make("t5", layers=4)
    with pytest.raises(SurgeryError, match="2 lists of layers"):
        drop_layers(model, [0])
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
    drop_layers(model, [0], path="encoder.block")
    duplicate_layers(model, [1], path="decoder.block")
    assert (model.config.num_layers, model.config.num_decoder_layers) == (3, 3)
    assert (model.encoder.config.num_layers, model.decoder.config.num_layers) == (3, 3)
    # The bias of relative positions lies in the first layer, whichever that is.
    assert model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias is bias
    settings = {"do_sample": False, "max_new_tokens": 5}
    both = [model.generate(IDS, use_cache=on, **settings) for on in (True, False)]
    assert torch.equal(*both)


def test_shared_blocks_and_ties_out_of_a_block_stay():
    model = Plain()
    model.blocks = nn.ModuleList([model.blocks[0]] * 3)
    drop_layers(model, [0])
    assert model.blocks[0] is model.blocks[1]
    model = Plain()
    model.gate = model.blocks[1].mix
    duplicate_layers(model, [1])
    assert model.blocks[2].mix.weight is model.gate.weight
    assert model.blocks[2].norm.weight is not model.blocks[1].norm.weight


def test_what_cannot_be_done_leaves_the_model_as_it_was(monkeypatch):
    model = make("gpt2")
    before = logits(model)
    for order, match in (([5], "no layer 5"), ([], "no layer of")):
        with pytest.raises(SurgeryError, match=match):
            arrange_layers(model, order)
    # A family whose configuration builds something else than what is there now.
    fails = iter([set(), {"transformer.h.1.kind is 2 here and 3 there"}])
    monkeypatch.setattr(rebuild, "_differences", lambda *_: next(fails))
    with pytest.raises(SurgeryError, match="would build another one"):
        drop_layers(model, [1])
    assert len(model.transformer.h) == model.config.n_layer == 3
    assert [block.attn.layer_idx for block in model.transformer.h] == [0, 1, 2]
    assert torch.equal(logits(model), before)
    with pytest.raises(SurgeryError, match="no lists of layers"):
        drop_layers(nn.Linear(2, 2), [0])
    with pytest.raises(SurgeryError, match=r"did you mean 'transformer.h'"):
        drop_layers(model, [0], path="transformers.h")


def differences(model):
    return rebuild._differences(model, rebuild._built(model))


def test_the_proof_sees_a_wrong_count_and_place():
    model = make("gpt2")
    assert not differences(model)
    model.transformer.h[1].attn.layer_idx = 7
    assert differences(model) == {"transformer.h.1.attn.layer_idx is 7 here and 1 there"}
    model = gpt2()
    model.config.n_layer = 4
    assert any("missing" in one for one in differences(model))


def test_a_place_is_a_whole_number():
    with pytest.raises(SurgeryError, match="no place of a layer"):
        drop_layers(make("gpt2"), [1.0])
