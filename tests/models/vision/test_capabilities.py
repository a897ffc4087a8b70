from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from domainformer.errors import VisionError
from domainformer.models.vision import RelevanceRealizer, VisionBase, capabilities

from .oracles import RandomTokens, full_positions, image_counts
from .tiny import FAMILIES, IMAGE, LLAVA_GRID, tiny


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request):
    return tiny(request.param)


def test_abilities_are_found(opened):
    model, maker = opened
    base = VisionBase.probe(model)
    assert base.mrope == maker.mrope
    assert base.deepstack == (maker.family == "qwen3_vl")
    assert base.merge == (2 if maker.mrope else 1)
    assert base.route == "mm_encoder_outputs"
    assert base.image_token_id == IMAGE
    assert base.pad_token_id == 0
    assert base.feature_size == 32


def test_it_is_the_abilities_and_not_the_class(opened):
    model, maker = opened
    kind = type("Renamed", (type(model),), {})
    model = kind._from_config(model.config)
    assert VisionBase.probe(model).mrope == maker.mrope


def test_a_version_without_encoder_outputs_takes_embeddings(monkeypatch):
    model, _ = tiny("qwen2_vl")
    accepts = capabilities._accepts
    monkeypatch.setattr(
        capabilities, "_accepts", lambda m, name: name != "mm_encoder_outputs" and accepts(m, name)
    )
    assert VisionBase.probe(model).route == "inputs_embeds"
    with pytest.raises(VisionError, match="no place there"):
        VisionBase.probe(tiny("qwen3_vl")[0])


def without(model, name):
    """The same model, lacking one ability."""
    config = model.config
    if name == "image_token_id":
        parts = {"text_config": config.text_config, "vision_config": config.vision_config}
        model.config = SimpleNamespace(**parts)
    elif name == "causal":
        kind = type(model)

        def open_among_images(self, position_ids, inputs_embeds, token_type_ids):
            """Image tokens see each other."""

        model.__class__ = type(kind.__name__, (kind,), {"forward": open_among_images})
    elif name == "get_rope_index":
        model.model = nn.Identity()
        model.model.forward = lambda position_ids, inputs_embeds: None
    else:
        kind = type(model)
        hidden = property(lambda self: (_ for _ in ()).throw(AttributeError(name)))
        model.__class__ = type(kind.__name__, (kind,), {name: hidden})
    return model


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("image_token_id", "image_token_id in its configuration"),
        ("get_image_features", r"get_image_features \(a tower\)"),
        ("causal", "attention that is causal among image tokens"),
        ("get_rope_index", "get_rope_index, which its mrope_section asks for"),
    ],
)
def test_what_is_lacking_is_named(lacking, message):
    with pytest.raises(VisionError, match=message):
        VisionBase.probe(without(tiny("qwen2_vl")[0], lacking))


def test_models_without_sight_or_speech_are_refused():
    text = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = Qwen2Config(**text, num_attention_heads=1, num_key_value_heads=1)
    for model in (AutoModelForCausalLM.from_config(config), tiny("llava")[0].model, nn.ReLU()):
        with pytest.raises(VisionError, match=r"cannot be used[\s\S]*it lacks: "):
            RelevanceRealizer(model, RandomTokens())


def test_image_tokens_are_those_of_the_model(opened):
    model, maker = opened
    sizes = [(4, 3), (2, 4), (3, 3)] if maker.mrope else [LLAVA_GRID] * 3
    inputs = maker(questions=(2, 2, 2), images=[sizes[:1], [], sizes[1:]])
    base = VisionBase.probe(model)
    tokens = base.encode(inputs["pixel_values"], inputs.get("image_grid_thw"), inputs["input_ids"])
    names = ("pixel_values", "image_grid_thw")
    with torch.no_grad():
        wanted = model.get_image_features(**{n: inputs[n] for n in names if n in inputs})
    assert tokens.counts == tuple(image_counts(inputs))
    assert tokens.grids == tuple(sizes)
    assert tokens.rows == (0, 2, 2)
    assert all(map(torch.equal, tokens.features, wanted.pooler_output))
    assert len(tokens.deepstack) == base.deepstack
    if base.deepstack:
        assert all(map(torch.equal, tokens.deepstack[0], wanted.deepstack_features[0]))
    assert not any(feature.requires_grad for feature in tokens.features)


def test_a_tower_in_training_is_encoded_in_evaluation_and_left_as_it_was():
    model, maker = tiny("llava")
    tower = model.model.vision_tower
    for module in tower.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.5
    base, inputs = VisionBase.probe(model), maker()
    wanted = base.encode(inputs["pixel_values"], None, inputs["input_ids"])
    model.train()
    model.lm_head.eval()
    got = base.encode(inputs["pixel_values"], None, inputs["input_ids"])
    assert all(map(torch.equal, got.features, wanted.features))
    assert tower.training
    assert not model.lm_head.training


def test_an_image_of_many_frames_and_one_without_a_grid_are_refused():
    model, maker = tiny("qwen2_vl")
    base, inputs = VisionBase.probe(model), maker(questions=(2,))
    with pytest.raises(VisionError, match="the images have no grid"):
        base.encode(inputs["pixel_values"], None, inputs["input_ids"])
    frames = inputs["image_grid_thw"] * torch.tensor([2, 1, 1])
    pixels = inputs["pixel_values"].repeat(2, 1)
    with pytest.raises(VisionError, match="2 frames; videos are not compressed"):
        base.encode(pixels, frames)


@pytest.mark.parametrize("wrong", [(0, [torch.zeros(6, 32)]), [torch.zeros(5, 32)]])
def test_deepstack_features_in_another_layout_are_refused(wrong, monkeypatch):
    model, maker = tiny("qwen3_vl")
    base, inputs = VisionBase.probe(model), maker(questions=(2,), images=[[(2, 3)]])
    right = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    right.deepstack_features = [wrong]
    monkeypatch.setattr(type(model), "get_image_features", lambda self, pixel_values, **rest: right)
    with pytest.raises(VisionError, match="not one tensor per image"):
        base.encode(inputs["pixel_values"], inputs["image_grid_thw"])


def test_images_across_rows_are_refused():
    model, maker = tiny("qwen2_vl")
    base = VisionBase.probe(model)
    inputs = maker(images=[[(2, 3)], [(3, 4)]])
    swapped = inputs["image_grid_thw"].flip(0)
    with pytest.raises(VisionError, match="image 0 has 12 tokens, and row 0 has places for 6"):
        base.encode(inputs["pixel_values"], swapped, inputs["input_ids"])


@pytest.mark.parametrize("padding", ["left", "right"])
def test_positions_are_those_of_the_model(opened, padding):
    model, maker = opened
    inputs = maker(padding=padding)
    base = VisionBase.probe(model)
    ids, mask, grids = (
        inputs.get(name) for name in ("input_ids", "attention_mask", "image_grid_thw")
    )
    wanted = full_positions(model, inputs)
    assert torch.equal(base.rope_positions(ids, mask, grids), wanted)
    again = base.rope_positions(ids, mask, grids, position_ids=wanted)
    assert torch.equal(again, wanted)
