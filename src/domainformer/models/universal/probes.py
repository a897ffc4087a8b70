"""Questions to a language model that a few forward passes answer.

::

    run(input_ids [B, L], attention_mask [B, L] | None) ─▶ logits [B, L, V]

    probe_shapes              finite logits for every token, at several B and L
    probe_determinism         the same question, the same answer
    probe_causality           tokens after t, and the length of the row, leave logits at t alone
    probe_batch_invariance    so do the other rows of the batch
    probe_padding_invariance  so does what stands at masked places
    probe_cache               and so does having been computed before
    probe_gradients, probe_modules_called   (gradient_probes.py)

Each gives back one :class:`~domainformer.models.universal.verdict.CheckResult` and never raises for
a model's fault. Differences are measured in standard deviations of the logits over the tokens, the
limit is what rounding explains, and each probe has a *control*: where logits do not depend on the
tokens at all, nothing was shown, and the result is ``skip``. Call them in evaluation mode
(:func:`~domainformer.models.universal.probing.at_rest`) and with constant parameters stirred
(:func:`~domainformer.models.universal.probing.stirred`), as
:func:`~domainformer.models.universal.verification.verify` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from domainformer.models.universal.gradient_probes import probe_gradients, probe_modules_called
from domainformer.models.universal.probing import (
    difference,
    draw_tokens,
    limit_of,
    other_tokens,
    reported,
    told,
)
from domainformer.models.universal.verdict import CheckResult

Runner = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""``run(input_ids [B, L] int64, attention_mask [B, L] | None) -> logits [B, L, V]``."""
Advance = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]
"""``advance(input_ids [B, n], cache | None) -> (logits [B, n, V], cache)``, without positions."""

# A forward that seeds itself uses 0 or 1, and would hide behind a probe that does so, too.
_UNLIKELY = 982_451_653


