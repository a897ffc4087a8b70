"""The full model's own attention as a teacher: where in an image does it look for an answer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.models.vision.baselines import AttentionRank
from domainformer.models.vision.request import CompressionRequest


def shares_of_attention(request: CompressionRequest, layers: Sequence[int]) -> tuple[Tensor, ...]:
    """How the attention that the question's last token pays to each image is spread over it.

    The mean over the layers, each counting alike, however much of its attention stays with the
    text.

    Args:
        request: With its ``base`` and ``inputs``.
        layers: Counted from 1, or from -1 backwards.

    Returns:
        One ``[K_i]`` per image, summing to 1.
    """
    base: Any = request.base
    depth = len(base.model.get_decoder().layers)
    seen = [AttentionRank(n if n > 0 else depth + 1 + n).scores(request) for n in layers]
    shares = [[paid / paid.sum() for paid in layer] for layer in seen]
    return tuple(torch.stack(image).mean(0) for image in zip(*shares, strict=True))


def guidance_loss(
    scores: Sequence[Tensor], looked_at: Sequence[Tensor], *, centred: bool
) -> Tensor:
    """How far scores are from attention, the mean over images.

    ::

        KL(p ‖ softmax(s))  [ + (mean s)² ]

    The divergence leaves a shift of all scores free. Unless they are centred it wanders, and a
    dynamic budget, which keeps what is above 0, then starts from all tokens or from none.

    Args:
        scores: One ``[K_i]`` per image, with gradient.
        looked_at: One ``[K_i]`` per image, summing to 1.
        centred: Whether the mean score is held at 0.

    Example:
        >>> even = (torch.full((4,), 0.25),)
        >>> guidance_loss((torch.full((4,), 3.0),), even, centred=False)
        tensor(0.)
        >>> guidance_loss((torch.full((4,), 3.0),), even, centred=True)
        tensor(9.)
    """
    losses = []
    for score, attention in zip(scores, looked_at, strict=True):
        score = score.float()
        known = score.log_softmax(0)
        loss = functional.kl_div(known, attention.to(known), reduction="sum")
        losses.append(loss + score.mean().square() if centred else loss)
    return torch.stack(losses).mean()
