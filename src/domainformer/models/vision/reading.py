"""One product for all that scorers read of the tower's features: they are wide, what is read thin.

::

    information   z = f P                             ┐
    salience      z = f P,  a = LN(f) W + b           ├─  f [P | W' …], each column computed once
    coupling      x = LN(f) V + c                     ┘

A LayerNorm needs no pass of its own: its mean is taken out of the matrix, its scale multiplies the
product, its weight and bias join those behind it.

Shape legend: N images, K tokens, D features, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LARGEST_MEAN = 4.0
"""In standard deviations of a token's features: above it a variance from squares loses digits."""


@dataclass(frozen=True)
class Projected:
    """Features times a fixed matrix.

    Args:
        matrix: ``[D, C]``.
    """

    matrix: Tensor

    def __call__(self, features_NKD: Tensor) -> Tensor:
        """``[N, K, C]``, by itself."""
        return features_NKD @ self.matrix


@dataclass(frozen=True)
class Normed:
    """A LayerNorm over the features, and a Linear behind it.

    Args:
        norm: over D.
        linear: D to C.
    """

    norm: nn.Module
    linear: nn.Module

    def __call__(self, features_NKD: Tensor) -> Tensor:
        """``[N, K, C]``, by itself."""
        out: Tensor = self.linear(self.norm(features_NKD))
        return out

    def folded(self) -> Folded | None:
        """For features without their norm; None where other layers took the place of the two."""
        norm, linear = self.norm, self.linear
        if type(norm) is not nn.LayerNorm or type(linear) is not nn.Linear:
            return None
        weight = linear.weight * norm.weight
        bias = torch.addmv(linear.bias, linear.weight, norm.bias)
        return Folded(weight - weight.mean(1, keepdim=True), bias, norm.eps)


@dataclass(frozen=True)
class Folded:
    """A LayerNorm and a Linear as ``f weightᵀ / √(variance + epsilon) + bias``.

    Args:
        weight: ``[C, D]``, each row with mean 0.
        bias: ``[C]``.
        epsilon: of the norm.
    """

    weight: Tensor
    bias: Tensor
    epsilon: float


Read = Projected | Normed


def read_each(features_NKD: Tensor, reads: Sequence[Read]) -> list[Tensor]:
    """What each reads, ``[N, K, C]``, each by itself: what :func:`read_together` must equal."""
    return [read(features_NKD) for read in reads]


def read_together(features_NKD: Tensor, reads: Sequence[Read]) -> list[Tensor] | None:
    """The same as :func:`read_each` up to rounding, from one product; None where that cannot be.

    It cannot be with gradient (the folded weights would have to be differentiated, which costs more
    than it saves), in lower precision, with layers of another kind, and with features whose mean
    hides their variance. Nothing is remembered between calls: weights may change at any time.
    """
    if (
        torch.is_grad_enabled()
        or features_NKD.dtype != torch.float32
        or torch.is_autocast_enabled(features_NKD.device.type)
    ):
        return None
    variance = _variance(features_NKD)
    folded = [read.folded() for read in reads if isinstance(read, Normed)]
    normed = [each for each in folded if each is not None]
    if variance is None or len(normed) < len(folded):
        return None
    matrices: list[Tensor] = []
    place = [_place(read.matrix, matrices) for read in reads if isinstance(read, Projected)]
    weights = [*(matrix.mT for matrix in matrices), *(each.weight for each in normed)]
    out = F.linear(features_NKD, torch.cat(weights))
    parts = out.split([len(weight) for weight in weights], dim=-1)
    plain = iter([parts[index] for index in place])
    scaled = iter(
        [
            torch.addcmul(each.bias, part, (variance + each.epsilon).rsqrt())
            for each, part in zip(normed, parts[len(matrices) :], strict=True)
        ]
    )
    return [next(plain if isinstance(read, Projected) else scaled) for read in reads]


def _variance(features_NKD: Tensor) -> Tensor | None:
    """Of each token's features, ``[N, K, 1]``; None where squares and mean would cancel."""
    mean = features_NKD.mean(-1, keepdim=True).square()
    norm = torch.linalg.vector_norm(features_NKD, dim=-1, keepdim=True)
    variance = norm.square() / features_NKD.shape[-1] - mean
    return None if bool((mean > _LARGEST_MEAN**2 * variance).any()) else variance


def _place(matrix: Tensor, among: list[Tensor]) -> int:
    """The index of an equal matrix, which is appended where there is none."""
    for index, other in enumerate(among):
        if matrix is other or torch.equal(matrix, other):
            return index
    among.append(matrix)
    return len(among) - 1
