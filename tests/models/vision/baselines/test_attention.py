"""The attention rank, against the attentions that the eager model hands out itself."""

from dataclasses import replace

import pytest
import torch
from tests.models.vision.tiny import FAMILIES, IMAGE, tiny

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision import CompressionRequest
from domainformer.models.vision.baselines import AttentionRank, baseline
from domainformer.models.vision.realizer import RelevanceRealizer


def asked(family, *, attention="sdpa", **wishes):
    model, make_inputs = tiny(family, attention=attention)
    inputs = make_inputs(**wishes)
    return RelevanceRealizer(model, AttentionRank()).request(**inputs, budgets=3), inputs, model


def slow_scores(family, inputs, layer, last):
    """The whole eager model with ``output_attentions``, on the plain inputs."""
    model, _ = tiny(family, attention="eager")
    known = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        weights = model(**known, output_attentions=True).attentions[layer - 1]
    return [
        weights[row, :, column].mean(0)[inputs["input_ids"][row] == IMAGE]
        for row, column in enumerate(last)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [1, 2])
def test_scores_are_the_models_own_attention(family, layer):
    request, inputs, _ = asked(family)
    scores = AttentionRank(layer).scores(request)
    last = [inputs["input_ids"].shape[1] - 1] * 2  # padded on the left
    for ours, slow in zip(scores, slow_scores(family, inputs, layer, last), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_answer_is_not_seen(padding):
    """With the answer behind the question: the same scores as without it."""
    request, inputs, _ = asked("qwen2_vl", answers=(2, 1), padding=padding)
    changed = {
        **inputs,
        "input_ids": torch.where(inputs["labels"] != -100, 40, inputs["input_ids"]),
    }
    model, _ = tiny("qwen2_vl", attention="sdpa")
    other = RelevanceRealizer(model, AttentionRank()).request(**changed, budgets=3)
    for ours, others in zip(
        AttentionRank().scores(request), AttentionRank().scores(other), strict=True
    ):
        torch.testing.assert_close(ours, others)
    # Sabotage: without labels the last token is the answer, and the scores do change.
    unlabelled = [
        replace(each, inputs={**each.inputs, "labels": None}) for each in (request, other)
    ]
    first, second = (AttentionRank().scores(each) for each in unlabelled)
    assert not torch.allclose(first[0], second[0])


def test_images_of_one_row_are_told_apart():
    request, inputs, _ = asked("qwen2_vl", images=[[(2, 2), (2, 3)], [(3, 2)]])
    scores = AttentionRank().scores(request)
    assert [len(score) for score in scores] == [4, 6, 6]
    last = [inputs["input_ids"].shape[1] - 1] * 2
    slow = slow_scores("qwen2_vl", inputs, 2, last)
    torch.testing.assert_close(torch.cat(scores[:2]), slow[0], rtol=1e-4, atol=1e-6)


def test_the_model_stays_as_it_was():
    request, inputs, model = asked("qwen3_vl")
    model.train()
    with torch.no_grad():
        known = {name: value for name, value in inputs.items() if name != "labels"}
        before = model(**known).logits
        AttentionRank().scores(request)
        after = model(**known).logits
    assert torch.equal(before, after)
    assert model.get_decoder().config._attn_implementation == "sdpa"
    assert all(module.training for module in model.modules())


def test_what_it_refuses():
    request, _, model = asked("qwen2_vl")
    with pytest.raises(VisionError, match="has no layer 9"):
        baseline("attention_rank", layer=9).select(request)
    assert model.get_decoder().config._attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match="layer 0"):
        baseline("attention_rank", layer=0)
    with pytest.raises(VisionError, match="looks inside"):
        baseline("attention_rank").select(
            CompressionRequest(request.images, request.queries, budgets=request.budgets)
        )
