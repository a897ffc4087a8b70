"""Questions that a backward pass answers: does everything in a model learn, is all of it used?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from domainformer.models.universal.probing import (
    at_rest,
    draw_tokens,
    listed,
    repeatable,
    reported,
)
from domainformer.models.universal.verdict import CheckResult

# Experts that no token was routed to, and layers that were dropped, get their turn in another draw,
# each of twice as many rows.
_DRAWS = 4
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.AlphaDropout)


@reported("gradients")
def probe_gradients(
    module: nn.Module,
    run: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
) -> CheckResult:
    """Whether every trainable parameter gets a finite gradient that is not all zero.

    The loss is that of the next token, in training mode; up to four batches, and one in evaluation
    mode, are tried before a parameter counts as unreached. Gradients, modes and buffers are as
    before afterwards.

    Args:
        module: Whose parameters.
        run: Its logits for ids; must not be under ``no_grad``.
        vocab_size: Ids are below it.
        length: Tokens per row.
        seed: Of the tokens, and of dropout.

    Example:
        >>> model = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 20))
        >>> probe_gradients(model, lambda ids, mask: model(ids), vocab_size=20).passed
        True
    """
    weights = {name: one for name, one in module.named_parameters() if one.requires_grad}
    if not weights:
        return CheckResult("gradients", "skip", "no parameter is trainable")
    with at_rest(module, training=True):
        torch.manual_seed(seed)
        pending, broken = dict(weights), _backward(module, run, vocab_size, length, seed, 0)
        for draw in range(_DRAWS):
            if draw:
                broken = broken or _backward(module, run, vocab_size, length, seed, draw)
            bad = [name for name, one in weights.items() if not _finite(one)]
            if broken or bad:
                return CheckResult(
                    "gradients",
                    "fail",
                    broken or f"gradients are not finite: {listed(bad)}",
                    "look for sqrt, log or a division at zero, and for rows that are masked whole",
                    value=float(len(bad)),
                    limit=0.0,
                )
            pending = {name: one for name, one in pending.items() if not _reached(one)}
            if not pending:
                break
        if pending and not isinstance(_quietly(module, run, vocab_size, length, seed), Exception):
            pending = {name: one for name, one in pending.items() if not _reached(one)}
        lost = [name for name, one in pending.items() if one.grad is None]
        zero = [name for name in pending if name not in lost]
    if not pending:
        why = f"each of {len(weights)} trainable parameters has a finite gradient, none all zero"
        return CheckResult("gradients", "pass", why, None, 0.0, 0.0)
    parts = [f"no gradient reaches {listed(lost)}"] if lost else []
    parts += [f"the gradient of {listed(zero)} is zero throughout"] if zero else []
    return CheckResult(
        "gradients",
        "fail",
        "; ".join(parts),
        "use them without detach, .data or no_grad, or freeze them: requires_grad_(False)",
        value=float(len(pending)),
        limit=0.0,
    )


@reported("modules_called")
def probe_modules_called(
    module: nn.Module,
    run: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
) -> CheckResult:
    """Whether every submodule takes part: it is called, a part of it is, or its weights count.

    Weights may be used without a call (a tied head, ``nn.MultiheadAttention``): then they learn,
    or, frozen ones and buffers, the logits are others when they are.

    Args:
        module: Whose submodules.
        run: Its logits for ids; must not be under ``no_grad``.
        vocab_size: Ids are below it.
        length: Tokens per row.
        seed: Of the tokens, and of dropout.

    Example:
        >>> model = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 20))
        >>> model[0].spare = nn.Linear(4, 4)
        >>> probe_modules_called(model, lambda ids, mask: model(ids), vocab_size=20).reason
        'never used: 0.spare'
    """
    called: set[nn.Module] = set()
    with at_rest(module, training=True):
        torch.manual_seed(seed)
        handles = [
            part.register_forward_pre_hook(lambda own, _: called.add(own))
            for part in module.modules()
        ]
        try:
            for draw in range(_DRAWS):
                _backward(module, run, vocab_size, length, seed, draw)
                called |= {part for part in module.modules() if _learns(part)}
                if not _unused(module, called):
                    break
        finally:
            for handle in handles:
                handle.remove()
    unused = _unused(module, called)
    with at_rest(module):
        idle = unused.items()
        called |= {own for _, own in idle if _matters(own, module, run, vocab_size, length, seed)}
    unused = _unused(module, called)
    weighty = [name for name, part in unused.items() if any(True for _ in part.parameters())]
    if weighty:
        return CheckResult(
            "modules_called",
            "fail",
            f"never used: {listed(weighty)}",
            "call them in forward, or delete them",
            value=float(len(weighty)),
            limit=0.0,
        )
    silent = [name for name, part in unused.items() if not isinstance(part, _DROPOUTS)]
    if silent:
        return CheckResult(
            "modules_called",
            "warn",
            f"never called: {listed(silent)}",
            "they have no weights; call them where they were meant to act, or delete them",
            value=float(len(silent)),
            limit=0.0,
        )
    why = f"all {sum(1 for _ in module.modules()) - len(unused)} modules take part"
    if unused:
        why += f"; {len(unused)} dropouts are not called (fused attention reads their rate itself)"
    return CheckResult("modules_called", "pass", why, None, 0.0, 0.0)


def _backward(
    module: nn.Module,
    run: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    vocab_size: int,
    length: int,
    seed: int,
    draw: int,
) -> str | None:
    """Add the gradients of one batch; what is wrong with its loss, if anything."""
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    ids = draw_tokens(4 << draw, length, vocab_size, seed=seed + draw, device=device)
    with torch.enable_grad():
        logits = run(ids, None)
        if not logits.requires_grad:
            return "the logits are cut off from every parameter"
        loss = F.cross_entropy(
            logits[:, :-1].float().reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)
        )
        if not bool(torch.isfinite(loss)):
            return f"the loss of the next token is {float(loss)}"
        loss.backward()
    return None


def _quietly(
    module: nn.Module,
    run: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    vocab_size: int,
    length: int,
    seed: int,
) -> str | Exception | None:
    """Gradients of one more batch in evaluation mode, where no layer is dropped at random."""
    module.eval()
    try:
        return _backward(module, run, vocab_size, length, seed, 0)
    except RuntimeError as error:  # cuDNN's recurrent layers learn in training mode alone
        return error


@torch.no_grad()
def _matters(
    part: nn.Module,
    module: nn.Module,
    run: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    vocab_size: int,
    length: int,
    seed: int,
) -> bool:
    """Whether logits change with the weights and buffers of a part, and do not without."""
    tensors = [one for one in (*part.parameters(), *part.buffers()) if one.is_floating_point()]
    if not tensors:
        return False
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    ids = draw_tokens(2, length, vocab_size, seed=seed, device=device)

    def ask() -> torch.Tensor:
        with repeatable(seed):
            return run(ids, None).clone()

    kept, before = [one.clone() for one in tensors], ask()
    if not torch.equal(before, ask()):
        return False
    try:
        for one in tensors:
            one.mul_(1.5).add_(0.1)
        return not torch.equal(before, ask())
    finally:
        for one, value in zip(tensors, kept, strict=True):
            one.copy_(value)


def _finite(weight: torch.Tensor) -> bool:
    return weight.grad is None or bool(torch.isfinite(_dense(weight.grad)).all())


def _reached(weight: torch.Tensor) -> bool:
    return weight.grad is not None and bool((_dense(weight.grad) != 0).any())


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _learns(part: nn.Module) -> bool:
    return any(one.grad is not None for one in part.parameters(recurse=False))


def _unused(module: nn.Module, used: set[nn.Module]) -> dict[str, nn.Module]:
    """Modules that neither are used nor have a part that is; of those only the outermost."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        empty = isinstance(part, (nn.ModuleList, nn.ModuleDict, nn.Sequential)) and not len(part)
        if inside or empty or isinstance(part, (nn.ParameterList, nn.ParameterDict, nn.Identity)):
            continue
        if not any(inner in used for inner in part.modules()):
            found[name] = part
    return found
