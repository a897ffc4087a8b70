"""Robustness: what a few wrong tokens cost the predictions that should not need them.

::

    tokens   a b c d e f g        one in ten is replaced by any id
             a b X d e f g        scored: e, f, g …  whose own token and the one before are right

On a source of pairs the best predictor loses nothing there; what a model loses, it made of the
wrong tokens farther back.
"""

from __future__ import annotations

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Unanswerable
from domainformer.evaluation.checks.tier3.contender import contender, held_out_rows
from domainformer.models.universal.probing import at_rest, draw_tokens
from domainformer.models.universal.verdict import CheckResult

_SHARE = 0.1
_BATCHES = 4
_WARN, _FAIL = 0.3, 1.0


@torch.no_grad()
def check_robustness(context: Context) -> CheckResult:
    """Replacing a tenth of the tokens costs little where the neighbours are right."""
    subject = context.subject
    if not subject.causal:
        raise Unanswerable(f"it predicts no next tokens: {subject.declared}")
    found = contender(context)
    if found.diverged:
        raise Unanswerable("its training diverged")
    own, changes, costs = found.subject, 0, []
    generator = torch.Generator().manual_seed(context.seed)
    with at_rest(own):
        for seed in range(_BATCHES):
            ids = held_out_rows(context, seed)
            wrong = torch.rand(ids.shape, generator=generator) < _SHARE
            other = torch.where(wrong, draw_tokens(*ids.shape, subject.vocab_size, seed=seed), ids)
            scored = ~(wrong[:, 1:] | wrong[:, :-1]) & (wrong.cumsum(1)[:, :-1] > 0)
            clean, noisy = (own.nll(one.to(own.device)).double().cpu() for one in (ids, other))
            costs.append((noisy - clean)[scored])
            changes += int(wrong.sum())
    value = float(torch.cat(costs).mean())
    told = (
        f"with {changes} tokens replaced (1 in 10), predictions whose neighbours are right lose "
        f"{value:.3f} nats"
    )
    if value <= _WARN:
        return CheckResult("robustness", "pass", told, None, value, _WARN)
    return CheckResult(
        "robustness",
        "fail" if not value <= _FAIL else "warn",
        told,
        "train with noise or dropout on the tokens, and look at ids that training never showed",
        value,
        _WARN,
    )
