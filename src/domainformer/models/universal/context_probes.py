"""Questions about what a logit may know: not the future, and with a cache all of the past.

::

    probe_causality              tokens after t, and the length of the row, leave logits at t alone
    probe_causality_in_training  so do they where the loss is taken
    probe_cache                  and so does having been computed before, at several lengths of row
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from domainformer.models.universal.probing import (
    Runner,
    at_rest,
    difference,
    draw_tokens,
    first_answer,
    other_tokens,
    repeatable,
    reported,
    vacuous,
)
from domainformer.models.universal.verdict import CheckResult

Advance = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]
"""``advance(input_ids [B, n], cache | None) -> (logits [B, n, V], cache)``, without positions."""
PaddedAdvance = Callable[[torch.Tensor, Any, torch.Tensor], tuple[torch.Tensor, Any]]
"""The same, with the attention mask [B, tokens so far]."""

# A row of 32 tokens is asked about at each place, a longer one at 31 of them.
_MOST_PLACES = 31
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d)
_CACHED = "cached logits equal uncached ones, without position_ids"


@reported("causality")
@torch.no_grad()
def probe_causality(
    run: Runner,
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    limit: float | None = None,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Whether logits before t stay when token t changes, and when the row ends there.

    Args:
        run: The model, in evaluation mode.
        vocab_size: Ids are below it.
        length: Tokens of the row, L ≥ 2.
        seed: Of the tokens.
        limit: Largest difference; what rounding explains where None.
        device: Where the model is.

    Example:
        >>> table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        >>> probe_causality(lambda ids, mask: table[ids].cumsum(1), vocab_size=20).passed
        True
        >>> print(probe_causality(lambda ids, mask: table[ids].flip(1), vocab_size=20).reason)
        changing the tokens from 1 on moves the logits before it (at 0)
    """
    # One row at a time: what leaks between rows is another fault, with a line of its own.
    ids = draw_tokens(1, length, vocab_size, seed=seed, device=device)
    changed = other_tokens(ids, vocab_size)
    logits, explained = first_answer(run, ids)
    limit = explained if limit is None else limit
    worst, reacts, reaches = 0.0, 0.0, 0.0
    for t, end in _changes(length):
        other = ids.clone()
        other[:, t:end] = changed[:, t:end]
        found = run(other, None)
        worst = max(worst, difference(logits[:, :t], found[:, :t], logits))
        if worst > limit:
            moved = (logits[:, :t] - found[:, :t]).abs().amax(dim=(0, 2))
            which = f"token {t}" if end == t + 1 else f"the tokens from {t} on"
            return CheckResult(
                "causality",
                "fail",
                f"changing {which} moves the logits before it (at {int(moved.argmax())})",
                "mask the future in every layer that mixes positions",
                worst,
                limit,
            )
        reacts = max(reacts, difference(logits[:, t:], found[:, t:], logits))
        reaches = max(reaches, difference(logits[:, end:], found[:, end:], logits))
    if reacts <= limit:
        return vacuous("causality", reacts, limit)
    half = max(1, length // 2)
    value = difference(logits[:, :half], run(ids[:, :half], None), logits)
    if value > limit:
        return CheckResult(
            "causality",
            "fail",
            f"logits depend on how long the row is: cut at {half}, they are others",
            "count positions from the beginning, and take no statistics over the whole row",
            value,
            limit,
        )
    why = "changing token t leaves the logits before t untouched"
    if reaches <= limit:
        why += ", and those after it, too: each depends on its own token alone"
    return CheckResult("causality", "pass", why, None, max(worst, value), limit)


@reported("causality_in_training")
@torch.no_grad()
def probe_causality_in_training(
    module: nn.Module,
    run: Runner,
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    limit: float | None = None,
) -> CheckResult:
    """Whether logits before t stay when the tokens from t on change, in training mode.

    There the loss is taken: a mask that is forgotten in training reads the answers, and evaluation
    shows nothing of it. Each call draws the same random numbers, and dropout is left out.

    Args:
        module: Whose mode.
        run: Its logits for ids.
        vocab_size: Ids are below it.
        length: Tokens of the row, L ≥ 2.
        seed: Of the tokens and the draws.
        limit: Largest difference; what rounding explains where None.

    Example:
        >>> class Hasty(nn.Module):
        ...     def forward(self, x):
        ...         return x.cumsum(1) + (x.mean(1, keepdim=True) if self.training else 0)
        >>> model = nn.Sequential(nn.Embedding(20, 20), Hasty())
        >>> probe_causality(lambda ids, mask: model.eval()(ids), vocab_size=20).status
        'pass'
        >>> probe_causality_in_training(model, lambda ids, _: model(ids), vocab_size=20).status
        'fail'
    """
    name = "causality_in_training"
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    ids = draw_tokens(1, length, vocab_size, seed=seed, device=device)
    changed = other_tokens(ids, vocab_size)

    def ask(given: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        with repeatable(seed), _WithoutDropout():
            return run(given, mask)

    def leak() -> tuple[float, float, float]:
        logits, explained = first_answer(ask, ids)
        drift = difference(logits, ask(ids), logits)
        worst = 0.0
        for t in sorted({1, length // 4, length // 2, length - 1} - {0}):
            found = ask(torch.cat([ids[:, :t], changed[:, t:]], 1))
            worst = max(worst, difference(logits[:, :t], found[:, :t], logits))
        return worst, drift, explained

    with at_rest(module, training=True):
        worst, drift, explained = leak()
        limit = explained if limit is None else limit
        if drift > limit:
            why = "in training it draws anew at each call, and no seed repeats it: nothing is shown"
            return CheckResult(name, "skip", why, None, drift, limit)
        if worst <= limit:
            why = "in training mode, too, the tokens from t on leave the logits before t untouched"
            return CheckResult(name, "pass", why, None, worst, limit)
        norms = [part for part in module.modules() if isinstance(part, _BATCH_NORMS)]
        for part in norms:
            part.eval()
        if norms and leak()[0] <= limit:
            return CheckResult(
                name,
                "warn",
                "in training, batch norm takes its statistics over the whole row, future included",
                "a norm of each token by itself: LayerNorm, RMSNorm",
                worst,
                limit,
            )
    return CheckResult(
        name,
        "fail",
        "in training mode, changing later tokens moves the logits before them",
        "mask the future in training as in evaluation: the loss is taken there",
        worst,
        limit,
    )


class _WithoutDropout(TorchFunctionMode):
    """``F.dropout`` gives back what it gets: its draws depend on shapes, as of routed tokens."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.dropout:
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


@reported("cache")
@torch.no_grad()
def probe_cache(
    run: Runner,
    advance: Advance | None,
    *,
    padded: PaddedAdvance | None = None,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    limit: float | None = None,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Whether logits with a cache equal those without, and ``position_ids`` are never given.

    A cached forward that begins to count at zero again passes every test that gives positions.

    Args:
        run: The model without a cache, in evaluation mode.
        advance: The model with one; None: it has none.
        padded: The same with a mask of all tokens so far, as ``generate`` gives it; None: it takes
            none, and rows of several lengths are not asked about.
        vocab_size: Ids are below it.
        length: Tokens per row, at least 4: half at once, one by one, then the rest at once.
        seed: Of the tokens.
        limit: Largest difference; what rounding explains where None.
        device: Where the model is.

    Example:
        >>> table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        >>> def advance(ids, cache):
        ...     sums = table[ids].cumsum(1) + (0 if cache is None else cache)
        ...     return sums, sums[:, -1:]
        >>> probe_cache(lambda ids, mask: table[ids].cumsum(1), advance, vocab_size=20).passed
        True
    """
    if advance is None:
        return CheckResult("cache", "skip", "it has no cache: each new token costs the whole row")
    ids = draw_tokens(2, length, vocab_size, seed=seed, device=device)
    logits, explained = first_answer(run, ids)
    limit = explained if limit is None else limit
    worst, fault = _stepwise(lambda end, new, cache: advance(new, cache), ids, logits, limit)
    if fault is not None or padded is None:
        return fault or CheckResult("cache", "pass", _CACHED, None, worst, limit)
    mask = torch.ones_like(ids)
    mask[1, : max(1, length // 4)] = 0
    whole = run(ids, mask)
    value, fault = _stepwise(
        lambda end, new, cache: padded(new, cache, mask[:, :end]), ids, whole, limit, mask
    )
    if fault is not None:
        return replace(
            fault,
            reason=f"where a row is padded on the left: {fault.reason}",
            remedy="take a mask of all tokens, those in the cache as well, in every step",
        )
    return CheckResult("cache", "pass", _CACHED, None, max(worst, value), limit)


def _stepwise(
    step: Callable[[int, torch.Tensor, Any], tuple[torch.Tensor, Any]],
    ids: torch.Tensor,
    logits: torch.Tensor,
    limit: float,
    mask: torch.Tensor | None = None,
) -> tuple[float, CheckResult | None]:
    """Half at once, one by one, the rest at once: the largest difference, and what is wrong."""
    length = ids.shape[1]
    half = length // 2
    cuts = sorted({0, half, half + 1, half + 2, length})
    seen = torch.ones_like(ids) if mask is None else mask
    cache: Any = None
    worst = 0.0
    for begin, end in itertools.pairwise(cuts):
        found, cache = step(end, ids[:, begin:end], cache)
        if cache is None:
            reason = "it takes a cache and gives none back: it was not used"
            return worst, CheckResult("cache", "skip", reason)
        wanted = logits[:, begin:end]
        if found.shape != wanted.shape:
            return worst, CheckResult(
                "cache",
                "fail",
                f"for tokens {begin} to {end} it gave logits {tuple(found.shape)}",
                f"give logits for the new tokens alone: {tuple(wanted.shape)}",
            )
        real = seen[:, begin:end].bool()
        worst = max(worst, difference(found[real], wanted[real], logits))
        if worst > limit:
            return worst, CheckResult(
                "cache",
                "fail",
                f"with a cache of {begin} tokens the logits are others than without",
                "without position_ids, count on from the length of the cache",
                worst,
                limit,
            )
    return worst, None


def _changes(length: int) -> list[tuple[int, int]]:
    """Spans of tokens to change: all from each place on, whose leaks add up, and single ones.

    Every place of a short row is asked: a mask may be wrong at one of them alone.
    """
    step = max(1, math.ceil((length - 1) / _MOST_PLACES))
    places = sorted({*range(1, length, step), length - 1})
    alone = {1, length // 2, length - 1}
    return [(t, end) for t in places for end in sorted({t + 1, length} if t in alone else {length})]
