"""The loss against the entropy of the data: nothing honest goes below.

::

    E[model's loss − best loss] = KL(source ‖ model) ≥ 0       per token, of a Markov source

A copy learns a source whose entropy rate is known. Its loss is compared with that of the best
predictor on the same new tokens, so that most of the noise cancels; a model that comes out below
has seen what it predicts, however hidden the leak.
"""

from __future__ import annotations

import math

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.source import Counts, MarkovSource
from domainformer.evaluation.checks.subject import Subject, Unanswerable
from domainformer.evaluation.checks.training import default_rate, held_out_loss, train
from domainformer.models.universal.probing import at_rest
from domainformer.models.universal.verdict import CheckResult

_STANDARD_ERRORS = 4.0
_SCORED_BATCHES, _SCORED_ROWS = 8, 32
_COUNTED_ROWS = 2048


def check_source_entropy(context: Context) -> CheckResult:
    """A copy that was trained on a Markov source is not better than that source allows."""
    subject, source = context.subject, context.markov
    if not subject.causal:
        raise Unanswerable(f"it predicts no next tokens: {subject.declared}")
    found = train(
        subject,
        lambda step: subject.batch_of(
            source.draw(context.rows, context.length, seed=step), seed=step
        ),
        steps=context.steps,
        learning_rate=default_rate(subject),
        seconds=context.seconds,
        seed=context.seed,
    )
    if found.diverged:
        why = f"the training on a Markov source diverged after {found.how}"
        return CheckResult("source_entropy", "warn", why, "see the check of learning rates")
    apart, error = excess(found.subject, source, context.length)
    rate, single = source.entropy_rate, source.unigram_entropy
    loss = rate + apart
    told = (
        f"{loss:.3f} nats on new tokens of a source of {rate:.3f} after {found.how} "
        f"(single tokens: {single:.3f})"
    )
    if apart < -_STANDARD_ERRORS * error:
        return CheckResult(
            "source_entropy",
            "fail",
            f"{told}: better than can be, by {-apart:.3f} ± {error:.3f}",
            "it has seen what it predicts: look for a leak of later tokens or of labels",
            loss,
            rate,
        )
    if loss > single:
        return CheckResult(
            "source_entropy",
            "warn",
            f"{told}: no better than counting single tokens",
            "more steps (steps=…), or see whether it uses the tokens before",
            loss,
            rate,
        )
    return CheckResult("source_entropy", "pass", told, None, loss, rate)


@torch.no_grad()
def excess(subject: Subject, source: MarkovSource, length: int) -> tuple[float, float]:
    """How much a model loses beyond the best predictor per token, and its standard error."""
    rows: list[torch.Tensor] = []
    with at_rest(subject):
        for seed in range(_SCORED_BATCHES):
            ids = source.draw(_SCORED_ROWS, length, seed=seed, held_out=True)
            mine = subject.nll(ids.to(subject.device)).double().cpu()
            rows.append((mine - source.nll(ids)).mean(dim=1))
    apart = torch.cat(rows)
    return float(apart.mean()), float(apart.std()) / math.sqrt(len(apart))


def check_text_entropy(context: Context) -> CheckResult:
    """On the user's text, as it is: better than counting single tokens, or pairs?"""
    subject, text = context.subject, context.text
    if text is None:
        raise Unanswerable("no text was given (text=…, --text FILE)")
    if not subject.causal:
        raise Unanswerable(f"it predicts no next tokens: {subject.declared}")
    length = context.length
    counts = Counts.of(text.draw(_COUNTED_ROWS, length, seed=context.seed), subject.vocab_size)

    def draw(seed: int) -> torch.Tensor:
        return text.draw(_SCORED_ROWS, length, seed=seed, held_out=True)

    with at_rest(subject):
        loss = held_out_loss(subject, draw, batches=_SCORED_BATCHES)
    rows = torch.cat([draw(seed) for seed in range(_SCORED_BATCHES)])
    single, pairs = counts.unigram_loss(rows), counts.bigram_loss(rows)
    told = (
        f"{loss:.3f} nats on the text's end; counted single tokens {single:.3f}, pairs {pairs:.3f}"
    )
    if loss < single:
        return CheckResult("text_entropy", "pass", told, None, loss, single)
    remedy = "train it on such a text" if not context.trained else "is it the right tokenizer?"
    failed = bool(context.trained)
    return CheckResult("text_entropy", "fail" if failed else "warn", told, remedy, loss, single)
