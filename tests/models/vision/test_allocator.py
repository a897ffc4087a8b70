import pytest
import torch

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.allocator import TokenAllocator, kept_tokens, top_tokens


def slow_top(scores, count):
    ranked = sorted(range(len(scores)), key=lambda index: (-float(scores[index]), index))
    return sorted(ranked[:count])


@pytest.mark.parametrize("count", [1, 7, 40, 99])
def test_top_tokens_are_those_of_a_plain_sort_with_ties(count):
    chance = torch.Generator().manual_seed(count)
    scores = torch.randint(6, (40,), generator=chance).float()  # many ties
    kept = top_tokens(scores, count)
    assert kept.tolist() == slow_top(scores, count)
    assert kept.dtype == torch.int64


@pytest.mark.parametrize("context", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 39, 40, 99])
def test_what_is_far_from_the_best_gives_its_place_to_the_lowest(count, context):
    scores = torch.randn(40, generator=torch.Generator().manual_seed(count))
    odds = scores.double().exp()
    ranked = sorted(range(40), key=lambda index: -float(odds[index]))
    asked = [index for index in ranked if odds[index] >= context * odds.max()][:count]
    context_tokens = ranked[len(asked) :][::-1][: count - len(asked)]
    kept = kept_tokens(scores, count, context)
    assert kept.tolist() == sorted([*asked, *context_tokens])
    assert len(set(kept.tolist())) == min(count, 40)
    assert TokenAllocator(1, 99, context)([scores], [count])[0].equal(kept)


def test_equal_scores_are_all_asked_for():
    assert kept_tokens(torch.zeros(6), 4, 1.0).tolist() == [0, 1, 2, 3]


def test_bounds_hold_per_image():
    allocator = TokenAllocator(min_tokens=3, max_tokens=5)
    scores = [torch.arange(9.0), torch.arange(9.0), torch.arange(9.0), torch.arange(2.0)]
    kept = allocator(scores, [1, 4, 9, 1])
    assert [len(each) for each in kept] == [3, 4, 5, 2]
    assert kept[0].tolist() == [6, 7, 8]


def test_what_is_refused():
    with pytest.raises(VisionError, match="no tokens"):
        top_tokens(torch.zeros(3), 0)
    with pytest.raises(VisionError, match="no tokens"):
        kept_tokens(torch.zeros(3), 0, 0.5)
    for context in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="context is a share of the best"):
            TokenAllocator(context=context)
    with pytest.raises(VisionError, match="1 budgets for 2 images"):
        TokenAllocator()([torch.zeros(3), torch.zeros(3)], [1])
    for bounds in ((0, 4), (5, 4)):
        with pytest.raises(ConfigError, match="1 ≤ min_tokens ≤ max_tokens"):
            TokenAllocator(*bounds)
