import dataclasses
import random

import pytest
import torch
from torch.nn import functional

from domainformer.errors import VisionError
from domainformer.models.vision import (
    RelevanceRealizer,
    Selection,
    VisionBase,
    full_inputs,
    realize,
)

from .oracles import RandomTokens, masked_logits, short_logits, worst
from .tiny import FAMILIES, IMAGE, LLAVA_GRID, PAD, tiny

ROUTES = [(family, "mm_encoder_outputs") for family in FAMILIES] + [
    (family, "inputs_embeds") for family in FAMILIES if family != "qwen3_vl"
]
BATCHES = {
    "one image each": {"budgets": (3, 6)},
    "two, one, none": {"questions": (3, 5, 4), "budgets": (2, 7, 4)},
}


def batch(maker, name, **changes):
    """Inputs and budgets of one of the batches."""
    case = dict(BATCHES[name])
    budgets = case.pop("budgets")
    if name == "two, one, none":
        sizes = [(4, 3), (2, 4), (3, 3)] if maker.mrope else [LLAVA_GRID] * 3
        case["images"] = [sizes[:2], sizes[2:], []]
    return maker(**case, **changes), list(budgets)


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request):
    return tiny(request.param)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(("family", "route"), ROUTES)
def test_dropping_equals_masking_in_the_full_sequence(family, route, name, padding):
    model, maker = tiny(family)
    inputs, budgets = batch(maker, name, padding=padding)
    realizer = RelevanceRealizer(model, RandomTokens(), route=route)
    compressed = realizer.compress(**inputs, budgets=budgets)
    got = short_logits(realizer.run(compressed).logits, compressed)
    wanted = masked_logits(model, inputs, compressed.selection.kept)
    assert compressed.selection.counts == tuple(budgets)
    assert worst(got, wanted) <= 1e-5
    assert wanted[0].std() > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_dropping_equals_masking_for_any_batch(opened, seed):
    model, maker = opened
    draw = random.Random(seed)
    sizes = [(1, 1), (1, 5), (4, 2), (5, 5)] if maker.mrope else [LLAVA_GRID]
    rows = draw.randint(1, 3)
    images = [[draw.choice(sizes) for _ in range(draw.randint(0, 2))] for _ in range(rows)]
    images[0].append(sizes[-1])
    questions = [draw.randint(1, 6) for _ in range(rows)]
    inputs = maker(images=images, questions=questions, seed=seed)
    for name, fill in (("input_ids", PAD), ("attention_mask", 0), ("mm_token_type_ids", 0)):
        inputs[name] = functional.pad(inputs[name], (1, 2), value=fill)  # on both sides
    realizer = RelevanceRealizer(model, RandomTokens(seed))
    budgets = [draw.randint(1, count) for count in realizer.encode(**inputs).counts]
    compressed = realizer.compress(**inputs, budgets=budgets)
    got = short_logits(realizer.run(compressed).logits, compressed)
    assert worst(got, masked_logits(model, inputs, compressed.selection.kept)) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_half_precision(family):
    model, maker = tiny(family)
    realizer = RelevanceRealizer(model.to(torch.bfloat16), RandomTokens())
    inputs = maker()
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    compressed = realizer.compress(**inputs, budgets=3)
    assert compressed.features[0].dtype == torch.bfloat16
    got = short_logits(realizer.run(compressed).logits.float(), compressed)
    wanted = masked_logits(model, inputs, compressed.selection.kept)
    assert worst(got, [row.float() for row in wanted]) <= 0.1


def test_sdpa_and_a_batch_without_masks_agree_too(opened):
    _, maker = opened
    model, _ = tiny(maker.family, attention="sdpa")
    inputs = maker(questions=(4, 4), images=[maker.grids(1)[0]] * 2)
    realizer = RelevanceRealizer(model, RandomTokens())
    bare = {name: value for name, value in inputs.items() if name != "attention_mask"}
    compressed = realizer.compress(**bare, budgets=5)
    got = short_logits(realizer.run(compressed).logits, compressed)
    assert worst(got, masked_logits(model, inputs, compressed.selection.kept)) <= 1e-5


def compacted(compressed):
    """Sabotage: positions counted anew over what is left."""
    text = (compressed.attention_mask.cumsum(-1) - 1).clamp(min=0)
    return dataclasses.replace(
        compressed, position_ids=text.expand_as(compressed.position_ids).clone()
    )


def misplaced(compressed):
    """Sabotage: the features of the first tokens, at the places of those that were kept."""
    first = tuple(
        full[: len(kept)]
        for full, kept in zip(compressed.images.features, compressed.selection.kept, strict=True)
    )
    return dataclasses.replace(compressed, features=first)


def seen_padding(compressed):
    """Sabotage: padding is not masked."""
    return dataclasses.replace(
        compressed, attention_mask=torch.ones_like(compressed.attention_mask)
    )


@pytest.mark.parametrize("sabotage", [compacted, misplaced, seen_padding])
def test_the_equality_sees_sabotage(opened, sabotage):
    model, maker = opened
    inputs, budgets = batch(maker, "one image each")
    realizer = RelevanceRealizer(model, RandomTokens())
    compressed = realizer.compress(**inputs, budgets=budgets)
    kept = compressed.selection.kept
    logits = realizer.run(sabotage(compressed)).logits
    assert worst(short_logits(logits, compressed), masked_logits(model, inputs, kept)) > 1e-3


def test_the_equality_sees_ungathered_deepstack():
    model, maker = tiny("qwen3_vl")
    inputs, budgets = batch(maker, "one image each")
    realizer = RelevanceRealizer(model, RandomTokens())
    compressed = realizer.compress(**inputs, budgets=budgets)
    assert len(compressed.deepstack) == 1
    first = tuple(
        tuple(full[:budget] for full, budget in zip(layer, budgets, strict=True))
        for layer in compressed.images.deepstack
    )
    wrong = dataclasses.replace(compressed, deepstack=first)
    kept = compressed.selection.kept
    got = short_logits(realizer.run(wrong).logits, compressed)
    assert worst(got, masked_logits(model, inputs, kept)) > 1e-3


