"""What a token costs: bytes that training keeps for it, and floating-point operations.

::

    6 N per token: 2 N forward, 4 N backward, N weights that multiply    (Kaplan et al. 2020, §2.1)

Far above, weights are used several times or work is done twice; far below, the counter does not
know the kernels.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Subject, Unanswerable
from domainformer.evaluation.checks.tier1.persistence import loose_tensors
from domainformer.models.universal.probing import at_rest, draw_tokens
from domainformer.models.universal.verdict import CheckResult
from domainformer.training.batch_size import SavedTensorMeter

_ROWS = 2
_LOWEST, _HIGHEST = 0.5, 3.0
_KIB = 1024.0


def check_memory(context: Context) -> CheckResult:
    """Bytes per token that a training step keeps; and nothing is kept between calls."""
    subject = context.subject
    grown = _kept_between_calls(context)
    if grown:
        return CheckResult(
            "memory",
            "fail",
            f"each call leaves {grown:,.0f} bytes in the model",
            "keep no tensors between calls; hand a cache in and out, or detach and replace",
            grown,
            0.0,
        )
    length = context.length
    longer = min(2 * length, subject.longest or 2 * length)
    short, long = (_per_token(subject, one) for one in (length, longer))
    weights = sum(one.numel() * one.element_size() for one in subject.parameters())
    told = (
        f"{short / _KIB:,.1f} KiB per token at {length} tokens, {long / _KIB:,.1f} at {longer}; "
        f"weights {weights / _KIB**2:,.1f} MiB, about four times that with gradients and AdamW"
    )
    return CheckResult("memory", "pass", told, None, short / _KIB)


def check_flops(context: Context) -> CheckResult:
    """Floating-point operations per token and training step against 6 N."""
    subject = context.subject
    count = multiplying_weights(subject)
    if not count:
        raise Unanswerable("it has no weights that multiply")
    batch = subject.batch(_ROWS, context.length, seed=context.seed)
    tokens = batch["input_ids"].numel() if subject.kind != "classifier" else _ROWS
    with at_rest(subject), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        subject.loss(batch).backward()
    each = counter.get_total_flops() / tokens
    ratio = each / (6 * count)
    told = f"{each / 1e6:,.2f} million operations per token and step, {ratio:.2f} times 6 N"
    if subject.kind == "classifier":
        return CheckResult("flops", "pass", told.replace("per token", "per row"), None, ratio)
    if ratio < _LOWEST:
        return CheckResult(
            "flops",
            "warn",
            f"{told}: weights that take no part, or kernels that the counter does not know (RNNs)",
            "see the check of modules that are called",
            ratio,
            _LOWEST,
        )
    if ratio > _HIGHEST:
        return CheckResult(
            "flops",
            "warn",
            f"{told}: weights are used several times, or work is done twice",
            "look for a layer that is called again, or logits that are computed and dropped",
            ratio,
            _HIGHEST,
        )
    return CheckResult("flops", "pass", told, None, ratio, _HIGHEST)


def multiplying_weights(subject: Subject) -> int:
    """N: elements of matrices that multiply; a table that is only looked up does not count."""
    tables = {
        id(weight)
        for part in subject.model.modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag))
        for weight in part.parameters(recurse=False)
    }
    multiplied = {
        id(weight)
        for part in subject.model.modules()
        if not isinstance(part, (nn.Embedding, nn.EmbeddingBag))
        for weight in part.parameters(recurse=False)
    }
    return sum(
        one.numel()
        for one in subject.model.parameters()
        if one.dim() >= 2 and (id(one) not in tables or id(one) in multiplied)
    )


def _per_token(subject: Subject, length: int) -> float:
    batch = subject.batch(_ROWS, length, seed=0)
    with at_rest(subject):
        saved = SavedTensorMeter.saved_bytes(
            subject, {"input_ids": batch["input_ids"]}, contextlib.nullcontext
        )
    return sum(saved) / (_ROWS * length)


@torch.no_grad()
def _kept_between_calls(context: Context) -> float:
    subject = context.subject
    sizes: list[float] = []
    with at_rest(subject):
        for seed in range(3):
            ids = draw_tokens(
                2, context.length, subject.vocab_size, seed=seed, device=subject.device
            )
            subject(ids)
            found = loose_tensors(subject.model)
            sizes.append(float(sum(one.numel() * one.element_size() for _, one in found)))
    return max(0.0, sizes[2] - sizes[1])
