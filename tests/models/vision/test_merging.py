import torch
from torch.nn import functional as F

from domainformer.models.vision.merging import merge_dropped


def slow_merge(features, kept, layers, sizes):
    """Token by token."""
    groups = {int(token): [int(token)] for token in kept}
    for token in range(len(features)):
        if token not in groups:
            nearest = max(
                kept.tolist(),
                key=lambda other: float(
                    F.cosine_similarity(features[token], features[other], dim=0)
                ),
            )
            groups[nearest].append(token)
    means = [
        torch.stack(
            [
                sum(sizes[i] * values[i] for i in group) / sum(sizes[i] for i in group)
                for group in groups.values()
            ]
        )
        for values in (features, *layers)
    ]
    return means, torch.stack([sum(sizes[i] for i in group) for group in groups.values()])


def test_merging_is_that_of_a_walk_over_the_tokens():
    chance = torch.Generator().manual_seed(0)
    features, layer = torch.randn(2, 15, 6, generator=chance)
    sizes = torch.randint(1, 4, (15,), generator=chance).float()
    kept = torch.tensor([1, 4, 9, 14])
    merged = merge_dropped(features, kept, deepstack=[layer], sizes=sizes)
    (expected, expected_layer), expected_sizes = slow_merge(features, kept, [layer], sizes)
    assert torch.allclose(merged.features, expected, atol=1e-6)
    assert torch.allclose(merged.deepstack[0], expected_layer, atol=1e-6)
    assert torch.equal(merged.sizes, expected_sizes)


def test_keeping_everything_changes_nothing_even_with_equal_tokens():
    features = torch.ones(5, 3)
    merged = merge_dropped(features, torch.arange(5))
    assert torch.equal(merged.features, features)
    assert torch.equal(merged.sizes, torch.ones(5))
