"""A term that keeps logits small."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.auxiliary.base import AuxiliaryLoss, exact, mean
from domainformer.training.rules.base import Seen, State


class ZLoss(AuxiliaryLoss):
    """Keep the normaliser of the softmax near 1: ``w·mean(log²Z)``, ``Z = Σ exp(logits)``.

    Cross-entropy does not change when all logits grow by the same amount, so they drift, and in
    low precision they lose digits; this holds them at log Z = 0.

    Source: arXiv 2204.02311 (PaLM), section 5 (w = 1e-4); arXiv 2309.14322, section 3.1.2.

    Args:
        weight: w.

    Example:
        >>> logits = torch.zeros(1, 2, 4)
        >>> seen = Seen(None, logits, torch.tensor([[1, -100]]), {})
        >>> round(float(ZLoss(weight=1.0).term(seen, {})), 4)  # (log 4)²
        1.9218
    """

    name: ClassVar[str] = "z_loss"
    weight: float = Field(default=1e-4, ge=0)

    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """mean(log²Z) over the scored positions."""
        logits, _ = seen.scored()
        return mean(exact(logits).logsumexp(dim=-1).square())
