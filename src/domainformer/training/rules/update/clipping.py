"""Gradients of the weights that are kept from being too large.

They change the gradients in place: these belong to one step, and a copy would cost more than the
clipping.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from domainformer.training.rules.base import Gradients, LearningRule, Moment, Parameters, State

_TINY = 1e-6


class ClipGradientValue(LearningRule):
    """Every entry of every gradient is kept within ±value.

    ::

        g ← min(max(g, −value), value)

    For single entries that explode; it turns the gradient, unlike clipping by norm.

    Args:
        value: Largest magnitude.

    Source: Graves, "Generating sequences with recurrent neural networks", 2013, section 2.1.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> gradients, _ = ClipGradientValue(value=1).update(
        ...     {"w": torch.tensor([-3.0, 0.5])}, {}, {}, Moment(Clock()))
        >>> gradients["w"]
        tensor([-1.0000,  0.5000])
    """

    name: ClassVar[str] = "clip_gradient_value"
    compiles: ClassVar[bool] = True
    value: float = Field(default=1.0, gt=0)

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """Clip in place."""
        every = list(gradients.values())
        if every:
            torch._foreach_clamp_min_(every, -self.value)
            torch._foreach_clamp_max_(every, self.value)
        return gradients, state


class ClipGradientNorm(LearningRule):
    """The gradient is shortened to a length of at most ``norm``; its direction stays.

    ::

        g ← g · min(1, norm / (‖g‖₂ + 1e-6))

    The usual guard against rare large steps. The length before clipping of the last step is told
    as a metric.

    Args:
        norm: Largest length.
        per: ``all`` takes all gradients for one vector; ``tensor`` clips each by itself.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, algorithm 1.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> gradients, _ = ClipGradientNorm(norm=1).update(
        ...     {"w": torch.tensor([3.0, 4.0])}, {}, {}, Moment(Clock()))
        >>> gradients["w"]
        tensor([0.6000, 0.8000])
    """

    name: ClassVar[str] = "clip_gradient_norm"
    compiles: ClassVar[bool] = True
    norm: float = Field(default=1.0, gt=0)
    per: Literal["all", "tensor"] = "all"

    def init(self, model: nn.Module, sites: object) -> State:
        """No length seen yet."""
        return {"norm": torch.zeros(())}

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """Clip in place."""
        every = list(gradients.values())
        if not every:
            return gradients, state
        norms = torch._foreach_norm(every)
        total = torch.linalg.vector_norm(torch.stack(norms))
        if self.per == "all":
            torch._foreach_mul_(every, (self.norm / (total + _TINY)).clamp(max=1.0))
        else:
            factors = [(self.norm / (norm + _TINY)).clamp(max=1.0) for norm in norms]
            torch._foreach_mul_(every, factors)
        return gradients, {"norm": total}

    def metrics(self, state: State) -> dict[str, float]:
        """The length of the whole gradient before it was clipped."""
        return {"before": float(state["norm"])}


class AdaptiveGradientClipping(LearningRule):
    """Each unit's gradient is kept small beside the unit's weights.

    ::

        gᵢ ← gᵢ · min(1, factor · max(‖wᵢ‖, smallest) / ‖gᵢ‖)     row i of a matrix, or a vector

    Lets large learning rates work without normalisation. The paper leaves the output layer alone;
    here embeddings are left alone, too, for they may be tied to it.

    Args:
        factor: Largest ratio of the norms.
        smallest: Norm that weights near zero count as, so that they can grow.

    Source: Brock et al., "High-performance large-scale image recognition without normalization",
    ICML 2021, equation 3.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> gradients, _ = AdaptiveGradientClipping(factor=0.1).update(
        ...     {"w": torch.tensor([[0.0, 50.0]])}, {"skipped": []}, {"w": w}, Moment(Clock()))
        >>> gradients["w"]
        tensor([[0.0000, 0.5000]])
    """

    name: ClassVar[str] = "adaptive_gradient_clipping"
    compiles: ClassVar[bool] = True
    factor: float = Field(default=0.02, gt=0)
    smallest: float = Field(default=1e-3, gt=0)

    def init(self, model: nn.Module, sites: object) -> State:
        """The names that are left alone."""
        from domainformer.training.rules.update.groups import parameter_kinds

        kinds = parameter_kinds(model)
        return {"skipped": [n for n, kind in kinds.items() if kind in ("embedding", "head")]}

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """Clip in place."""
        skipped = set(state["skipped"])
        for name, gradient in gradients.items():
            if name not in skipped:
                weights = parameters[name].detach()
                length = _unit_norms(weights).clamp(min=self.smallest)
                ratio = self.factor * length / _unit_norms(gradient).clamp(min=_TINY)
                gradient.mul_(ratio.clamp(max=1.0))
        return gradients, state


def _unit_norms(tensor: torch.Tensor) -> torch.Tensor:
    """Lengths of the rows [out, 1, …] of a matrix; of a vector, its own."""
    axes = tuple(range(1, tensor.ndim)) if tensor.ndim > 1 else None
    return torch.linalg.vector_norm(tensor, dim=axes, keepdim=tensor.ndim > 1)
