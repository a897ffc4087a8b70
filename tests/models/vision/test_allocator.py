import pytest
import torch

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.allocator import TokenAllocator, top_tokens


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


def test_bounds_hold_per_image():
    allocator = TokenAllocator(min_tokens=3, max_tokens=5)
    scores = [torch.arange(9.0), torch.arange(9.0), torch.arange(9.0), torch.arange(2.0)]
    kept = allocator(scores, [1, 4, 9, 1])
    assert [len(each) for each in kept] == [3, 4, 5, 2]
    assert kept[0].tolist() == [6, 7, 8]


def test_what_is_refused():
    with pytest.raises(VisionError, match="no tokens"):
        top_tokens(torch.zeros(3), 0)
    with pytest.raises(VisionError, match="1 budgets for 2 images"):
        TokenAllocator()([torch.zeros(3), torch.zeros(3)], [1])
    for bounds in ((0, 4), (5, 4)):
        with pytest.raises(ConfigError, match="1 ≤ min_tokens ≤ max_tokens"):
            TokenAllocator(*bounds)
