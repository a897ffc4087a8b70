"""Answers in a batch: where they stand, what they cost, how many were right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from domainformer.models.vision import ImageTokens
from domainformer.training.vision.collator import NO_TARGET


@dataclass(frozen=True)
class Judged:
    """How a batch was answered after tokens were dropped.

    Args:
        correct: Questions whose whole answer is the model's first choice, token by token: those
            that greedy generation would answer exactly.
        questions: Questions in all.
        loss: Cross-entropy, summed over the tokens of all answers.
        targets: Tokens of all answers.
        kept: Image tokens kept.
        tokens: Image tokens in all.
    """

    correct: int
    questions: int
    loss: float
    targets: int
    kept: int
    tokens: int


def tokens_of(images: ImageTokens, share: float) -> tuple[int, ...]:
    """Tokens to keep of each image for a share of them; at least one.

    Example:
        >>> images = ImageTokens((torch.zeros(36, 4), torch.zeros(4, 4)), ((6, 6), (2, 2)), (0, 1))
        >>> tokens_of(images, 1 / 9)
        (4, 1)
    """
    return tuple(max(1, min(count, round(share * count))) for count in images.counts)


def at_answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, ids and rows of the batch at the predictions of answers.

    Args:
        logits: ``[B, T, V]`` of the last T ≤ S positions.
        labels: ``[B, S]``; a position is predicted by the one before it.

    Returns:
        ``[A, V]``, ``[A]``, ``[A]``.

    Example:
        >>> found, wanted, rows = at_answers(torch.zeros(1, 2, 9), torch.tensor([[-100, -100, 7]]))
        >>> found.shape, wanted.tolist(), rows.tolist()
        (torch.Size([1, 9]), [7], [0])
    """
    wanted = labels[:, labels.shape[1] - logits.shape[1] + 1 :]
    rows, places = (wanted != NO_TARGET).nonzero(as_tuple=True)
    return logits[rows, places], wanted[rows, places], rows


def per_row(losses: Tensor, rows: Tensor, count: int) -> Tensor:
    """The mean of what belongs to each row of a batch, ``[count]``; 0 for a row without any.

    Args:
        losses: ``[A]``.
        rows: ``[A]`` int64, whose each is.
        count: Rows in all.

    Example:
        >>> per_row(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 3).tolist()
        [2.0, 0.0, 5.0]
    """
    sums = losses.new_zeros(count).index_add_(0, rows, losses)
    return sums / torch.bincount(rows, minlength=count).clamp_min(1)
