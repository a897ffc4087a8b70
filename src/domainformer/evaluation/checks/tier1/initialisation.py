"""How a model begins: its weights, and its loss before it has learned anything.

An untrained model knows nothing, and should say so: the loss of its next token is near ln V. Above,
its logits are too large; below it cannot be, on tokens that were drawn evenly, without looking.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from domainformer.evaluation.checks.context import Context
from domainformer.models.universal.probing import at_rest, draw_tokens, listed
from domainformer.models.universal.verdict import CheckResult

_ABOVE = 0.75  # nats that the spread of an untrained model's logits may cost
_BATCHES = 4
_ROWS = 16
_STANDARD_ERRORS = 5


def check_weights(context: Context) -> CheckResult:
    """No weight is NaN or infinite, no matrix is one number, no two parameters are the same."""
    weights = dict(context.subject.model.named_parameters())
    if not weights:
        return CheckResult("weights", "skip", "it has no parameters")
    broken = [name for name, one in weights.items() if not bool(torch.isfinite(one).all())]
    if broken:
        return CheckResult(
            "weights",
            "fail",
            f"not finite: {listed(broken)}",
            "initialise them again, or load the last checkpoint that was whole",
            float(len(broken)),
            0.0,
        )
    flat = [name for name, one in weights.items() if _constant(one)]
    alike = [name for name in flat if bool((weights[name] != 0).any())]
    if alike:
        return CheckResult(
            "weights",
            "fail",
            f"a matrix of one number, whose units would stay alike for ever: {listed(alike)}",
            "draw them: torch.nn.init.normal_(weight, std=0.02)",
            float(len(alike)),
            0.0,
        )
    twins = _twins({name: one for name, one in weights.items() if name not in flat})
    if twins:
        return CheckResult(
            "weights",
            "warn",
            f"parameters with the same values, and not tied: {listed(twins)}",
            "draw each by itself (copy.deepcopy of a layer copies its values), or tie them",
            float(len(twins)),
            0.0,
        )
    if flat and context.trained:
        why = f"all zero after training: {listed(flat)}"
        return CheckResult("weights", "warn", why, "see whether they learn", float(len(flat)), 0.0)
    zero = f"; all zero at first: {listed(flat)}" if flat else ""
    return CheckResult(
        "weights",
        "pass",
        f"{len(weights)} parameters, finite, each with values of its own{zero}",
        None,
        0.0,
        0.0,
    )


def check_initial_loss(context: Context) -> CheckResult:
    """The loss on tokens that were drawn evenly: ln V of an untrained model, never below."""
    subject = context.subject
    losses = _even_losses(context)
    mean, error = float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))
    count = subject.vocab_size
    drawn = count if subject.kind == "classifier" else count - (4 if count >= 16 else 0)
    floor, start = math.log(drawn), math.log(count)
    told = f"{mean:.2f} nats on evenly drawn {'labels' if subject.kind == 'classifier' else 'ids'}"
    if mean < floor - _STANDARD_ERRORS * error - 0.05:
        return CheckResult(
            "initial_loss",
            "fail",
            f"{told}, below their entropy of {floor:.2f}: it sees what it is to predict",
            "see whether the labels, or the next token, are among its inputs",
            mean,
            floor,
        )
    if mean <= start + _ABOVE:
        return CheckResult(
            "initial_loss",
            "pass",
            f"{told}, near ln {count:,} = {start:.2f}",
            None,
            mean,
            start + _ABOVE,
        )
    if context.trained:
        why = f"{told}, above ln {count:,} = {start:.2f}: it was trained on something else"
        return CheckResult("initial_loss", "skip", why, None, mean, start + _ABOVE)
    return CheckResult(
        "initial_loss",
        "fail" if context.trained is False else "warn",
        f"{told}, well above ln {count:,} = {start:.2f}: its logits are too large"
        + ("" if context.trained is False else ", unless it was trained"),
        "draw the embedding and the head with std 0.02, or scale the logits"
        + ("" if context.trained is False else "; say trained=True of a trained model"),
        mean,
        start + _ABOVE,
    )


def _even_losses(context: Context) -> torch.Tensor:
    """Mean losses of single rows; of a classifier, of batches."""
    subject = context.subject
    with at_rest(subject), torch.no_grad():
        if not subject.causal:
            batches = [subject.batch(_ROWS, context.length, seed=i) for i in range(_BATCHES)]
            return torch.stack([subject.loss(batch).float().cpu() for batch in batches])
        ids = draw_tokens(
            _ROWS, context.length, subject.vocab_size, seed=context.seed, device=subject.device
        )
        return subject.nll(ids).mean(dim=1).cpu()


def _constant(weight: nn.Parameter) -> bool:
    flat = weight.detach().reshape(-1)
    return weight.dim() >= 2 and min(weight.shape) > 1 and bool((flat == flat[0]).all())


def _twins(weights: dict[str, nn.Parameter]) -> list[str]:
    """Pairs of matrices with the same values; what is tied is one parameter, and comes once."""
    seen: dict[tuple[object, ...], str] = {}
    found: list[str] = []
    for name, weight in weights.items():
        if weight.dim() < 2 or weight.numel() < 2:
            continue
        values = weight.detach().double()
        key = (tuple(weight.shape), float(values.sum()), float(values.square().sum()))
        first = seen.setdefault(key, name)
        if first != name and torch.equal(weights[first], weight):
            found.append(f"{first} and {name}")
    return found