@reported("shapes")
@torch.no_grad()
def probe_shapes(
    run: Runner,
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Whether there are finite logits [B, L, V] for several B and L: "it runs".

    Args:
        run: The model.
        vocab_size: Ids that it knows; V may be larger (padded for speed), not smaller.
        length: The largest L, in tokens.
        seed: Of the tokens.
        device: Where the model is.

    Example:
        >>> table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        >>> probe_shapes(lambda ids, mask: table[ids], vocab_size=20).reason
        'logits [B, L, 20], finite, at (2, 16), (1, 16), (3, 8)'
    """
    asked = [(2, length), (1, length), (3, max(2, length // 2))]
    width = 0
    for batch, tokens in asked:
        ids = draw_tokens(batch, tokens, vocab_size, seed=seed, device=device)
        try:
            logits = run(ids, None)
        except Exception as error:
            if (batch, tokens) == asked[0]:
                raise
            return CheckResult(
                "shapes",
                "fail",
                f"it takes {asked[0]} tokens, but at {(batch, tokens)} raised {told(error)}",
                "let no batch size or length be fixed in the model",
            )
        if logits.dim() != 3 or tuple(logits.shape[:2]) != (batch, tokens):
            return CheckResult(
                "shapes",
                "fail",
                f"for ids {(batch, tokens)} it gave logits {tuple(logits.shape)}",
                f"give logits for every token: {(batch, tokens, vocab_size)}",
            )
        width = logits.shape[2]
        if width < vocab_size:
            return CheckResult(
                "shapes",
                "fail",
                f"it scores {width} ids, and the vocabulary has {vocab_size}",
                "make the last projection as wide as the vocabulary",
                value=float(width),
                limit=float(vocab_size),
            )
        if not bool(torch.isfinite(logits).all()):
            return CheckResult(
                "shapes",
                "fail",
                f"logits at {(batch, tokens)} are not finite",
                "look for a division by zero, a row that is wholly masked, or an overflow",
            )
    seen = ", ".join(str(one) for one in asked)
    wider = "" if width == vocab_size else f" (the vocabulary has {vocab_size})"
    return CheckResult("shapes", "pass", f"logits [B, L, {width}]{wider}, finite, at {seen}")


@reported("determinism")
@torch.no_grad()
def probe_determinism(
    run: Runner,
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    limit: float | None = None,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Whether the same ids give the same logits, after another input and another random state.

    Args:
        run: The model, in evaluation mode.
        vocab_size: Ids are below it.
        length: Tokens per row.
        seed: Of the tokens.
        limit: Largest difference; what rounding explains where None.
        device: Where the model is.

    Example:
        >>> probe_determinism(lambda ids, mask: torch.rand(*ids.shape, 9), vocab_size=9).status
        'fail'
    """
    ids = draw_tokens(2, length, vocab_size, seed=seed, device=device)
    with torch.random.fork_rng():
        torch.manual_seed(_UNLIKELY + seed)
        before = torch.get_rng_state()
        first = run(ids, None).clone()
        touched = not torch.equal(before, torch.get_rng_state())
        torch.manual_seed(_UNLIKELY + seed + 1)
        run(other_tokens(ids, vocab_size), None)
        again = run(ids, None)
    limit = limit_of(first) / 100 if limit is None else limit
    value = difference(first, again, first)
    if value > limit:
        return CheckResult(
            "determinism",
            "fail",
            "the same ids give other logits the second time, in evaluation mode",
            "draw nothing when not self.training, and keep nothing between calls",
            value=value,
            limit=limit,
        )
    if touched:
        return CheckResult(
            "determinism",
            "warn",
            "the answer is the same, but forward moves the global random state",
            "draw nothing in evaluation mode, and never seed inside forward",
            value=value,
            limit=limit,
        )
    return CheckResult("determinism", "pass", "the same ids, the same logits", None, value, limit)


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
    logits = run(ids, None).clone()
    limit = limit_of(logits) if limit is None else limit
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
        return _vacuous("causality", reacts, limit)
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


@reported("batch_invariance")
@torch.no_grad()
def probe_batch_invariance(
    run: Runner,
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    limit: float | None = None,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Whether a row's logits are the same with other rows beside it, and alone.

    Args:
        run: The model, in evaluation mode.
        vocab_size: Ids are below it.
        length: Tokens per row.
        seed: Of the tokens.
        limit: Largest difference; what rounding explains where None.
        device: Where the model is.

    Example:
        >>> table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        >>> mixing = lambda ids, mask: table[ids] + table[ids].mean(0)
        >>> probe_batch_invariance(mixing, vocab_size=20).reason
        'the logits of a row change with the other rows of the batch'
    """
    ids = draw_tokens(3, length, vocab_size, seed=seed, device=device)
    mates = torch.cat([ids[:1], other_tokens(ids[1:], vocab_size)])
    logits, beside = run(ids, None).clone(), run(mates, None)
    limit = limit_of(logits) if limit is None else limit
    leak = difference(logits[:1], beside[:1], logits)
    if leak > limit:
        return CheckResult(
            "batch_invariance",
            "fail",
            "the logits of a row change with the other rows of the batch",
            "reduce over the batch nowhere: LayerNorm for BatchNorm, dim=1 and not dim=0",
            leak,
            limit,
        )
    reacts = difference(logits[1:], beside[1:], logits)
    if reacts <= limit:
        return _vacuous("batch_invariance", reacts, limit)
    alone = difference(logits[:1], run(ids[:1], None), logits)
    if alone > limit:
        return CheckResult(
            "batch_invariance",
            "fail",
            "a row by itself gives other logits than in a batch",
            "let nothing depend on the size of the batch",
            alone,
            limit,
        )
    why = "a row gives the same logits alone and beside any others"
    return CheckResult("batch_invariance", "pass", why, None, max(leak, alone), limit)


@reported("padding_invariance")
@torch.no_grad()
def probe_padding_invariance(
    run: Runner,
    *,
    vocab_size: int,
    length: int = 16,
    seed: int = 0,
    limit: float | None = None,
    takes_mask: bool = True,
    device: torch.device | str = "cpu",
) -> CheckResult:
    """Whether what stands at masked places, on the right and on the left, leaves the rest alone.

    Args:
        run: The model, in evaluation mode.
        vocab_size: Ids are below it.
        length: Tokens per row; a quarter of them is padding.
        seed: Of the tokens.
        limit: Largest difference; what rounding explains where None.
        takes_mask: Whether ``run`` looks at its mask; where not, only the right side is asked.
        device: Where the model is.

    Example:
        >>> table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        >>> blind = lambda ids, mask: table[ids].cumsum(1)
        >>> probe_padding_invariance(blind, vocab_size=20).reason
        'the ids at masked places on the left change the logits of the others'
    """
    ids = draw_tokens(2, length, vocab_size, seed=seed, device=device)
    pads = max(1, length // 4)
    real = ids[:, : length - pads]
    alone = run(real, None).clone()
    limit = limit_of(alone) if limit is None else limit
    reacts = difference(alone, run(other_tokens(real, vocab_size), None), alone)
    if reacts <= limit:
        return _vacuous("padding_invariance", reacts, limit)
    worst, shifted = 0.0, 0.0
    for side in ("right", "left") if takes_mask else ("right",):
        mask = _mask_of(ids, pads, side)
        place = slice(None, -pads) if side == "right" else slice(pads, None)
        one = torch.full((2, pads), int(ids[0, 0]), device=ids.device)
        seen = [
            run(_joined(real, fill, side), mask if takes_mask else None)[:, place].clone()
            for fill in (one, other_tokens(one, vocab_size))
        ]
        value = difference(seen[0], seen[1], alone)
        if value > limit:
            return CheckResult(
                "padding_invariance",
                "fail",
                f"the ids at masked places on the {side} change the logits of the others",
                "hand attention_mask to every layer that mixes positions",
                value,
                limit,
            )
        worst, moved = max(worst, value), difference(seen[0], alone, alone)
        if side == "right" and moved > limit:
            return CheckResult(
                "padding_invariance",
                "fail",
                "a row that is padded on the right gives other logits than without padding",
                "let masked places take part in no sum, mean or normalisation",
                moved,
                limit,
            )
        shifted = max(shifted, moved)
    if not takes_mask:
        why = "it takes no mask; what is padded on the right does no harm"
        return CheckResult("padding_invariance", "skip", why, None, worst, limit)
    if shifted > limit:
        return CheckResult(
            "padding_invariance",
            "warn",
            "masked ids are ignored, but padding on the left shifts the positions of the others",
            "take position_ids, or pad on the right and generate rows of one length",
            shifted,
            limit,
        )
    why = "padding on either side leaves the logits of the other tokens alone"
    return CheckResult("padding_invariance", "pass", why, None, max(worst, shifted), limit)


@reported("cache")
@torch.no_grad()
def probe_cache(
    run: Runner,
    advance: Advance | None,
    *,
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
    logits = run(ids, None).clone()
    limit = limit_of(logits) if limit is None else limit
    half = length // 2
    cuts = [0, half, half + 1, half + 2, length]
    cache: Any = None
    worst = 0.0
    for begin, end in itertools.pairwise(cuts):
        found, cache = advance(ids[:, begin:end], cache)
        if cache is None:
            return CheckResult(
                "cache", "skip", "it takes a cache and gives none back: it was not used"
            )
        if found.shape != logits[:, begin:end].shape:
            return CheckResult(
                "cache",
                "fail",
                f"for tokens {begin} to {end} it gave logits {tuple(found.shape)}",
                f"give logits for the new tokens alone: {tuple(logits[:, begin:end].shape)}",
            )
        value = difference(found, logits[:, begin:end], logits)
        if value > limit:
            return CheckResult(
                "cache",
                "fail",
                f"with a cache of {begin} tokens the logits are others than without",
                "without position_ids, count on from the length of the cache",
                value,
                limit,
            )
        worst = max(worst, value)
    why = "cached logits equal uncached ones, without position_ids"
    return CheckResult("cache", "pass", why, None, worst, limit)


def _changes(length: int) -> list[tuple[int, int]]:
    """Spans of tokens to change: single ones, and all from there on, whose leaks add up."""
    places = sorted({1, length // 2, length - 1})
    return [(t, end) for t in places for end in sorted({t + 1, length})]


def _mask_of(ids: torch.Tensor, pads: int, side: str) -> torch.Tensor:
    mask = torch.ones_like(ids)
    if side == "right":
        mask[:, -pads:] = 0
    else:
        mask[:, :pads] = 0
    return mask


def _joined(real: torch.Tensor, fill: torch.Tensor, side: str) -> torch.Tensor:
    return torch.cat([real, fill] if side == "right" else [fill, real], dim=1)


def _vacuous(name: str, value: float, limit: float) -> CheckResult:
    """Nothing moved at all: a model that ignores its tokens would pass everything."""
    return CheckResult(
        name,
        "skip",
        "the logits do not depend on the tokens, so that nothing is shown",
        "see whether a zero in the weights hides the rest, or the ids are not used",
        value,
        limit,
    )


__all__ = [
    "Advance",
    "Runner",
    "probe_batch_invariance",
    "probe_cache",
    "probe_causality",
    "probe_determinism",
    "probe_gradients",
    "probe_modules_called",
    "probe_padding_invariance",
    "probe_shapes",
]
