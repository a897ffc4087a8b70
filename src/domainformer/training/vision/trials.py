"""What further tokens are worth: budgets are tried by dropping, and the scores are told.

::

    tokens ranked by score   ■ | ■ ■ | ■ ■ ■ ■ | ■ ■ ■ ■ ■ ■ ■ ■     four budgets tried
    cost of keeping so many  C₁  C₂     C₃            C₄             cross-entropy + price · tokens
    worth of a band              C₁−C₂  C₂−C₃         C₃−C₄

A dynamic budget keeps the tokens whose score is above 0. So the scores of a band rise where the
band is worth its price, and fall where it is not::

    loss = Σ_t σ(mean score of band t) · (C_t − C_{t−1})

which is the expected cost if each band were kept with that probability. No gradient passes the
language model: a gate tells of the tokens at its edge alone, and of many needed tokens that are
all dropped, each alone is worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def trial_loss(scores: Tensor, tokens: Sequence[int], costs: Tensor) -> Tensor:
    """The expected cost of one image's budget, up to a constant.

    Args:
        scores: ``[K]`` of its tokens, with gradient.
        tokens: T budgets that were tried, ascending; equal ones count once.
        costs: ``[T]``, of keeping so many tokens.

    Returns:
        A scalar in the unit of the costs; 0 where nothing but one budget was tried.

    Example:
        >>> import torch
        >>> scores = torch.tensor([2.0, 0.1, 0.0, -0.1], requires_grad=True)
        >>> trial_loss(scores, [1, 4], torch.tensor([3.0, 0.5])).backward()
        >>> bool((scores.grad[1:] < 0).all()), float(scores.grad[0])  # descent raises the three
        (True, 0.0)
    """
    ranked = scores.sort(descending=True, stable=True).values
    loss = scores.new_zeros(())
    for index in range(1, len(tokens)):
        band = ranked[tokens[index - 1] : tokens[index]]
        if len(band):
            loss = loss + band.mean().sigmoid() * (costs[index] - costs[index - 1]).to(loss)
    return loss
