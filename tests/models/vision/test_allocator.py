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


@pytest.mark.parametrize("context", [0.0, 0.3, 0.45, 0.9])
@pytest.mark.parametrize("count", [1, 2, 7, 39, 40, 99])
def test_context_takes_its_share_from_the_other_end_of_a_plain_sort(count, context):
    scores = torch.randperm(40, generator=torch.Generator().manual_seed(count)).float()
    ranked = slow_top(scores, 40)
    ranked.sort(key=lambda index: -float(scores[index]))
    lowest = int(context * count) if count < 40 else 0
    wanted = ranked[: min(count, 40) - lowest] + ranked[40 - lowest :]
    kept = kept_tokens(scores, count, context)
    assert kept.tolist() == sorted(wanted)
    assert len(set(kept.tolist())) == min(count, 40)
    assert TokenAllocator(1, 99, context)([scores], [count])[0].equal(kept)


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
    for context in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="share of a budget that is context"):
            TokenAllocator(context=context)
    with pytest.raises(VisionError, match="1 budgets for 2 images"):
        TokenAllocator()([torch.zeros(3), torch.zeros(3)], [1])
    for bounds in ((0, 4), (5, 4)):
        with pytest.raises(ConfigError, match="1 ≤ min_tokens ≤ max_tokens"):
            TokenAllocator(*bounds)
