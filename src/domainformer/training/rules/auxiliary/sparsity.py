"""A term that asks for activations of which few are large."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from domainformer.training.rules.auxiliary.base import AuxiliaryLoss, exact
from domainformer.training.rules.base import Seen, State


class ActivationSparsity(AuxiliaryLoss):
    """Sparse activations: L1, or Hoyer's measure, of the values x at the sites.

    ::

        l1      mean |x|                             shrinks all values, too
        hoyer   (‖x‖₁/‖x‖₂ − 1)/(√n − 1)             per token: 0 one is not zero, 1 all are equal

    Hoyer's does not change when x is scaled, so it cannot be met by shrinking. All tokens count,
    padding, too.

    Source: P. O. Hoyer, JMLR 5 (2004), section 3.1; as a term of the loss: arXiv 1908.09979.

    Args:
        sites: By default the activation functions of the MLPs.
        weight: Of the mean over sites.
        measure: Which.

    Example:
        >>> seen = Seen(None, torch.zeros(1), None, {}, {"mlp": torch.tensor([[3.0, 0.0, 0, 0]])})
        >>> float(ActivationSparsity(measure="l1").term(seen, {}))
        0.75
        >>> float(ActivationSparsity(measure="hoyer").term(seen, {}))
        0.0
    """

    name: ClassVar[str] = "activation_sparsity"
    sites: tuple[str, ...] = ("blocks.*.mlp.act*",)
    weight: float = Field(default=0.01, ge=0)
    measure: Literal["l1", "hoyer"] = "l1"

    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """The mean over sites."""
        measured = [self._measure(exact(value)) for value in seen.values.values()]
        return torch.stack(measured).mean() if measured else seen.logits.new_zeros(())

    def _measure(self, value: torch.Tensor) -> torch.Tensor:
        if self.measure == "l1":
            return value.abs().mean()
        root = value.shape[-1] ** 0.5
        # Within the root, so that a token of zeros has a gradient, too.
        tiny = torch.finfo(value.dtype).tiny
        length = (value.square().sum(-1) + tiny).sqrt()
        return ((value.abs().sum(-1) / length - 1) / max(root - 1, 1e-6)).mean()
