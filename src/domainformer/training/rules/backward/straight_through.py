"""Operations without a useful gradient, trained through with the gradient of the identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional

from domainformer.training.rules.backward.linear import linear_at, weight_of
from domainformer.training.rules.base import LearningRule, Moment, Site, State

Operation = Literal["round", "sign", "ternary"]


class StraightThrough(LearningRule):
    r"""Quantises values or weights forward; backward, the gradient passes as if nothing was done.

    .. math::

        \text{round:}\; s\,\mathrm{grid}_n(x / s),\; s = \max |x| \qquad
        \text{sign:}\; s\,\mathrm{sign}(x),\; s = \overline{|x|} \qquad
        \text{ternary:}\; s\,\mathrm{clip}(\mathrm{round}(x / s), -1, 1),\; s = \overline{|x|}

        \frac{\partial L}{\partial x} := \frac{\partial L}{\partial y}
        \quad\text{or, clipped,}\quad
        \frac{\partial L}{\partial y} \cdot [\,|x| \le \text{limit} \cdot s\,]

    The grid has n numbers in equal steps from −s to s. A size s belongs to one position (the last
    dimension) of an output, and to the whole of a weight matrix. It changes what the model computes
    in evaluation, too: the model belongs together with the rule.

    Args:
        sites: Where; linear layers for ``target: weight``.
        operation: What is done forward.
        levels: Numbers of the grid, for ``round``; 255 is as fine as 8 bits.
        target: The output of the site, or the weight of a linear layer.
        gradient: That of the identity, or 0 where a value lies beyond the limit.
        limit: In units of s, for ``clipped``.

    Source: Bengio, Léonard and Courville, Estimating or Propagating Gradients Through Stochastic
    Neurons, 2013, section 4; clipped: Hubara et al., Binarized Neural Networks, 2016, equation 4;
    ternary weights: Ma et al., The Era of 1-bit LLMs, 2024, section 2.

    Example:
        >>> from torch import nn
        >>> from domainformer.training.rules import attach
        >>> x = torch.tensor([[0.1, -0.6, 1.0]], requires_grad=True)
        >>> rule = StraightThrough(sites=("0",), operation="round", levels=5)
        >>> with attach(rule, nn.Sequential(nn.Identity())) as attached:
        ...     y = attached.model(x)
        ...     y.square().sum().backward()
        >>> y.detach(), x.grad
        (tensor([[ 0.0000, -0.5000,  1.0000]]), tensor([[ 0., -1.,  2.]]))
    """

    name: ClassVar[str] = "straight_through"
    changes_function: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.mlp",)
    operation: Operation = "round"
    levels: int = Field(255, ge=2)
    target: Literal["output", "weight"] = "output"
    gradient: Literal["identity", "clipped"] = "identity"
    limit: float = Field(1.0, gt=0)

    def replace(
        self, at: Site, original: Callable[..., Any], state: State, moment: Moment
    ) -> Callable[..., Any]:
        """The operation of the site on quantised weights, or with a quantised output."""
        limit = self.limit if self.gradient == "clipped" else None
        operation, levels = self.operation, self.levels

        if self.target == "weight":
            layer = linear_at(at, original, rule=self.name)

            def with_weight(values: torch.Tensor) -> torch.Tensor:
                weight = Quantised.apply(weight_of(layer), operation, levels, limit, False)
                return functional.linear(values, weight, layer.bias)

            return with_weight

        def with_output(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if isinstance(output, tuple):
                first = Quantised.apply(output[0], operation, levels, limit, True)
                return (first, *output[1:])
            return Quantised.apply(output, operation, levels, limit, True)

        return with_output


class Quantised(torch.autograd.Function):
    """:func:`quantise` with the gradient of the identity, clipped where there is a limit."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        operation: Operation,
        levels: int,
        limit: float | None,
        by_position: bool,
    ) -> torch.Tensor:
        """Quantise, and keep which values lie within the limit."""
        quantised, size = quantise(values, operation, levels=levels, by_position=by_position)
        ctx.clipped = limit is not None
        if limit is not None:
            ctx.save_for_backward(values.abs() <= limit * size)
        return quantised

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient, where it passes."""
        gradient = gradients[0]
        if ctx.clipped:
            (within,) = ctx.saved_tensors
            gradient = gradient * within
        return gradient, None, None, None, None


def quantise(
    values: torch.Tensor, operation: Operation, *, levels: int = 255, by_position: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values on a small set of numbers, and the size s of that set.

    Args:
        values: Any shape [..., H].
        operation: As in :class:`StraightThrough`; the sign of zero is positive.
        levels: Numbers of the grid.
        by_position: Whether s is [..., 1]; otherwise, it is one number.

    Example:
        >>> quantise(torch.tensor([0.25, -0.5, 3.0]), "ternary")[0].tolist()
        [0.0, -0.0, 1.25]
    """
    sizes = values.abs()
    if operation == "round":
        size = sizes.amax(dim=-1, keepdim=True) if by_position else sizes.amax()
    else:
        size = sizes.mean(dim=-1, keepdim=True) if by_position else sizes.mean()
    # All zeros stay zeros.
    unit = values / size.clamp_min(torch.finfo(values.dtype).tiny)
    if operation == "round":
        half = (levels - 1) / 2
        unit = ((unit + 1) * half).round() / half - 1
    elif operation == "sign":
        unit = torch.where(unit >= 0, 1.0, -1.0).to(values.dtype)
    else:
        unit = unit.round().clamp(-1, 1)
    return unit * size, size
