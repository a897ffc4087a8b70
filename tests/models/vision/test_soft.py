import pytest
import torch

from domainformer.errors import VisionError
from domainformer.models.vision import CompressorConfig, RelevanceCompressor, RelevanceRealizer
from domainformer.models.vision.soft import gated_mask

from .oracles import RandomTokens, masked_logits
from .tiny import FAMILIES, tiny

BUDGETS = (3, 5)


def opened(family, attention="eager", **changes):
    model, maker = tiny(family, attention=attention)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CompressorConfig(feature_size=32, width=16, **changes)
        compressor = RelevanceCompressor(config)
    return RelevanceRealizer(model, compressor), maker


def by_loop(attention_mask, image_keys, gates):
    """The mask, entry by entry."""
    rows, length = attention_mask.shape
    closed = torch.finfo(torch.float32).min
    mask = torch.full((rows, 1, length, length), closed)
    waiting = iter(gates.tolist())
    for row in range(rows):
        gate = [next(waiting) if image else 0.0 for image in image_keys[row].tolist()]
        for query in range(length):
            for key in range(query + 1):
                if attention_mask[row, key]:
                    mask[row, 0, query, key] = gate[key]
            mask[row, 0, query, query] = 0.0
    return mask


def test_the_mask_equals_a_loop():
    draw = torch.Generator().manual_seed(0)
    attention = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    images = torch.tensor([[0, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]]).bool()
    gates = -torch.rand(5, generator=draw)
    assert torch.equal(gated_mask(attention, images, gates), by_loop(attention, images, gates))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cold_gate_is_the_hard_drop(family, padding, attention):
    realizer, maker = opened(family, attention)
    inputs = maker(answers=(2, 1), padding=padding)
    with torch.no_grad():
        soft = realizer.soft_forward(**inputs, budgets=BUDGETS, temperature=1e-6)
        hard = realizer(**inputs, budgets=BUDGETS)
        warm = realizer.soft_forward(**inputs, budgets=BUDGETS, temperature=1.0)
    assert float((soft.loss - hard.loss).abs()) <= 1e-5
    assert float((warm.loss - hard.loss).abs()) > 1e-4
    counts = realizer.encode(**inputs).counts
    share = [budget / count for budget, count in zip(BUDGETS, counts, strict=True)]
    assert soft.kept_share.tolist() == pytest.approx(share)


def test_half_precision_trains_too():
    realizer, maker = opened("qwen3_vl", "sdpa")
    realizer.model.to(torch.bfloat16)
    inputs = maker(answers=(2, 1))
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    output = realizer.soft_forward(**inputs, budgets=BUDGETS, temperature=0.1)
    output.loss.backward()
    moved = [each.grad for each in realizer.selector.parameters() if each.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in moved) > 0


def test_logits_stand_at_the_columns_of_the_full_sequence():
    realizer, maker = opened("qwen2_vl")
    inputs = maker(answers=(2, 1))
    kept = realizer.compress(**inputs, budgets=BUDGETS).selection.kept
    with torch.no_grad():
        soft = realizer.soft_forward(**inputs, budgets=BUDGETS, temperature=1e-6)
    wanted = masked_logits(realizer.model, inputs, kept)
    text = [(inputs["input_ids"][row] >= 8).sum() for row in range(2)]
    for row, words in enumerate(text):
        assert (soft.logits[row, -words:] - wanted[row][-words:]).abs().max() <= 1e-5


@pytest.mark.parametrize("budgets", [None, BUDGETS])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_reaches_the_compressor_alone(family, budgets):
    realizer, maker = opened(family)
    output = realizer.soft_forward(**maker(answers=(2, 1)), budgets=budgets, temperature=1.0)
    output.loss.backward()
    moved = [each.grad for each in realizer.selector.parameters() if each.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in moved) > 0
    assert all(torch.isfinite(grad).all() for grad in moved)
    assert all(each.grad is None for each in realizer.model.parameters())


def test_the_kept_share_has_a_gradient_and_dynamic_budgets_open_at_zero():
    realizer, maker = opened("qwen2_vl")
    output = realizer.soft_forward(**maker(), temperature=1e-6)
    above = [float((score > 0).float().mean()) for score in output.scores]
    assert output.loss is None
    assert output.kept_share.tolist() == pytest.approx(above)
    warm = realizer.soft_forward(**maker(), temperature=1.0)
    warm.kept_share.sum().backward()
    assert any(each.grad is not None for each in realizer.selector.parameters())
    assert len(warm.mixing) == 2


def test_scores_do_not_know_the_answer():
    realizer, maker = opened("qwen2_vl")
    inputs = maker(answers=(2, 1))
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    answer = inputs["labels"] != -100
    other["input_ids"][answer] = (inputs["input_ids"][answer] - 8 + 5) % 40 + 8
    one, two = (realizer.soft_forward(**each, temperature=1.0).scores for each in (inputs, other))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_selector_without_scores_cannot_be_trained():
    model, maker = tiny("qwen2_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    with pytest.raises(VisionError, match="RandomTokens cannot be trained"):
        realizer.soft_forward(**maker(), temperature=1.0)


def test_attention_without_an_additive_mask_is_refused(monkeypatch):
    realizer, maker = opened("qwen2_vl")
    with monkeypatch.context() as patch:
        patch.setattr(realizer.model.config, "_attn_implementation_internal", "flex_attention")
        with pytest.raises(VisionError, match="it has flex_attention attention"):
            realizer.soft_forward(**maker(), temperature=1.0)
    monkeypatch.setattr(
        realizer.model.config.text_config, "layer_types", ["full_attention", "sliding_attention"]
    )
    with pytest.raises(VisionError, match="layers of sliding_attention"):
        realizer.soft_forward(**maker(), temperature=1.0)
