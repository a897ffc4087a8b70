import copy
from dataclasses import replace

import pytest
import torch

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision import (
    CompressionRequest,
    CompressorConfig,
    ImageTokens,
    RelevanceCompressor,
    TokenSelector,
    kept_tokens,
    merge_dropped,
    top_tokens,
)

GRIDS = ((4, 4), (2, 3), (1, 5))


def request(*, budgets=None, deepstack=0, seed=0):
    chance = torch.Generator().manual_seed(seed)

    def of_every_image():
        return tuple(torch.randn(r * c, 16, generator=chance) for r, c in GRIDS)

    images = ImageTokens(
        of_every_image(), GRIDS, (0, 0, 1), tuple(of_every_image() for _ in range(deepstack))
    )
    queries = tuple(torch.randn(count, 12, generator=chance) for count in (5, 3, 8))
    return CompressionRequest(images, queries, budgets)


def compressor(**changes):
    values = {"feature_size": 16, "query_size": 12, "width": 16, "heads": 2, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RelevanceCompressor(CompressorConfig(**values))


def only(asked, index):
    images = asked.images
    return replace(
        asked,
        images=ImageTokens((images.features[index],), (images.grids[index],), (0,)),
        queries=(asked.queries[index],),
        budgets=None if asked.budgets is None else (asked.budgets[index],),
    )


def test_it_is_a_token_selector():
    assert isinstance(compressor(), TokenSelector)


def test_an_image_is_scored_as_if_alone():
    model, asked = compressor(), request()
    together = model.score(asked)
    for index in range(len(GRIDS)):
        alone = model.score(only(asked, index))
        assert torch.allclose(together.scores[index], alone.scores[0], atol=1e-4)
        assert torch.allclose(together.weights[index], alone.weights[0], atol=1e-5)


def test_given_budgets_are_obeyed_as_far_as_the_image_goes():
    selection = compressor().select(request(budgets=(3, 99, 1)))
    assert selection.counts == (3, 6, 1)
    for kept, scores, budget in zip(selection.kept, selection.scores, (3, 99, 1), strict=True):
        assert kept.tolist() == top_tokens(scores, budget).tolist()
    assert selection.features is None
    assert [sum(mixing.values()) for mixing in selection.mixing] == pytest.approx([1.0] * 3)


def test_every_budget_leaves_what_is_not_asked_for_to_context():
    model = compressor(context=0.5, min_tokens=4)
    plain = model.select(request(budgets=(6, 6, 3)))
    for kept, scores, budget in zip(plain.kept, plain.scores, (6, 6, 3), strict=True):
        assert kept.equal(kept_tokens(scores, budget, 0.5))
    dynamic = model.select(request())
    for kept, scores in zip(dynamic.kept, dynamic.scores, strict=True):
        assert kept.equal(kept_tokens(scores, len(kept), 0.5))
    assert plain.kept[0].tolist() != top_tokens(plain.scores[0], 6).tolist()


def test_dynamic_budgets_are_what_the_gate_leaves_open_within_bounds():
    model = compressor(min_tokens=2, max_tokens=7)
    selection = model.select(request())
    for kept, scores in zip(selection.kept, selection.scores, strict=True):
        opened = int((scores > 0).sum())
        assert len(kept) == min(max(opened, 2), 7, len(scores))
    assert compressor().select(request()).counts == (16, 6, 5)  # fewer than 64: kept whole


@pytest.mark.parametrize("rule", ["gate", "mass", "entropy"])
def test_every_rule_decides_for_itself(rule):
    counts = compressor(min_tokens=1, budget_rule=rule, share=0.5).select(request()).counts
    assert all(1 <= k <= r * c for k, (r, c) in zip(counts, GRIDS, strict=True))


def test_merging_gives_features_and_deepstack_of_the_kept():
    asked = request(budgets=(4, 3, 2), deepstack=2)
    selection = compressor(merge=True).select(asked)
    for index, kept in enumerate(selection.kept):
        layers = [layer[index] for layer in asked.images.deepstack]
        merged = merge_dropped(asked.images.features[index], kept, deepstack=layers)
        assert torch.equal(selection.features[index], merged.features)
        for layer in range(2):
            assert torch.equal(selection.deepstack[layer][index], merged.deepstack[layer])


def test_gradient_reaches_every_parameter():
    model = compressor()
    chance = torch.Generator().manual_seed(3)
    scores = torch.cat(model.score(request()).scores)
    (scores * torch.randn(scores.shape, generator=chance)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_the_control_has_the_same_network_and_no_question():
    asked, other = request(), request(seed=1)
    elsewhere = replace(asked, queries=other.queries)
    blind, seeing = compressor(use_query=False), compressor()
    for model, equal in ((blind, True), (seeing, False)):
        first, second = model.score(asked).scores[0], model.score(elsewhere).scores[0]
        assert torch.allclose(first, second, atol=1e-6) is equal
    added = {"scorers.coupling.query_encoder.constant", "balancer.constant"}
    assert set(blind.state_dict()) - set(seeing.state_dict()) == added
    empty = replace(asked, queries=tuple(query[:0] for query in asked.queries))
    assert blind.select(empty).counts == (16, 6, 5)


@pytest.mark.parametrize("scorers", [("coupling",), ("information", "salience")])
def test_any_of_the_scorers_will_do(scorers):
    selection = compressor(scorers=scorers).select(request(budgets=(2, 2, 2)))
    assert selection.counts == (2, 2, 2)
    assert tuple(selection.mixing[0]) == scorers


def test_a_saved_state_scores_alike():
    model = compressor()
    config = CompressorConfig.from_json(model.config.to_json())
    again = RelevanceCompressor(config)
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    assert config == model.config
    first, second = (torch.cat(each.score(request()).scores) for each in (model, again))
    assert torch.equal(first, second)


def test_half_precision_features_are_scored_in_the_compressors_own_precision():
    asked = request()
    halves = ImageTokens(tuple(x.bfloat16() for x in asked.images.features), GRIDS, (0, 0, 1))
    scored = compressor().score(replace(asked, images=halves))
    assert {scores.dtype for scores in scored.scores} == {torch.float32}
    model = compressor().to(torch.bfloat16)
    assert all(torch.isfinite(scores).all() for scores in model.score(asked).scores)


def test_the_size_is_that_of_a_small_network():
    model = RelevanceCompressor(CompressorConfig(feature_size=128))
    assert 50_000 < sum(parameter.numel() for parameter in model.parameters()) < 120_000


def test_contradicting_requests_are_refused():
    model, asked = compressor(), request()
    with pytest.raises(VisionError, match="one grid, question and budget per image"):
        model.score(replace(asked, budgets=(1, 2)))
    with pytest.raises(VisionError, match="no word"):
        model.score(replace(asked, queries=(*asked.queries[:2], torch.zeros(0, 12))))
    with pytest.raises(VisionError, match=r"question's embeddings do not fit[\s\S]*image 0"):
        model.score(replace(asked, queries=(torch.zeros(3, 11), *asked.queries[1:])))
    wrong = ImageTokens(asked.images.features, ((4, 4), (3, 3), (1, 5)), (0, 0, 1))
    with pytest.raises(VisionError, match=r"do not fit its grid[\s\S]*image 1"):
        model.score(replace(asked, images=wrong))
    broken = (asked.images.features[0] * torch.nan, *asked.images.features[1:])
    with pytest.raises(VisionError, match="not finite"):
        model.select(replace(asked, images=ImageTokens(broken, GRIDS, (0, 0, 1))))
    with pytest.raises(VisionError, match="no tokens"):
        model.select(replace(asked, budgets=(1, 0, 1)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"feature_size": 0}, "feature_size must be at least 1"),
        ({"feature_size": 8, "scorers": ["coupling", "couplin"]}, "did you mean 'coupling'"),
        ({"feature_size": 8, "scorers": []}, "at least one scorer"),
        ({"feature_size": 8, "scorers": ["salience", "salience"]}, "each once"),
        ({"feature_size": 8, "min_token": 3}, "did you mean 'min_tokens'"),
        ({"feature_size": 8, "min_tokens": 500}, "min_tokens ≤ max_tokens"),
        ({"feature_size": 8, "budget_rule": "guess"}, "no budget rule"),
        ({"feature_size": 8, "context": 1.1}, "context is a share of the best"),
        ({"width": 64}, "must tell feature_size"),
    ],
)
def test_impossible_configurations_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        CompressorConfig.from_dict(values)
    with pytest.raises(ConfigError, match="not JSON"):
        CompressorConfig.from_json("{")
