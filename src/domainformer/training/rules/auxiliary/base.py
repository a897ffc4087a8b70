"""What all terms of the loss share: a weight, and their last value in the log."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment, Seen, State


class AuxiliaryLoss(LearningRule):
    """``loss + weight·term``; a subclass says what the term is.

    The term of the last pass is kept and logged as ``term``, without its weight.

    Args:
        weight: 0 is none: the term is not worked out.
    """

    exact_gradient: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    weight: float = Field(default=1.0, ge=0)

    @abc.abstractmethod
    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """The term, a scalar."""

    def auxiliary_loss(
        self, seen: Seen, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The weighted term."""
        if self.weight == 0:
            return seen.logits.new_zeros(()), state
        term = self.term(seen, state)
        return self.weight * term, {**state, "term": term.detach()}

    def metrics(self, state: State) -> dict[str, float]:
        """The term of the last pass."""
        return {"term": float(state["term"])} if "term" in state else {}


def exact(values: torch.Tensor) -> torch.Tensor:
    """In at least float32: sums over a vocabulary are too coarse in half precision.

    Example:
        >>> exact(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean; 0 of nothing, where a batch has no target.

    Example:
        >>> mean(torch.ones(0)).item(), mean(torch.tensor([1.0, 3.0])).item()
        (0.0, 2.0)
    """
    return values.sum() / max(values.numel(), 1)
