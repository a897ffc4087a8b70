"""How many tokens an image deserves: as many as its relevance is spread over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from domainformer.errors import ConfigError

BudgetRule = Literal["gate", "mass", "entropy"]


@dataclass(frozen=True)
class BudgetCalculator:
    """Tokens per image from how concentrated the relevance is.

    ::

        gate      #{k : σ(s_k) > ½}                     what the trained gate leaves open
        mass      the smallest set with a share p of softmax(s)
        entropy   exp(H(softmax(s))), rounded: the effective number of tokens

    One sharp peak asks for one token and equal scores for all of them (``mass``: a share p of
    all). The answer is at least 1 and at most K; limits on it are the allocator's.

    Args:
        rule: one of the three.
        share: p of the rule ``mass``, above 0 and at most 1.

    Raises:
        ConfigError: a rule of no such name, or a share outside.

    Example:
        >>> peaked, even = torch.tensor([9.0, 0.0, 0.0, 0.0]), torch.zeros(4)
        >>> rule = BudgetCalculator("entropy")
        >>> int(rule(peaked)), int(rule(even))
        (1, 4)
    """

    rule: BudgetRule = "gate"
    share: float = 0.9

    def __post_init__(self) -> None:
        if self.rule not in get_args(BudgetRule):
            raise ConfigError(
                f"there is no budget rule {self.rule!r}",
                next_step=f"choose one of: {', '.join(get_args(BudgetRule))}",
            )
        if not 0 < self.share <= 1:
            raise ConfigError(
                "the share of relevance to keep must be above 0 and at most 1",
                why=f"it is {self.share}",
            )

    def __call__(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens to keep, int64 ``[...]``, for scores ``[..., K]`` (mask False on padding)."""
        mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
        scores = scores.detach().float()
        if self.rule == "gate":
            count = ((scores > 0) & mask).sum(-1)
        else:
            floor = torch.finfo(scores.dtype).min
            relevance = scores.masked_fill(~mask, floor).softmax(-1).masked_fill(~mask, 0.0)
            if self.rule == "mass":
                held = relevance.sort(dim=-1, descending=True).values.cumsum(-1)
                # Float sums end a little below 1: the tolerance keeps share = 1 attainable.
                count = (held < self.share - 1e-6).sum(-1) + 1
            else:
                entropy = -torch.special.xlogy(relevance, relevance).sum(-1)
                count = entropy.exp().round().long()
        return torch.minimum(count.clamp_min(1), mask.sum(-1))
