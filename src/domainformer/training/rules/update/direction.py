"""Gradients of the weights that keep only a part of what they say.

They change the gradients in place: these belong to one step.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.base import Gradients, LearningRule, Moment, Parameters, State


class CentraliseGradient(LearningRule):
    """The gradient of each output unit of a matrix gets the mean zero.

    ::

        g[i, :] ← g[i, :] − strength · mean_j g[i, j]        matrices; vectors stay as they are

    Projects the update so that each unit's weights keep their sum; smooths the loss a little at
    almost no cost.

    Args:
        strength: Share of the mean that is taken away; 0 changes nothing.

    Source: Yong et al., "Gradient centralization", ECCV 2020, equation 1.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> gradients, _ = CentraliseGradient().update(
        ...     {"w": torch.tensor([[1.0, 3.0]]), "b": torch.ones(1)}, {}, {}, Moment(Clock()))
        >>> gradients["w"], gradients["b"]
        (tensor([[-1.,  1.]]), tensor([1.]))
    """

    name: ClassVar[str] = "centralise_gradient"
    compiles: ClassVar[bool] = True
    strength: float = Field(default=1.0, ge=0, le=1)

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """Take the means away in place."""
        if self.strength:
            for gradient in gradients.values():
                if gradient.ndim > 1:
                    axes = tuple(range(1, gradient.ndim))
                    gradient.sub_(gradient.mean(dim=axes, keepdim=True), alpha=self.strength)
        return gradients, state


class SignOfGradient(LearningRule):
    """Only the sign of each entry is left, blended with the gradient itself.

    ::

        g ← (1 − strength) · g + strength · scale · sign(g)

    With plain SGD this is signSGD: every weight moves by the same amount.

    Args:
        strength: Share of the sign; 0 changes nothing.
        scale: Magnitude that each entry gets.

    Source: Bernstein et al., "signSGD", ICML 2018, algorithm 1.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> gradients, _ = SignOfGradient().update(
        ...     {"w": torch.tensor([-3.0, 0.0, 0.5])}, {}, {}, Moment(Clock()))
        >>> gradients["w"]
        tensor([-1.,  0.,  1.])
    """

    name: ClassVar[str] = "sign_of_gradient"
    compiles: ClassVar[bool] = True
    strength: float = Field(default=1.0, ge=0, le=1)
    scale: float = Field(default=1.0, gt=0)

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """Blend in place."""
        every = list(gradients.values())
        if self.strength and every:
            signs = torch._foreach_sign(every)
            torch._foreach_mul_(every, 1.0 - self.strength)
            torch._foreach_add_(every, signs, alpha=self.strength * self.scale)
        return gradients, state
