import numpy as np
import pytest
import torch

from domainformer.errors import VisionError
from domainformer.models.vision import (
    CompressorConfig,
    RelevanceCompressor,
    RelevanceRealizer,
    full_inputs,
    resolve_budgets,
)

from .oracles import LikeTheQuestion, RandomTokens, endless, full_positions, greedy, masked
from .tiny import FAMILIES, IMAGE, LLAVA_GRID, VIDEO, tiny

STEPS = 8


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request):
    model, maker = tiny(request.param)
    return endless(model), maker


def several(maker, **changes):
    """Three rows: two images, one, none."""
    sizes = [(4, 3), (2, 4), (3, 3)] if maker.mrope else [LLAVA_GRID] * 3
    images = [sizes[:2], sizes[2:], []]
    return maker(questions=(3, 5, 4), images=images, **changes), [2, 7, 4]


def spoken(realizer, inputs, budgets):
    """Greedy new tokens ``[B, T]`` and their logits ``[B, T, V]``."""
    output = realizer.generate(
        **inputs,
        budgets=budgets,
        max_new_tokens=STEPS,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return output.sequences, torch.stack(output.logits, 1)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_cached_generation_equals_an_uncached_greedy_loop(opened, padding):
    model, maker = opened
    inputs, budgets = several(maker, padding=padding)
    realizer = RelevanceRealizer(model, RandomTokens())
    tokens, logits = spoken(realizer, inputs, budgets)
    left, _ = several(maker, padding="left")
    kept = realizer.compress(**inputs, budgets=budgets).selection.kept
    wanted_tokens, wanted_logits = greedy(model, left, kept, STEPS)
    assert torch.equal(tokens, wanted_tokens)
    assert (logits - wanted_logits).abs().max() <= 1e-5


def test_the_greedy_loop_sees_compact_positions(opened):
    model, maker = opened
    inputs, budgets = several(maker)
    compact = RelevanceRealizer(model, RandomTokens(), positions="compact")
    kept = compact.compress(**inputs, budgets=budgets).selection.kept
    _, logits = spoken(compact, inputs, budgets)
    _, wanted = greedy(model, inputs, kept, STEPS)
    assert (logits[:2, 0] - wanted[:2, 0]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
        {"do_sample": True, "top_k": 1, "num_return_sequences": 2},
    ],
    ids=["static cache", "chunks", "samples"],
)
def test_every_way_of_generating_speaks_the_same(opened, options):
    model, maker = opened
    inputs, budgets = several(maker)
    realizer = RelevanceRealizer(model, RandomTokens())
    wanted, _ = spoken(realizer, inputs, budgets)
    got = realizer.generate(**inputs, budgets=budgets, max_new_tokens=STEPS, **options)
    assert torch.equal(got[:: options.get("num_return_sequences", 1)], wanted)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "qwen3_vl"])
def test_generation_through_embeddings_is_the_same(family):
    model, maker = tiny(family)
    endless(model)
    inputs, budgets = several(maker)
    routes = ("mm_encoder_outputs", "inputs_embeds")
    one, other = (
        RelevanceRealizer(model, RandomTokens(), route=route).generate(
            **inputs, budgets=budgets, max_new_tokens=STEPS
        )
        for route in routes
    )
    assert torch.equal(one, other)


def test_generation_without_a_cache_is_the_same_or_refused(opened):
    model, maker = opened
    inputs = maker(questions=(4,))
    realizer = RelevanceRealizer(model, RandomTokens())
    wanted = realizer.generate(**inputs, budgets=3, max_new_tokens=STEPS)
    if maker.mrope:
        got = realizer.generate(**inputs, budgets=3, max_new_tokens=STEPS, use_cache=False)
        assert torch.equal(got, wanted)
        return
    with pytest.raises(VisionError, match="without a cache"):
        realizer.generate(**inputs, budgets=3, max_new_tokens=STEPS, use_cache=False)
    # The twin: without the refusal, gaps between positions are taken for borders of documents.
    compressed = realizer.compress(**inputs, budgets=3)
    given = compressed.model_inputs(realizer.base)
    sequences = model.generate(**given, max_new_tokens=STEPS, use_cache=False)
    assert not torch.equal(sequences[:, compressed.input_ids.shape[1] :], wanted)


