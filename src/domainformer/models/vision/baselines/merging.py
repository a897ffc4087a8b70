"""Token merging by bipartite soft matching (ToMe)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.models.vision.baselines.selector import Baseline, alike, token_budgets
from domainformer.models.vision.request import CompressionRequest, Selection


class TokenMerging(Baseline):
    """Merges the most similar pairs, round by round, until the budget is met.

    In each round the tokens are dealt in turn to two sets, A and B; every token of A looks for the
    most similar (cosine) in B, and the r best pairs merge, weighted by how many tokens each side
    already stands for, with r at most half of the tokens left. A merged token keeps the place of
    its member in B. The features are the tower's output (the paper merges the keys inside a tower,
    a few per layer; a frozen tower of any family does not let one).

    Source: Bolya et al. 2023, "Token Merging: Your ViT But Faster", section 3.

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> tokens = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 3.0]])
        >>> images = ImageTokens((tokens,), ((2, 2),), (0,))
        >>> TokenMerging().select(CompressionRequest(images, (), budgets=(3,))).features[0]
        tensor([[1.0000, 0.0000],
                [1.0000, 0.1000],
                [0.0000, 2.0000]])
    """

    def select(self, request: CompressionRequest) -> Selection:
        """Merge every image down to its budget."""
        images = request.images
        budgets = token_budgets(request, type(self).__name__)
        kept: dict[int, Tensor] = {}
        owners: dict[int, Tensor] = {}
        for members, k in alike(request, budgets):
            homes, owner = match(torch.stack([images.features[i] for i in members]), k)
            for place, index in enumerate(members):
                kept[index], owners[index] = homes[place], owner[place]
        order = range(len(budgets))

        def merge(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(
                cluster_means(parts[i][None], owners[i][None], len(kept[i]))[0] for i in order
            )

        return Selection(
            kept=tuple(kept[i] for i in order),
            features=merge(images.features),
            deepstack=tuple(merge(layer) for layer in images.deepstack) or None,
        )


def match(tokens: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Which cluster every token ends in: ``[n, K, D]`` → homes ``[n, k]``, owner ``[n, K]``.

    Args:
        tokens: features of n images with K tokens each.
        k: clusters to end with.

    Returns:
        The index at which each cluster stands (ascending), and the cluster of each token.
    """
    n, count, _ = tokens.shape
    homes = torch.arange(count, device=tokens.device).expand(n, count)
    owner = homes
    while (left := homes.shape[1]) > k:
        means = functional.normalize(cluster_means(tokens.float(), owner, left), dim=-1)
        similar, partner = (means[:, 0::2] @ means[:, 1::2].mT).max(dim=-1)
        merges = min(left // 2, left - k)
        leaving = similar.topk(merges, dim=-1).indices  # positions within A
        target = torch.arange(left, device=tokens.device).repeat(n, 1)
        target.scatter_(1, 2 * leaving, 2 * partner.gather(1, leaving) + 1)
        stays = torch.ones_like(target, dtype=torch.bool).scatter_(1, 2 * leaving, False)
        position = stays.cumsum(dim=1) - 1
        owner = position.gather(1, target).gather(1, owner)
        homes = homes[stays].reshape(n, left - merges)
    return homes, owner


def cluster_means(tokens: Tensor, owner: Tensor, clusters: int) -> Tensor:
    """The mean of each cluster's members, which is what size-weighted merging arrives at.

    Args:
        tokens: ``[n, K, D]``.
        owner: ``[n, K]``, the cluster of each token.
        clusters: how many there are.
    """
    n, _, width = tokens.shape
    index = owner[..., None].expand_as(tokens)
    sums = tokens.new_zeros(n, clusters, width).scatter_add_(1, index, tokens)
    sizes = tokens.new_zeros(n, clusters).scatter_add_(1, owner, torch.ones_like(tokens[..., 0]))
    return sums / sizes[..., None]
