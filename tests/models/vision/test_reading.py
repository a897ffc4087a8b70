"""Reading in one product equals reading one by one, and steps aside where it would not."""

import copy

import pytest
import torch
from torch import nn

from domainformer.models.vision import (
    CompressionRequest,
    CompressorConfig,
    ImageTokens,
    RelevanceCompressor,
)
from domainformer.models.vision.reading import Normed, Projected, read_each, read_together


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reads_of(size=48):
    """Two of one matrix, one of another, two networks; all weights and biases far from default."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norms, linears = [nn.LayerNorm(size) for _ in "ab"], [nn.Linear(size, c) for c in (5, 8)]
        for norm in norms:
            nn.init.normal_(norm.weight, 1.0, 0.5)
            nn.init.normal_(norm.bias)
    matrix = drawn(size, 4, seed=1)
    return [
        Projected(matrix),
        Normed(norms[0], linears[0]),
        Projected(matrix.clone()),
        Projected(drawn(size, 3, seed=2)),
        Normed(norms[1], linears[1]),
    ]


def worst(found, expected):
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_one_product_reads_what_each_reads_by_itself(scale):
    reads = reads_of()
    features = scale * (drawn(2, 9, 48) + 2.0 * drawn(2, 9, 1, seed=3).tanh())
    found, expected = read_together(features, reads), read_each(features, reads)
    assert found is not None
    assert [part.shape for part in found] == [part.shape for part in expected]
    assert worst(found, expected) < 1e-5 * max(1.0, scale)


@torch.no_grad()
def test_the_comparison_would_notice_a_norm_whose_mean_stayed_in_the_matrix():
    reads = reads_of()[1:2]
    features = drawn(2, 9, 48) + 2.0
    folded = reads[0].folded()
    weight = reads[0].linear.weight * reads[0].norm.weight
    scale = (features.var(-1, correction=0, keepdim=True) + folded.epsilon).rsqrt()
    wrong = features @ weight.mT * scale + folded.bias
    right = features @ folded.weight.mT * scale + folded.bias
    expected = read_each(features, reads)
    assert worst([right], expected) < 1e-5
    assert worst([wrong], expected) > 1e-2


@torch.no_grad()
def test_a_mean_that_hides_the_variance_is_read_one_by_one():
    reads = reads_of()
    assert read_together(drawn(2, 9, 48) + 1000.0, reads) is None
    assert read_together(torch.ones(1, 1, 48), reads) is None
    assert read_together(torch.zeros(1, 1, 48), reads) is not None
    one_of_many = drawn(2, 9, 48)
    one_of_many[1, 3] += 1000.0
    assert read_together(one_of_many, reads) is None


@torch.no_grad()
def test_features_that_are_not_finite_stay_so():
    features = drawn(1, 4, 48)
    features[0, 1, 2], features[0, 2, 2] = torch.nan, torch.inf
    found = read_together(features, reads_of())
    if found is not None:
        assert not any(part[0, row].isfinite().any() for part in found[1::3] for row in (1, 2))


def test_gradient_lower_precision_and_other_layers_are_read_one_by_one():
    features, reads = drawn(1, 4, 48), reads_of()
    assert read_together(features, reads) is None
    with torch.no_grad():
        assert read_together(features, reads) is not None
        assert read_together(features.double(), reads) is None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert read_together(features, reads) is None
        wrapped = Normed(reads[1].norm, nn.Sequential(reads[1].linear))
        assert read_together(features, [reads[0], wrapped]) is None


def asked(grids, words):
    features = tuple(drawn(r * c, 32, seed=i) for i, (r, c) in enumerate(grids))
    queries = tuple(drawn(count, 12, seed=9 + i) for i, count in enumerate(words))
    images = ImageTokens(features, grids, (0,) * len(grids))
    return CompressionRequest(images, queries, budgets=(3,) * len(grids))


def compressor(**changes):
    config = CompressorConfig(feature_size=32, query_size=12, width=16, heads=2, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RelevanceCompressor(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0.0, 0.5)
    return model


@pytest.mark.parametrize("use_query", [True, False])
@pytest.mark.parametrize(
    ("grids", "words"),
    [
        (((4, 5),), (6,)),
        (((4, 5), (4, 5)), (6, 6)),
        (((4, 5), (2, 3), (1, 7)), (6, 6, 6)),
        (((4, 5), (4, 5), (4, 5)), (6, 2, 1)),
        (((1, 1),), (1,)),
    ],
)
def test_scores_are_the_same_with_gradient_and_without(grids, words, use_query):
    model, request = compressor(use_query=use_query), asked(grids, words)
    slow = model.score(request)
    with torch.no_grad():
        fast = model.score(request)
    for one, other in zip(slow.scores, fast.scores, strict=True):
        assert torch.allclose(one, other, atol=2e-5)
    assert torch.allclose(slow.weights, fast.weights, atol=1e-6)


@pytest.mark.parametrize("use_query", [True, False])
def test_images_of_one_grid_score_as_among_others(use_query):
    """Without padding a shorter way is taken: masks fall away, neighbours are pooled."""
    model = compressor(use_query=use_query)
    same = asked(((4, 5), (4, 5)), (6, 6))
    mixed = asked(((4, 5), (4, 5), (2, 3)), (6, 6, 4))
    for one, other in zip(model.score(same).scores, model.score(mixed).scores, strict=False):
        assert torch.allclose(one, other, atol=2e-5)


@torch.no_grad()
def test_nothing_is_remembered_when_weights_change():
    model, request = compressor(), asked(((4, 5),), (6,))
    before = model.score(request).scores[0]
    changed = copy.deepcopy(model)
    for parameter in changed.parameters():
        parameter.data.mul_(1.5)  # which autograd's version counter does not notice
    after = changed.score(request).scores[0]
    assert not torch.allclose(before, after, atol=1e-2)
    with torch.enable_grad():
        assert torch.allclose(changed.score(request).scores[0], after, atol=5e-5)


def test_what_inference_looked_at_first_trains_afterwards():
    """Tables of places are shared between calls, and must not stay inference tensors."""
    model, request = compressor(), asked(((3, 11), (2, 2)), (3, 2))
    with torch.inference_mode():
        fast = model.score(request).scores
    slow = model.score(request).scores
    sum(score.sum() for score in slow).backward()
    assert all(parameter.grad is not None for parameter in model.scorers.parameters())
    assert torch.allclose(fast[0], slow[0], atol=2e-5)
