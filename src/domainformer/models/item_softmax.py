"""Cross-entropy over a catalogue: the full softmax, and a sampled one for large catalogues.

::

    hidden [N, W] ─▶ logits = hidden · tableᵀ + bias  [N, items]
                     loss = log Σ exp(logits) − Σ_k w_k · logits[target_k]

A position may have several targets with weights (the next item most, the one after it less …).
The full softmax of 12,000 items is cheap in operations and dear in memory traffic, so it is worked
out block by block, and the gradient with it: no array of positions × items is ever kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

_BLOCK = 128


class _FullSoftmax(torch.autograd.Function):
    """The summed loss; its gradients are made in the forward pass, while the logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        table: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        x_NW, table_IW = hidden.detach().to(dtype), table.detach().to(dtype)
        d_hidden = torch.empty_like(hidden)
        d_table, d_bias = torch.zeros_like(table), torch.zeros_like(bias)
        loss = hidden.new_zeros(())
        for start in range(0, len(hidden), _BLOCK):
            rows = slice(start, start + _BLOCK)
            x, target, weight = x_NW[rows], targets[rows], weights[rows] * (1 - smoothing)
            logits = (x @ table_IW.T).float().add_(bias)
            logits.sub_(logits.amax(dim=1, keepdim=True))
            own = (logits.gather(1, target) * weight).sum(1)
            if smoothing:
                own = own + smoothing * logits.mean(1)
            p = logits.exp_()
            total = p.sum(dim=1, keepdim=True)
            loss += (total[:, 0].log() - own).sum()
            p.div_(total).scatter_add_(1, target, -weight)
            if smoothing:
                p.sub_(smoothing / p.shape[1])
            small = p.to(dtype)
            d_hidden[rows] = (small @ table_IW).to(d_hidden.dtype)
            d_table += (small.T @ x).to(d_table.dtype)
            d_bias += p.sum(0)
        ctx.save_for_backward(d_hidden, d_table, d_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_table, d_bias = ctx.saved_tensors
        (scale,) = grads
        return d_hidden * scale, d_table * scale, d_bias * scale, None, None, None, None


def item_cross_entropy(
    hidden: torch.Tensor,
    table: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Mean cross-entropy against all items.

    Args:
        hidden: Hidden states [N, W].
        table: Item embeddings [I, W].
        bias: One number per item [I].
        targets: Items that come next, int64 [N, K].
        weights: Their shares, each row sums to 1 [N, K]; None: equal shares.
        smoothing: Share of the targets that is spread over all items (arXiv 1512.00567).
        dtype: Of the matrix products; bfloat16 halves the time where the processor knows it.

    Example:
        >>> hidden, table = torch.zeros(3, 4), torch.randn(10, 4)
        >>> loss = item_cross_entropy(hidden, table, torch.zeros(10), torch.tensor([[1], [2], [3]]))
        >>> round(loss.item(), 4)  # log 10
        2.3026
    """
    if weights is None:
        weights = torch.full(targets.shape, 1 / targets.shape[1], device=hidden.device)
    summed: torch.Tensor = _FullSoftmax.apply(
        hidden, table, bias, targets, weights, smoothing, dtype
    )
    return summed / len(hidden)


def sampled_item_cross_entropy(
    hidden: torch.Tensor,
    table: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    negatives: torch.Tensor,
    log_expected: torch.Tensor,
) -> torch.Tensor:
    """Mean cross-entropy against the targets and a draw of other items (log-Q correction).

    ``log Z = log(Σ_{targets} exp s_t + Σ_{j drawn, no target} exp(s_j − log E_j))``, where ``E_j``
    is the chance that j is in the draw: Z is an unbiased estimate of the full softmax's sum
    (Horvitz & Thompson 1952; Bengio & Senécal 2008). Targets are always there: their chance is 1.

    Args:
        hidden: Hidden states [N, W].
        table: Item embeddings [I, W].
        bias: One number per item [I].
        targets: Items that come next, int64 [N, K].
        weights: As in :func:`item_cross_entropy`.
        negatives: The drawn items, each once, shared by all positions, int64 [M].
        log_expected: log E of each item [I].

    Example:
        >>> hidden, table, bias = torch.randn(3, 4), torch.randn(10, 4), torch.zeros(10)
        >>> targets = torch.tensor([[1, 4], [2, 2], [3, 0]])
        >>> full = item_cross_entropy(hidden, table, bias, targets)
        >>> drawn = sampled_item_cross_entropy(
        ...     hidden, table, bias, targets, None, torch.arange(10), torch.zeros(10))
        >>> torch.allclose(full, drawn)  # every item was drawn
        True
    """
    if weights is None:
        weights = torch.full(targets.shape, 1 / targets.shape[1], device=hidden.device)
    count = len(negatives)
    others = F.linear(hidden, table[negatives], bias[negatives] - log_expected[negatives])
    # Where each item stands in the draw; those that were not drawn share a column that is cut off.
    place = torch.full((len(table),), count, device=hidden.device)
    place[negatives] = torch.arange(count, device=hidden.device)
    hit = torch.zeros(len(hidden), count + 1, dtype=torch.bool, device=hidden.device)
    hit.scatter_(1, place[targets], True)
    others = others.masked_fill(hit[:, :count], float("-inf"))
    own = torch.einsum("nw,nkw->nk", hidden, table[targets]) + bias[targets]
    # A target that is named twice is one item of the sum.
    again = (targets[:, :, None] == targets[:, None, :]).tril(-1).any(-1)
    total = torch.logaddexp(others.logsumexp(1), own.masked_fill(again, float("-inf")).logsumexp(1))
    return (total - (weights * own).sum(1)).mean()


__all__ = ["item_cross_entropy", "sampled_item_cross_entropy"]
