"""Gradients at a site, held to a limit."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from domainformer.training.rules.base import LearningRule, Moment, Site, State


class GradientClippingAtSite(LearningRule):
    r"""Limits the gradient that passes a site, before it reaches anything below.

    .. math::

        \text{value:}\; g'_i = \min(\max(g_i, -c), c) \qquad
        \text{norm:}\; g' = g \cdot \min(1, c / \lVert g \rVert)

    Clipping the gradients of the weights comes after the damage: an explosion in one block has by
    then scaled all blocks below. Here, it ends where it begins. Where ``relative``, c counts in
    units of the gradient's own root mean square (value) or of the mean length of a position
    (norm), so that one number suits every site and batch.

    Args:
        sites: Where.
        by: Each number, or the length of the gradient.
        limit: The limit c.
        per: Whether a length, or a root mean square, is that of the whole tensor or of each
            position (its last dimension).
        relative: Whether c counts in units of the gradient at hand; not for the length of a whole
            tensor, which would be its own unit.

    Raises:
        ConfigError: ``relative`` with the norm of a whole tensor.

    Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks,
    2013, section 3.2, there on the gradient of all weights.

    Example:
        >>> from torch import nn
        >>> from domainformer.training.rules import attach
        >>> rule = GradientClippingAtSite(sites=("0",), by="norm", limit=1.0, per="tensor",
        ...                               relative=False)
        >>> x = torch.zeros(1, 2, requires_grad=True)
        >>> with attach(rule, nn.Sequential(nn.Identity())) as attached:
        ...     (attached.model(x) * torch.tensor([3.0, 4.0])).sum().backward()
        >>> x.grad
        tensor([[0.6000, 0.8000]])
    """

    name: ClassVar[str] = "gradient_clipping_at_site"
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*",)
    by: Literal["value", "norm"] = "norm"
    limit: float = Field(3.0, gt=0)
    per: Literal["tensor", "position"] = "position"
    relative: bool = True

    @model_validator(mode="after")
    def _has_a_unit(self) -> GradientClippingAtSite:
        if self.relative and self.by == "norm" and self.per == "tensor":
            raise ValueError("the norm of a whole tensor is its own unit: set relative: false")
        return self

    def backward(
        self, gradient: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The gradient within the limit; what is within it already stays bit for bit."""
        if self.by == "value":
            squares = gradient.square()
            mean = squares.mean(-1, keepdim=True) if self.per == "position" else squares.mean()
            limit = self.limit * mean.sqrt() if self.relative else torch.full_like(mean, self.limit)
            return torch.minimum(torch.maximum(gradient, -limit), limit), state
        if self.per == "tensor":
            norms = torch.linalg.vector_norm(gradient)
        else:
            norms = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        limit = self.limit * norms.mean() if self.relative else torch.full_like(norms, self.limit)
        return torch.where(norms > limit, gradient * (limit / norms), gradient), state
