"""Questions to a language model that a few forward passes answer.

::

    run(input_ids [B, L], attention_mask [B, L] | None) ─▶ logits [B, L, V]

    probe_shapes              finite logits for every token, at several B and L
    probe_determinism         the same question, the same answer
    context_probes.py         causality, causality_in_training, cache
    invariance_probes.py      batch_invariance, padding_invariance
    gradient_probes.py        gradients, modules_called

Each gives back one :class:`~domainformer.models.universal.verdict.CheckResult` and never raises for
a model's fault. Differences are measured in standard deviations of the logits over the tokens, the
limit is what rounding explains, and each probe has a *control*: where logits do not depend on the
tokens at all, nothing was shown, and the result is ``skip``. Call them in evaluation mode
(:func:`~domainformer.models.universal.probing.at_rest`) and with constant parameters stirred
(:func:`~domainformer.models.universal.probing.stirred`), as
:func:`~domainformer.models.universal.verification.verify` does.
"""

from __future__ import annotations

import torch

from domainformer.models.universal.context_probes import (
    Advance,
    PaddedAdvance,
    probe_cache,
    probe_causality,
    probe_causality_in_training,
)
from domainformer.models.universal.gradient_probes import probe_gradients, probe_modules_called
from domainformer.models.universal.invariance_probes import (
    probe_batch_invariance,
    probe_padding_invariance,
)
from domainformer.models.universal.probing import (
    Runner,
    difference,
    draw_tokens,
    first_answer,
    other_tokens,
    reported,
    told,
)
from domainformer.models.universal.verdict import CheckResult

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
        first, explained = first_answer(run, ids)
        touched = not torch.equal(before, torch.get_rng_state())
        torch.manual_seed(_UNLIKELY + seed + 1)
        run(other_tokens(ids, vocab_size), None)
        again = run(ids, None)
    limit = explained / 100 if limit is None else limit
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


__all__ = [
    "Advance",
    "PaddedAdvance",
    "Runner",
    "probe_batch_invariance",
    "probe_cache",
    "probe_causality",
    "probe_causality_in_training",
    "probe_determinism",
    "probe_gradients",
    "probe_modules_called",
    "probe_padding_invariance",
    "probe_shapes",
]
