"""Behaviour over lengths: from one token to the longest row, and one beyond."""

from __future__ import annotations

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Unanswerable
from domainformer.models.universal.probing import at_rest, draw_tokens, told
from domainformer.models.universal.verdict import CheckResult

_LONGEST_TRIED = 2048


@torch.no_grad()
def check_lengths(context: Context) -> CheckResult:
    """Finite logits from one token to the context that the model states; what happens beyond."""
    subject = context.subject
    if subject.kind == "classifier":
        raise Unanswerable("its rows have inputs of their own")
    stated = subject.longest
    most = min(stated or 8 * context.length, _LONGEST_TRIED)
    lengths = sorted({1, 2, 3, context.length, most // 2 + 1, most} - {0})
    with at_rest(subject):
        for length in (one for one in lengths if one <= most):
            wrong = _wrong(context, length)
            if wrong is None:
                continue
            last = f" of the {stated} that it states" if stated else ""
            if stated is None and length > context.length:
                return CheckResult(
                    "lengths",
                    "warn",
                    f"rows of {length} tokens {wrong}, and it states no longest row",
                    "state it: config.max_position_embeddings",
                    float(length),
                    float(most),
                )
            return CheckResult(
                "lengths",
                "fail",
                f"rows of {length} tokens{last} {wrong}",
                "make position tables as long as the context that is stated",
                float(length),
                float(most),
            )
        beyond = ""
        if stated is not None and stated < _LONGEST_TRIED:
            wrong = _wrong(context, stated + 1)
            beyond = "; goes on beyond" if wrong is None else "; one more is refused"
        elif stated is not None and stated > _LONGEST_TRIED:
            beyond = f" (it states {stated:,})"
    why = f"finite logits for rows of 1 to {most} tokens{beyond}"
    return CheckResult("lengths", "pass", why, None, float(most), float(most))


def _wrong(context: Context, length: int) -> str | None:
    subject = context.subject
    ids = draw_tokens(1, length, subject.vocab_size, seed=context.seed, device=subject.device)
    try:
        logits = subject(ids)
    except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
        return f"raise {told(error)}"
    if logits.shape[:2] != ids.shape:
        return f"give logits {list(logits.shape)}"
    return None if bool(torch.isfinite(logits).all()) else "give logits that are not finite"
