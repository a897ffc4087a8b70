"""Throughput: tokens per second, and whether a batch is worth it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.models.universal.probing import at_rest
from domainformer.models.universal.verdict import CheckResult

_ROUNDS = 5
_ROWS = 8
_SHORT = 4
_MOST = 0.75


def check_throughput(context: Context) -> CheckResult:
    """Eight rows take far less than eight times as long as one.

    Rows of few tokens are compared, as there any model has room; the shortest of five runs that
    take turns counts, so that others on the machine matter little.
    """
    subject = context.subject
    times = _fastest(
        {
            "one": lambda: _forward(context, 1, _SHORT),
            "eight": lambda: _forward(context, _ROWS, _SHORT),
            "forward": lambda: _forward(context, _ROWS, context.length),
            "step": lambda: _step(context),
        },
        subject.device,
        context,
    )
    tokens = _ROWS * context.length
    ratio = times["eight"] / times["one"]
    told = (
        f"{tokens / times['forward']:,.0f} tokens/s forward, {tokens / times['step']:,.0f} in "
        f"training ({_ROWS} rows of {context.length}); eight rows take {ratio:.1f} times one"
    )
    if subject.kind != "classifier" and ratio > _MOST * _ROWS:
        return CheckResult(
            "throughput",
            "warn",
            told,
            "compute the rows together: no loop over the batch in forward",
            ratio,
            _MOST * _ROWS,
        )
    return CheckResult("throughput", "pass", told, None, ratio, _MOST * _ROWS)


def _fastest(
    runs: dict[str, Callable[[], None]], device: torch.device, context: Context
) -> dict[str, float]:
    best = dict.fromkeys(runs, float("inf"))
    begun = time.perf_counter()
    for _ in range(_ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best[name] = min(best[name], time.perf_counter() - start)
        if time.perf_counter() - begun > context.seconds:
            break
    return best


@torch.no_grad()
def _forward(context: Context, rows: int, length: int) -> None:
    ids = torch.full((rows, length), context.subject.vocab_size // 2)
    with at_rest(context.subject):
        context.subject(ids.to(context.subject.device))


def _step(context: Context) -> None:
    subject = context.subject
    with at_rest(subject), torch.enable_grad():
        subject.loss(subject.batch(_ROWS, context.length, seed=0)).backward()