def test_beam_search_equals_beam_search_over_the_masked_full_sequence(opened):
    model, maker = opened
    inputs, budgets = several(maker)
    realizer = RelevanceRealizer(model, RandomTokens())
    options = {
        "num_beams": 3,
        "num_return_sequences": 2,
        "max_new_tokens": 5,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    got = realizer.generate(**inputs, budgets=budgets, **options)
    kept = realizer.compress(**inputs, budgets=budgets).selection.kept
    wanted = model.generate(**masked(model, inputs, kept), **options)
    assert torch.equal(got.sequences, wanted.sequences[:, inputs["input_ids"].shape[1] :])
    assert torch.allclose(got.sequences_scores, wanted.sequences_scores, atol=1e-5)
    # The twin: other tokens, other beams.
    other = RelevanceRealizer(model, RandomTokens(seed=1)).generate(
        **inputs, budgets=budgets, **options
    )
    assert not torch.allclose(got.sequences_scores, other.sequences_scores, atol=1e-5)


def test_beams_do_not_change_what_was_compressed(opened):
    model, maker = opened
    inputs, budgets = several(maker)
    realizer = RelevanceRealizer(model, RandomTokens())
    compressed = realizer.compress(**inputs, budgets=budgets, padding_side="left")
    first = realizer.run(compressed).logits
    model.generate(**compressed.model_inputs(realizer.base), num_beams=3, max_new_tokens=2)
    assert torch.equal(first, realizer.run(compressed).logits)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llava"])
def test_stale_rope_deltas_never_matter(family):
    model, maker = tiny(family)
    endless(model)
    inputs, budgets = several(maker)
    realizer = RelevanceRealizer(model, RandomTokens())

    def answers():
        new = realizer.generate(**inputs, budgets=budgets, max_new_tokens=STEPS)
        return realizer(**inputs, budgets=budgets).logits, new

    model.model.rope_deltas = None
    fresh = answers()
    model.model.rope_deltas = torch.full((3, 1), 50)
    stale = answers()
    assert all(torch.equal(one, other) for one, other in zip(fresh, stale, strict=True))
    assert (model.model.rope_deltas == 50).all()
    # The twin: where positions are left out, the state is read.
    embeddings = realizer.compress(**inputs, budgets=budgets).embeddings(realizer.base)
    model.model.rope_deltas[0] = 7
    first, second, _ = model(inputs_embeds=embeddings[[1, 1, 1]]).logits
    assert not torch.equal(first, second)


def test_a_later_turn_selects_anew_from_the_images_of_the_first(opened, monkeypatch):
    model, maker = opened
    first = maker(questions=(4, 3))
    second = maker(questions=(9, 6), seed=5)
    second["pixel_values"] = first["pixel_values"]
    realizer = RelevanceRealizer(model, LikeTheQuestion())
    wanted = realizer.generate(**second, max_new_tokens=STEPS)
    turn = realizer.compress(**first)
    for name in ("pixel_values", "image_grid_thw"):
        second.pop(name, None)

    def refuse(*args, **kwargs):
        raise RuntimeError("the tower ran again")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "get_image_features", refuse)
        got = realizer.generate(**second, images=turn.images, max_new_tokens=STEPS)
        again = realizer.compress(**second, images=turn.images)
        with pytest.raises(RuntimeError, match="ran again"):
            realizer.encode(**maker())
    assert torch.equal(got, wanted)
    pairs = zip(turn.selection.kept, again.selection.kept, strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)
    assert again.images.counts == turn.images.counts


def test_only_the_selector_trains_and_the_model_stays_in_evaluation(opened):
    model, _ = opened
    compressor = RelevanceCompressor(CompressorConfig(feature_size=32, width=16))
    realizer = RelevanceRealizer(model, compressor).train()
    trained = {id(each) for each in realizer.parameters() if each.requires_grad}
    assert trained == {id(each) for each in compressor.parameters() if each.requires_grad}
    assert compressor.training
    assert not any(module.training for module in model.modules())


def test_an_image_with_fewer_tokens_than_the_least_is_kept_whole(opened):
    model, maker = opened
    config = CompressorConfig(feature_size=32, width=16, min_tokens=64)
    compressed = RelevanceRealizer(model, RelevanceCompressor(config)).compress(**maker())
    assert compressed.selection.counts == compressed.images.counts


