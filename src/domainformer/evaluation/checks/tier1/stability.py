"""Stability of the output: at the edges of the input, and under a breath on the weights."""

from __future__ import annotations

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.models.universal.probing import at_rest, draw_tokens, spread
from domainformer.models.universal.verdict import CheckResult

_NOISE = 1e-4
_MOST_GROWTH = 1000.0
_FLOAT16 = 65504.0


@torch.no_grad()
def check_stability(context: Context) -> CheckResult:
    """Finite logits at edge inputs, of a size that half precision holds, that move smoothly.

    ::

        growth = (rms change of the logits / their spread) / (relative noise on the weights)
    """
    subject, device = context.subject, context.subject.device
    with at_rest(subject):
        largest = 0.0
        for name, ids in _edges(subject.vocab_size, context.length).items():
            logits = subject(ids.to(device))
            if not bool(torch.isfinite(logits).all()):
                return CheckResult(
                    "stability",
                    "fail",
                    f"logits are not finite for {name}",
                    "look for a division by a length or spread of zero, or a row masked whole",
                )
            largest = max(largest, float(logits.abs().max()))
        growth = _growth(context)
    if not growth < _MOST_GROWTH:
        return CheckResult(
            "stability",
            "fail" if not growth <= 100 * _MOST_GROWTH else "warn",
            f"noise of one part in 10,000 on the weights moves the logits {growth:,.0f} times that",
            "normalise before each block, and keep residual branches small at first",
            growth,
            _MOST_GROWTH,
        )
    if largest > _FLOAT16 / 4:
        return CheckResult(
            "stability",
            "warn",
            f"logits reach {largest:,.0f}, near the end of float16",
            "scale the last layer down, or cap the logits: c · tanh(logits / c)",
            largest,
            _FLOAT16 / 4,
        )
    why = (
        f"finite at the edges (largest {largest:.3g}); noise on the weights grows {growth:.1f}-fold"
    )
    return CheckResult("stability", "pass", why, None, growth, _MOST_GROWTH)


def _edges(vocab_size: int, length: int) -> dict[str, torch.Tensor]:
    whole = torch.ones(2, length, dtype=torch.long)
    last = vocab_size - 1
    return {
        "rows of the id 0": 0 * whole,
        f"rows of the last id, {last}": last * whole,
        "rows of one token": last // 2 * whole[:, :1],
        "two ids that take turns": last * (torch.arange(length) % 2).expand(2, -1),
    }


def _growth(context: Context) -> float:
    subject = context.subject
    ids = draw_tokens(
        4, context.length, subject.vocab_size, seed=context.seed, device=subject.device
    )
    before = subject(ids)
    other = subject.copied()
    generator = torch.Generator().manual_seed(context.seed)
    for weight in other.parameters():
        if weight.is_floating_point() and weight.numel() > 1:
            scale = weight.detach().float().square().mean().sqrt().cpu()
            noise = torch.randn(weight.shape, generator=generator) * scale * _NOISE
            weight.add_(noise.to(weight))
    moved = (other(ids).double() - before.double()).square().mean().sqrt()
    size = spread(before)
    return float(moved) / size / _NOISE if size else 0.0
