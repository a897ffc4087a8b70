"""What is dropped need not be lost: it can be averaged into the most similar token that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Merged:
    """Kept tokens after the others were averaged into them.

    Args:
        features: ``[k, D]``.
        deepstack: one ``[k, D]`` per deepstack layer.
        sizes: ``[k]``, how many tokens each stands for; they sum to what came in.
    """

    features: Tensor
    deepstack: tuple[Tensor, ...]
    sizes: Tensor


def merge_dropped(
    features: Tensor,
    kept: Tensor,
    *,
    deepstack: Sequence[Tensor] = (),
    sizes: Tensor | None = None,
) -> Merged:
    """Average each dropped token of one image into the kept one with the nearest direction.

    ::

        f'_j = Σ_{i merged into j} n_i f_i / Σ n_i        j = argmax cos(f_i, f_j) over kept j

    A kept token is always merged into itself. The deepstack layers follow the same assignment.

    Args:
        features: ``[K, D]``.
        kept: ``[k]`` int64, distinct.
        deepstack: ``[K, D]`` per layer.
        sizes: ``[K]``, how many tokens each stands for already; None: one.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
        >>> merged = merge_dropped(x, torch.tensor([0, 2]))
        >>> merged.features.tolist(), merged.sizes.tolist()
        ([[2.0, 0.0], [0.0, 1.0]], [2.0, 1.0])

    Source: the size-weighted average of Bolya et al., "Token Merging", ICLR 2023, section 3.
    """
    directions = F.normalize(features.float(), dim=-1)
    into = (directions @ directions[kept].T).argmax(-1)
    into[kept] = kept.new_tensor(range(len(kept)))
    sizes = features.new_ones(len(features)) if sizes is None else sizes.to(features.dtype)
    total = sizes.new_zeros(len(kept)).index_add(0, into, sizes)

    def average(values: Tensor) -> Tensor:
        weighted = values * sizes.unsqueeze(-1).to(values.dtype)
        summed = values.new_zeros(len(kept), values.shape[-1]).index_add(0, into, weighted)
        return summed / total.unsqueeze(-1).to(values.dtype)

    return Merged(average(features), tuple(average(layer) for layer in deepstack), total)