def test_the_compact_policy_is_the_sabotage_that_it_says(opened):
    model, maker = opened
    inputs, budgets = batch(maker, "one image each")
    compact = RelevanceRealizer(model, RandomTokens(), positions="compact")
    original = RelevanceRealizer(model, RandomTokens())
    one = compact.compress(**inputs, budgets=budgets)
    other = compacted(original.compress(**inputs, budgets=budgets))
    assert torch.equal(one.position_ids, other.position_ids)


def test_keeping_all_is_the_full_model(opened):
    model, maker = opened
    inputs = maker(padding="right", answers=(2, 1))
    realizer = RelevanceRealizer(model, RandomTokens())
    names = ("pixel_values", "image_grid_thw", "input_ids", "attention_mask", "labels")
    names += ("mm_token_type_ids",) * maker.mrope
    with torch.no_grad():
        wanted = model(**{name: inputs[name] for name in names if name in inputs})
    for got in (realizer.full_forward(**inputs), realizer(**inputs, budgets=1.0)):
        assert float((got.loss - wanted.loss).abs()) <= 1e-5
        there = inputs["attention_mask"].bool()
        assert float((got.logits - wanted.logits)[there].abs().max()) <= 1e-5


def test_labels_are_shortened_with_their_tokens(opened):
    model, maker = opened
    inputs = maker(answers=(2, 1), padding="left")
    compressed = RelevanceRealizer(model, RandomTokens()).compress(**inputs, budgets=[2, 5])
    answer = compressed.labels != -100
    assert torch.equal(compressed.labels[answer], inputs["labels"][inputs["labels"] != -100])
    assert torch.equal(compressed.labels[answer], compressed.input_ids[answer])
    assert (compressed.labels[compressed.attention_mask == 0] == -100).all()


def test_columns_tell_where_each_token_comes_from(opened):
    model, maker = opened
    inputs = maker(padding="right")
    compressed = RelevanceRealizer(model, RandomTokens()).compress(**inputs, budgets=[2, 5])
    for row, columns in enumerate(compressed.columns):
        there = columns >= 0
        came = inputs["input_ids"][row, columns[there]]
        assert torch.equal(compressed.input_ids[row, there], came)
        assert (compressed.input_ids[row, ~there] == PAD).all()
        assert (columns[there].diff() > 0).all()
    per_row = (compressed.input_ids == IMAGE).sum(-1).tolist()
    assert per_row == [2, 5]


def test_features_that_a_selector_changed_are_used():
    model, maker = tiny("qwen3_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    request = realizer.request(**maker(), budgets=3)
    kept = RandomTokens().select(request).kept
    features = tuple(torch.zeros(3, 32) for _ in kept)
    layers = (tuple(torch.ones(3, 32) for _ in kept),)
    compressed = realize(realizer.base, request, Selection(kept, features, layers))
    assert all((feature == 0).all() for feature in compressed.features)
    assert all((feature == 1).all() for feature in compressed.deepstack[0])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (([1, 0], [0]), "ascend"),
        (([0, 0], [0]), "ascend"),
        (([0, 99], [0]), "ascend"),
        (([-1, 2], [0]), "ascend"),
        (([], [0]), "no token of image 0"),
        (([0],), "1 images of 2"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(kept, message):
    model, maker = tiny("qwen2_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    request = realizer.request(**maker())
    selection = Selection(tuple(torch.tensor(each, dtype=torch.long) for each in kept))
    with pytest.raises(VisionError, match=message):
        realize(realizer.base, request, selection)


def test_missing_or_misshapen_positions_of_the_short_sequence_are_an_error(opened):
    model, maker = opened
    realizer = RelevanceRealizer(model, RandomTokens())
    compressed = realizer.compress(**maker())
    for positions in (None, compressed.position_ids[..., :-1], compressed.position_ids[None]):
        with pytest.raises(VisionError, match="a position for every token"):
            dataclasses.replace(compressed, position_ids=positions)
    request = realizer.request(**maker())
    del request.inputs["position_ids"]
    with pytest.raises(VisionError, match="positions of the full sequence are missing"):
        realize(realizer.base, request, RandomTokens().select(request))


def test_positions_of_the_other_kind_are_an_error():
    model, maker = tiny("qwen2_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    compressed = realizer.compress(**maker())
    flat = dataclasses.replace(compressed, position_ids=compressed.position_ids[0])
    with pytest.raises(VisionError, match="needs M-RoPE positions"):
        realizer.run(flat)
    # The twin: the model itself takes them without a word, and answers otherwise.
    given = {**compressed.model_inputs(realizer.base), "position_ids": flat.position_ids}
    assert (model(**given).logits - realizer.run(compressed).logits).abs().max() > 1e-3


def test_flash_attention_is_refused_where_gaps_would_split_documents(monkeypatch):
    model, maker = tiny("llava")
    realizer = RelevanceRealizer(model, RandomTokens())
    compressed = realizer.compress(**maker())
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(VisionError, match="flash_attention_2 cannot be used"):
        realizer.run(compressed)


def test_full_inputs_keep_the_columns(opened):
    model, maker = opened
    inputs = maker(padding="right")
    realizer = RelevanceRealizer(model, RandomTokens())
    full = full_inputs(VisionBase.probe(model), realizer.request(**inputs))
    assert torch.equal(full.input_ids, inputs["input_ids"])
    assert torch.equal(full.columns >= 0, inputs["attention_mask"].bool())
