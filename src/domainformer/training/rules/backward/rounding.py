"""Gradients in bfloat16, rounded up or down by chance so that their mean is right."""

from __future__ import annotations

from typing import ClassVar

import torch

from domainformer.training.rules.base import LearningRule, Moment, Site, State

# bfloat16 is the upper half of a float32.
_LOWER = 1 << 16


class StochasticRounding(LearningRule):
    r"""Rounds the gradient at a site to bfloat16 numbers, without bias.

    .. math::

        P(\text{up}) = \frac{g - \lfloor g \rfloor}{\lceil g \rceil - \lfloor g \rfloor}
        \quad\Rightarrow\quad \mathbb{E}[g'] = g

    where ⌊g⌋ and ⌈g⌉ are the two bfloat16 numbers around g. Rounding to the nearest loses what is
    smaller than half a step every time; this keeps it on the average. For experiments with low
    precision, and as a noise whose size follows each number. The tensor keeps its dtype; infinite
    and NaN pass unchanged, and nothing finite becomes infinite.

    Args:
        sites: Where.

    Source: Gupta et al., Deep Learning with Limited Numerical Precision, 2015, section 3; Zamirai
    et al., Revisiting BFloat16 Training, 2020, section 4.

    Example:
        >>> x = torch.tensor([1.0, 1.0 + 2**-10])
        >>> generator = torch.Generator().manual_seed(0)
        >>> rounded = torch.stack([to_bfloat16(x, generator) for _ in range(4000)])
        >>> sorted(set(rounded[:, 1].tolist()))
        [1.0, 1.0078125]
        >>> bool((rounded.mean(0) - x).abs().max() < 2e-4)
        True
    """

    name: ClassVar[str] = "stochastic_rounding"
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*",)

    def backward(
        self, gradient: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The gradient in numbers that bfloat16 has."""
        if gradient.dtype == torch.bfloat16:
            return gradient, state
        rounded = to_bfloat16(gradient.float(), moment.generator(at, gradient.device))
        return rounded.to(gradient.dtype), state


def to_bfloat16(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Float32 numbers, each at one of the two bfloat16 numbers around it.

    Adding a random lower half and cutting it off carries into the upper half as often as the
    lower half is large: sign and magnitude lie apart in a float, so that this holds for both signs.

    Args:
        values: Float32, any shape.
        generator: On their device.

    Example:
        >>> to_bfloat16(torch.tensor([0.5, -3.0]), torch.Generator())
        tensor([ 0.5000, -3.0000])
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(
        0, _LOWER, bits.shape, dtype=torch.int32, device=bits.device, generator=generator
    )
    cut = bits & -_LOWER
    rounded = ((bits + noise) & -_LOWER).view(torch.float32)
    # The largest numbers could be carried to infinity, infinity itself to NaN.
    kept = torch.where(torch.isfinite(values), cut.view(torch.float32), values)
    return torch.where(torch.isfinite(rounded), rounded, kept)
