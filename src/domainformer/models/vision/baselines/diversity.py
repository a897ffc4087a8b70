"""The most diverse subset of tokens, by farthest-point selection (DivPrune)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.models.vision.baselines.selector import Baseline, alike, token_budgets
from domainformer.models.vision.request import CompressionRequest, Selection


class MaxMinDiversity(Baseline):
    """Adds, one by one, the token whose nearest chosen token is farthest away (cosine distance).

    The first one is the token whose nearest neighbour in the image is farthest. Greedy, as in the
    paper: the max-min problem itself is NP-hard, and the greedy answer is within a factor of two.

    Source: Alvar et al. 2025, "DivPrune: Diversity-based Visual Token Pruning", section 3.

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> tokens = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2]])
        >>> images = ImageTokens((tokens,), ((2, 2),), (0,))
        >>> MaxMinDiversity().select(CompressionRequest(images, (), budgets=(2,))).kept
        (tensor([0, 2]),)
    """

    def select(self, request: CompressionRequest) -> Selection:
        """Choose a diverse subset of every image."""
        budgets = token_budgets(request, type(self).__name__)
        kept: dict[int, Tensor] = {}
        for members, k in alike(request, budgets):
            stacked = torch.stack([request.images.features[i] for i in members]).float()
            chosen = farthest_points(stacked, k)
            for place, index in enumerate(members):
                kept[index] = chosen[place]
        return Selection(kept=tuple(kept[i] for i in range(len(budgets))))


def farthest_points(tokens: Tensor, k: int) -> Tensor:
    """Farthest-point selection: ``[n, K, D]`` → ``[n, k]``, ascending; ties to the lower index."""
    n, count, _ = tokens.shape
    unit = functional.normalize(tokens, dim=-1)
    distance = 1 - unit @ unit.mT
    itself = torch.eye(count, dtype=torch.bool, device=tokens.device)
    nearest = distance.masked_fill(itself, torch.inf).amin(dim=-1)
    every = torch.arange(n, device=tokens.device)
    chosen = torch.empty(n, k, dtype=torch.long, device=tokens.device)
    for step in range(k):
        index = nearest.argmax(dim=-1)
        chosen[:, step] = index
        # The first choice is judged by its neighbours, all later ones by what is chosen.
        nearest = distance[every, index] if step == 0 else nearest.minimum(distance[every, index])
        nearest[every[:, None], chosen[:, : step + 1]] = -torch.inf
    return chosen.sort(dim=-1).values
