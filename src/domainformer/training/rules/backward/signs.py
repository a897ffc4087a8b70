"""The sign of a gradient in place of the gradient."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment, Site, State


class SignGradient(LearningRule):
    r"""Only the direction of each gradient passes a site, not its size.

    .. math:: g' = g + \text{strength}\,(m \cdot \operatorname{sign}(g) - g)

    with m the mean of ``|g|`` over the tensor or over each position (its last dimension), or 1.
    Takes away what outliers weigh; with ``per: position`` every position keeps its own say. A zero
    stays a zero, so that what is masked stays masked.

    Args:
        sites: Where.
        strength: Share of the sign in what passes; 0 leaves the gradient as it is.
        per: What the size m is the mean over; ``none`` is a size of 1.

    Source: Bernstein et al., signSGD, 2018, algorithm 1, there on the gradient of the weights;
    Liao, Leibo and Poggio, How important is weight symmetry in backpropagation?, 2016, section 3.

    Example:
        >>> from torch import nn
        >>> from domainformer.training.rules import attach
        >>> x = torch.zeros(1, 3, requires_grad=True)
        >>> with attach(SignGradient(sites=("0",)), nn.Sequential(nn.Identity())) as attached:
        ...     (attached.model(x) * torch.tensor([5.0, 0.0, -1.0])).sum().backward()
        >>> x.grad
        tensor([[ 2.,  0., -2.]])
    """

    name: ClassVar[str] = "sign_gradient"
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*",)
    strength: float = Field(1.0, ge=0, le=1)
    per: Literal["tensor", "position", "none"] = "tensor"

    def backward(
        self, gradient: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The sign, in the chosen size."""
        if self.strength == 0:
            return gradient, state
        signs = gradient.sign()
        if self.per == "tensor":
            signs = signs * gradient.abs().mean()
        elif self.per == "position":
            signs = signs * gradient.abs().mean(dim=-1, keepdim=True)
        return torch.lerp(gradient, signs, self.strength), state