def test_what_a_selector_is_asked(opened):
    model, maker = opened
    inputs = maker(answers=(1, 2))
    relevant = (torch.tensor([0]), torch.tensor([1]))
    draw = torch.Generator()
    request = RelevanceRealizer(model, RandomTokens()).request(
        **inputs, budgets=[2, 0.5], relevant=relevant, generator=draw
    )
    counts = request.images.counts
    assert request.budgets == (2, counts[1] // 2)
    assert request.images.rows == (0, 1)
    assert [rows * columns for rows, columns in request.images.grids] == list(counts)
    assert torch.equal(request.inputs["position_ids"], full_positions(model, inputs))
    assert request.relevant == relevant
    assert request.generator is draw
    assert "pixel_values" in request.inputs


def test_videos_are_refused_clearly(opened):
    model, maker = opened
    realizer = RelevanceRealizer(model, RandomTokens())
    cases = [
        {**maker(), "pixel_values_videos": torch.zeros(1)},
        {**maker(), "video_grid_thw": torch.tensor([[2, 4, 4]])},
        {**maker(), "mm_token_type_ids": maker()["mm_token_type_ids"] * 2},
    ]
    if maker.mrope:
        cases.append(maker())
        cases[-1]["input_ids"][0, -1] = VIDEO
    for inputs in cases:
        for call in (realizer.compress, realizer.generate):
            with pytest.raises(VisionError, match="videos are not compressed"):
                call(**inputs)


def test_inputs_that_do_not_fit_together_are_refused(opened):
    model, maker = opened
    realizer = RelevanceRealizer(model, RandomTokens())
    inputs = maker()
    cut = {**inputs, "input_ids": inputs["input_ids"].clone()}
    cut["input_ids"][0, (inputs["input_ids"][0] == IMAGE).nonzero()[0]] = 9
    wrong = {
        "image placeholders stand for": cut,
        "there are no images": {"input_ids": inputs["input_ids"]},
        "there is no input 'budget'": {**inputs, "budget": 3},
        "attention_mask has the shape": {**inputs, "attention_mask": torch.ones(2, 3)},
        "there are 3 budgets": {**inputs, "budgets": [1, 2, 3]},
    }
    for message, given in wrong.items():
        with pytest.raises(VisionError, match=message):
            realizer.compress(**given)


def test_images_of_another_grid_than_given_are_refused():
    model, maker = tiny("qwen2_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    inputs = maker()
    images = realizer.encode(**inputs)
    inputs["image_grid_thw"] = inputs["image_grid_thw"][:, [0, 2, 1]]
    with pytest.raises(VisionError, match="does not describe the images"):
        realizer.compress(**inputs, images=images)


def test_a_prompt_with_its_answer_or_an_image_at_its_end_is_refused():
    model, maker = tiny("qwen2_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    with pytest.raises(VisionError, match="holds its answer"):
        realizer.generate(**maker(answers=(1, 1)), max_new_tokens=1)
    inputs = maker(questions=(3,))
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    text_first = torch.tensor([[1, 9, 10, 3] + [IMAGE] * 12])
    inputs |= dict(
        zip(
            names,
            (text_first, torch.ones_like(text_first), (text_first == IMAGE).long()),
            strict=True,
        )
    )
    with pytest.raises(VisionError, match="ends in an image"):
        realizer.generate(**inputs, max_new_tokens=1)


@pytest.mark.parametrize("name", ["position_ids", "attention_mask", "mm_encoder_outputs"])
def test_options_cannot_replace_what_was_shortened(name):
    model, maker = tiny("qwen2_vl")
    realizer = RelevanceRealizer(model, RandomTokens())
    for call in (realizer, realizer.generate, realizer.full_forward):
        with pytest.raises(VisionError, match=f"{name} cannot be an option"):
            call(**maker(), options={name: torch.zeros(1)})


@pytest.mark.parametrize("budget", [0, -1, 0.0, 1.5, [2, 0], "1/4", True, float("nan"), [2, None]])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(VisionError, match="is no budget"):
        resolve_budgets(budget, (4, 4))


def test_a_budget_over_what_there_is_keeps_all():
    assert resolve_budgets(99, (4, 6)) == (4, 6)
    assert resolve_budgets(0.01, (4, 600)) == (1, 6)
    assert resolve_budgets(torch.tensor([2, 3]), (4, 6)) == (2, 3)
    assert resolve_budgets([np.float32(0.5), np.int64(3)], (4, 6)) == (2, 3)


def test_unknown_position_policies_are_refused():
    model, _ = tiny("qwen2_vl")
    with pytest.raises(VisionError, match="no position policy 'middle'"):
        RelevanceRealizer(model, RandomTokens(), positions="middle")


def test_full_inputs_run_like_the_full_prompt(opened):
    model, maker = opened
    inputs, _ = several(maker)
    realizer = RelevanceRealizer(model, RandomTokens())
    full = full_inputs(realizer.base, realizer.request(**inputs))
    everything = realizer.compress(**inputs, budgets=1.0)
    there = inputs["attention_mask"].bool()
    one, other = realizer.run(full).logits, realizer.run(everything).logits
    assert (one - other)[there].abs().max() <= 1e-5
