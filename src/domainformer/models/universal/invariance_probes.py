"""Questions about what must not matter: the other rows of a batch, and padding.

::

    probe_batch_invariance    the other rows leave a row's logits alone
    probe_padding_invariance  so does what stands at masked places, in rows of several lengths
"""

from __future__ import annotations

import torch

from domainformer.models.universal.probing import (
    Runner,
    difference,
    draw_tokens,
    first_answer,
    other_tokens,
    reported,
    vacuous,
)
from domainformer.models.universal.verdict import CheckResult


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
    logits, explained = first_answer(run, ids)
    beside = run(mates, None)
    limit = explained if limit is None else limit
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
        return vacuous("batch_invariance", reacts, limit)
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
    takes_positions: bool = False,
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
        takes_positions: Whether ``run`` gives positions that padding does not shift; otherwise
            padding on the left may move logits, and a warning is all that is known.
        device: Where the model is.

    Example:
        >>> table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        >>> blind = lambda ids, mask: table[ids].cumsum(1)
        >>> probe_padding_invariance(blind, vocab_size=20).reason
        'the ids at masked places on the left change the logits of the others'
    """
    ids = draw_tokens(2, length, vocab_size, seed=seed, device=device)
    # Rows of two lengths: a mask that is read off the first row alone is wrong for the second.
    pads = [max(1, length // 4), length // 8]
    real = [ids[row, : length - pad] for row, pad in enumerate(pads)]
    logits, explained = first_answer(run, ids[:, : length - pads[0]])
    alone = [run(ids[:, : length - pad], None)[row].clone() for row, pad in enumerate(pads)]
    limit = explained if limit is None else limit
    reacts = difference(logits, run(other_tokens(ids, vocab_size)[:, : -pads[0]], None), logits)
    if reacts <= limit:
        return vacuous("padding_invariance", reacts, limit)
    worst, shifted = 0.0, 0.0
    for side in ("right", "left") if takes_mask else ("right",):
        filled = int(ids[0, 0])
        seen = []
        for fill in (filled, int(other_tokens(ids[:1, :1], vocab_size))):
            rows, mask = _padded(real, fill, length, side)
            answer = run(rows, mask if takes_mask else None)
            seen.append([own[own_mask.bool()] for own, own_mask in zip(answer, mask, strict=True)])
        value = max(difference(a, b, logits) for a, b in zip(seen[0], seen[1], strict=True))
        if value > limit:
            return CheckResult(
                "padding_invariance",
                "fail",
                f"the ids at masked places on the {side} change the logits of the others",
                "hand attention_mask to every layer that mixes positions",
                value,
                limit,
            )
        worst = max(worst, value)
        moved = max(difference(a, b, logits) for a, b in zip(seen[0], alone, strict=True))
        if moved > limit and (side == "right" or takes_positions):
            return CheckResult(
                "padding_invariance",
                "fail",
                f"a row that is padded on the {side} gives other logits than without padding",
                "let masked places take part in no sum, mean or normalisation: a mask of the "
                "embeddings alone still lets attention look there",
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
            "masked ids are ignored, but padding on the left moves the logits of the others: it "
            "shifts their positions, or masked places take part",
            "take position_ids, mask in attention, or generate rows of one length",
            shifted,
            limit,
        )
    why = "padding on either side leaves the logits of the other tokens alone"
    return CheckResult("padding_invariance", "pass", why, None, max(worst, shifted), limit)


def _padded(
    real: list[torch.Tensor], fill: int, length: int, side: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of several lengths as ids and mask [B, length]."""
    ids = real[0].new_full((len(real), length), fill)
    mask = torch.zeros_like(ids)
    for row, own in enumerate(real):
        place = slice(0, len(own)) if side == "right" else slice(length - len(own), length)
        ids[row, place], mask[row, place] = own, 1
    return ids, mask
