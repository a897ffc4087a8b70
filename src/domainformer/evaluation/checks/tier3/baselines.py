"""Against what is simpler: counts of single tokens, of pairs, and a small transformer of ours.

All learn from the same rows; the small transformer takes the same number of steps on them.
"""

from __future__ import annotations

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.kinds import subject_of
from domainformer.evaluation.checks.source import Counts
from domainformer.evaluation.checks.subject import Subject, Unanswerable
from domainformer.evaluation.checks.tier3.contender import (
    FALL,
    Settings,
    contender,
    held_out_rows,
    run,
    score,
)
from domainformer.evaluation.checks.training import default_rate
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.models.universal.verdict import CheckResult

_BATCHES = 4
_WIDTH, _LAYERS, _HEADS = 64, 2, 4
_SLACK = 0.1


def check_baselines(context: Context) -> CheckResult:
    """It learns, and after the same rows is no worse than a small transformer, or single tokens.

    Counts of pairs are told beside it: on a source of pairs nothing is better than they are.
    """
    if not context.subject.causal:
        raise Unanswerable(f"it predicts no next tokens: {context.subject.declared}")
    found = contender(context)
    loss = score(context, found)
    single, pairs = counted(context)
    small = small_transformer(context)
    ours = score(context, run(context, Settings(default_rate(small)), subject=small))
    told = (
        f"{loss:.3f} nats on new rows; single tokens {single:.3f}, pairs {pairs:.3f}, "
        f"a transformer of {_LAYERS} layers and width {_WIDTH} {ours:.3f}"
    )
    if context.text is None:
        told += f", the best there can be {context.markov.entropy_rate:.3f}"
    if not loss < FALL * found.losses[0]:
        return CheckResult(
            "baselines",
            "fail",
            f"it learned nothing in {found.how}: {told}",
            "see the learning rate, and the check of overfitting",
            loss,
            single,
        )
    limit = min(single, ours + _SLACK)
    if not loss < limit:
        return CheckResult(
            "baselines",
            "warn",
            told,
            f"it learns more slowly than something simpler; in {found.how}, more may tell",
            loss,
            limit,
        )
    return CheckResult("baselines", "pass", told, None, loss, limit)


def counted(context: Context) -> tuple[float, float]:
    """Loss by counts of single tokens and of pairs, on the rows that the contender is scored on."""
    steps = range(context.steps)
    draw = context.source.draw
    rows = [draw(context.rows, context.length, seed=context.seed + step) for step in steps]
    counts = Counts.of(torch.cat(rows), context.subject.vocab_size)
    unseen = torch.cat([held_out_rows(context, seed) for seed in range(_BATCHES)])
    return counts.unigram_loss(unseen), counts.bigram_loss(unseen)


def small_transformer(context: Context) -> Subject:
    """An untrained transformer of ours with the model's vocabulary."""
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        config = DomainTransformerConfig(
            vocab_size=context.subject.vocab_size,
            hidden_size=_WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            max_position_embeddings=max(16, context.length),
        )
        return subject_of(DomainTransformerForCausalLM(config).to(context.subject.device))
