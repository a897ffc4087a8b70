"""What must hold of every answer: the probes of ``models/universal``, asked of any kind of model.

Constant parameters are stirred meanwhile, as ``verify`` does, since a projection that begins at
zero hides what is wrong before it.
"""

from __future__ import annotations

import dataclasses

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Unanswerable
from domainformer.models.universal import probes
from domainformer.models.universal.probing import at_rest, stirred
from domainformer.models.universal.verdict import CheckResult


def check_shapes(context: Context) -> CheckResult:
    """Finite logits of the right shape at several sizes."""
    subject = context.subject
    with at_rest(subject):
        found = probes.probe_shapes(subject, **context.asked_there)
    if subject.kind != "classifier" or not found.passed:
        return found
    return dataclasses.replace(
        found, reason=f"logits [B, {subject.vocab_size}], finite, for several numbers of rows"
    )


def check_determinism(context: Context) -> CheckResult:
    """The same question, the same answer."""
    subject = context.subject
    with stirred(subject, seed=context.seed), at_rest(subject):
        return probes.probe_determinism(subject, **context.asked_there)


def check_gradients(context: Context) -> CheckResult:
    """A finite gradient that is not all zero, for every trainable parameter."""
    subject = context.subject
    with stirred(subject, seed=context.seed):
        return probes.probe_gradients(subject.model, subject, **context.asked)


def check_modules_called(context: Context) -> CheckResult:
    """Every submodule takes part."""
    subject = context.subject
    with stirred(subject, seed=context.seed):
        return probes.probe_modules_called(subject.model, subject, **context.asked)


def check_causality(context: Context) -> CheckResult:
    """Logits before t do not know token t; of a bidirectional model, they should."""
    subject = context.subject
    if subject.kind == "classifier":
        raise Unanswerable(f"there is no next token: {subject.declared}")
    with stirred(subject, seed=context.seed), at_rest(subject):
        found = probes.probe_causality(subject, **context.asked_there)
    if subject.causal:
        return _with_a_way_out(found) if found.failed else found
    if found.passed:
        return dataclasses.replace(
            found,
            status="warn",
            reason=f"it is to read both ways ({subject.declared}), and its logits see the past "
            "alone",
            remedy="take the causal mask out, or check it with causal=True",
        )
    why = f"it is bidirectional, as it should be: {subject.declared}"
    return dataclasses.replace(found, status="skip", reason=why, remedy=None)


def check_causality_in_training(context: Context) -> CheckResult:
    """As causality, in the mode in which the loss is taken."""
    subject = context.subject
    if not subject.causal:
        raise Unanswerable(f"it may read both ways: {subject.declared}")
    with stirred(subject, seed=context.seed):
        found = probes.probe_causality_in_training(subject, subject, **context.asked)
    return _with_a_way_out(found) if found.failed else found


def check_batch_invariance(context: Context) -> CheckResult:
    """A row gives the same logits alone and beside others."""
    subject = context.subject
    with stirred(subject, seed=context.seed), at_rest(subject):
        return probes.probe_batch_invariance(subject, **context.asked_there)


def check_cache(context: Context) -> CheckResult:
    """Cached logits equal uncached ones, without ``position_ids``."""
    subject = context.subject
    if not subject.causal:
        raise Unanswerable(f"it generates nothing that a cache could serve: {subject.declared}")
    with stirred(subject, seed=context.seed), at_rest(subject), torch.no_grad():
        return probes.probe_cache(
            subject,
            subject.advance(),
            padded=subject.padded_advance(),
            **context.asked_there,
        )


def check_padding(context: Context) -> CheckResult:
    """What stands at masked places changes nothing, at three lengths (tier 2)."""
    subject = context.subject
    if subject.kind == "classifier":
        raise Unanswerable("its rows have inputs of their own, and are drawn without padding")
    asked = context.asked_there
    lengths = sorted({8, context.length, min(2 * context.length, subject.longest or 1 << 30)})
    worst: CheckResult | None = None
    with stirred(subject, seed=context.seed), at_rest(subject):
        for length in lengths:
            asked["length"] = length
            found = probes.probe_padding_invariance(
                subject,
                **asked,
                takes_mask=subject.takes_mask,
                takes_positions=subject.takes_positions,
            )
            if found.failed:
                return dataclasses.replace(found, reason=f"{found.reason} (rows of {length})")
            if worst is None or (found.value or 0.0) > (worst.value or 0.0):
                worst = found
    assert worst is not None
    lengths_told = ", ".join(map(str, lengths))
    return dataclasses.replace(worst, reason=f"{worst.reason} (rows of {lengths_told})")


def _with_a_way_out(found: CheckResult) -> CheckResult:
    remedy = f"{found.remedy}; if it is meant to read both ways, say so: causal=False"
    return dataclasses.replace(found, remedy=remedy)
