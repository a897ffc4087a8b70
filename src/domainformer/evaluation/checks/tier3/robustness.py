"""Robustness: what a few wrong tokens cost the predictions that should not need them.

::

    tokens   a b c d e f g        one in ten is replaced by another
             a b X d e f g        scored: e, f, g …  whose own token and the one before are right

On a source of pairs the best predictor loses nothing there; what a model loses, it made of the
wrong tokens farther back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Subject, Unanswerable
from domainformer.evaluation.checks.tier3.contender import contender, held_out_rows
from domainformer.models.universal.probing import at_rest, draw_tokens
from domainformer.models.universal.verdict import CheckResult

_SHARE = 0.1
_BATCHES = 4
_WARN, _FAIL = 0.3, 1.0

Replacement = Callable[[Context, torch.Tensor, int], torch.Tensor]


@torch.no_grad()
def check_robustness(context: Context) -> CheckResult:
    """Replacing a tenth of the tokens costs little where the neighbours are right."""
    subject = context.subject
    if not subject.causal:
        raise Unanswerable(f"it predicts no next tokens: {subject.declared}")
    found = contender(context)
    if found.diverged:
        raise Unanswerable("its training diverged")
    value, changes = _cost(context, found.subject, _known)
    strange, _ = _cost(context, found.subject, _any)
    told = (
        f"with {changes} tokens replaced (1 in 10), predictions whose neighbours are right lose "
        f"{value:.3f} nats; with ids that training may never have shown, {strange:.3f}"
    )
    if value <= _WARN and math.isfinite(strange):
        return CheckResult("robustness", "pass", told, None, value, _WARN)
    failed = not value <= _FAIL or not math.isfinite(strange)
    return CheckResult(
        "robustness",
        "fail" if failed else "warn",
        told,
        "train with noise or dropout on the tokens, and bound what one token can do (norms)",
        value,
        _WARN,
    )


def _cost(context: Context, own: Subject, replacement: Replacement) -> tuple[float, int]:
    """What replaced tokens cost where the neighbours are right, in nats; how many there were."""
    changes = 0
    costs: list[torch.Tensor] = []
    generator = torch.Generator().manual_seed(context.seed)
    with at_rest(own):
        for seed in range(_BATCHES):
            ids = held_out_rows(context, seed)
            wrong = torch.rand(ids.shape, generator=generator) < _SHARE
            other = torch.where(wrong, replacement(context, ids, seed), ids)
            scored = ~(wrong[:, 1:] | wrong[:, :-1]) & (wrong.cumsum(1)[:, :-1] > 0)
            clean, noisy = (own.nll(one.to(own.device)).double().cpu() for one in (ids, other))
            costs.append((noisy - clean)[scored])
            changes += int(wrong.sum())
    return float(torch.cat(costs).mean()), changes


def _known(context: Context, ids: torch.Tensor, seed: int) -> torch.Tensor:
    """Tokens of the data, at places where they do not belong."""
    generator = torch.Generator().manual_seed(seed)
    return ids.flatten()[torch.randperm(ids.numel(), generator=generator)].view(ids.shape)


def _any(context: Context, ids: torch.Tensor, seed: int) -> torch.Tensor:
    """Any ids of the vocabulary."""
    rows, length = ids.shape
    return draw_tokens(rows, length, context.subject.vocab_size, seed=seed)
