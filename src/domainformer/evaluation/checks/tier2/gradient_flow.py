"""The flow of gradients through the layers: does the first learn as the last does?

::

    g_l = rms of the gradient of block l's matrices / rms of these matrices
    flow = max_l g_l / min_l g_l          near 1 with residuals; 10^k where gradients vanish
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Unanswerable
from domainformer.models.surgery.stacks import stacks_of
from domainformer.models.universal.probing import at_rest, stirred
from domainformer.models.universal.verdict import CheckResult

_WARN, _FAIL = 100.0, 10_000.0


def check_gradient_flow(context: Context) -> CheckResult:
    """Relative gradients of the layers are within two orders of magnitude of each other."""
    subject = context.subject
    blocks = _blocks(subject.model)
    if len(blocks) < 2:
        raise Unanswerable("it has no two layers with matrices to be compared")
    with stirred(subject, seed=context.seed), at_rest(subject), torch.enable_grad():
        subject.loss(subject.batch(context.rows, context.length, seed=context.seed)).backward()
        sizes = {name: _relative(part) for name, part in blocks.items()}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(known) < 2:
        raise Unanswerable("no gradient reaches two of its layers")
    if not all(math.isfinite(size) for size in known.values()):
        bad = [name for name, size in known.items() if not math.isfinite(size)]
        why = f"gradients are not finite in {', '.join(bad[:4])}"
        return CheckResult("gradient_flow", "fail", why, "see the check of gradients")
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    flow = known[high] / known[low] if known[low] else float("inf")
    told = (
        f"relative gradients of {len(known)} layers lie between {known[low]:.2g} ({low}) and "
        f"{known[high]:.2g} ({high})"
    )
    if flow <= _WARN:
        return CheckResult("gradient_flow", "pass", told, None, flow, _WARN)
    return CheckResult(
        "gradient_flow",
        "fail" if flow > _FAIL else "warn",
        told,
        "add residual connections with a norm before each block, or scale the initial weights",
        flow,
        _WARN,
    )


def _blocks(model: nn.Module) -> Mapping[str, nn.Module]:
    """Blocks of the lists that the model has; without lists, its modules with matrices."""
    found = {
        f"{stack.path}.{place}": block
        for stack in stacks_of(model)
        for place, block in enumerate(stack.blocks)
    }
    if len(found) >= 2:
        return found
    return {
        name: part
        for name, part in model.named_modules()
        if not isinstance(part, nn.Embedding)
        and any(one.dim() >= 2 for one in part.parameters(recurse=False))
    }


def _relative(part: nn.Module) -> float | None:
    """Gradient against weight, over all matrices of a part; None where nothing arrives."""
    weights = [one for one in part.parameters() if one.dim() >= 2 and one.grad is not None]
    if not weights:
        return None
    gradient = sum(float(one.grad.double().square().sum()) for one in weights)
    size = sum(float(one.detach().double().square().sum()) for one in weights)
    return math.sqrt(gradient / size) if size else None
