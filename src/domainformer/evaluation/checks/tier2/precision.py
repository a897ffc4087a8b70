"""fp32 against bf16: are the logits the same but for rounding?

bf16 keeps 8 bits of a number. Where large numbers cancel, nothing of the difference is left.
"""

from __future__ import annotations

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.models.universal.probing import at_rest, draw_tokens, spread, told
from domainformer.models.universal.verdict import CheckResult

_WARN, _FAIL = 0.1, 0.5  # rms difference in spreads of the logits


@torch.no_grad()
def check_precision(context: Context) -> CheckResult:
    """Logits of a copy in bf16 are near those in fp32; where a cast fails, under autocast."""
    subject = context.subject
    ids = draw_tokens(
        4, context.length, subject.vocab_size, seed=context.seed, device=subject.device
    )
    with at_rest(subject):
        exact = subject.copied().float()(ids)
        how, cast = "cast to bf16", None
        try:
            rounded = subject.copied().to(torch.bfloat16)(ids)
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
            cast = told(error)
            how = "under autocast to bf16"
            with torch.autocast(subject.device.type, dtype=torch.bfloat16):
                rounded = subject(ids)
    size = spread(exact)
    apart = float((exact.double() - rounded.double()).square().mean().sqrt())
    value = apart / size if size else 0.0
    same = float((exact.argmax(-1) == rounded.argmax(-1)).double().mean())
    why = (
        f"{how}, logits move by {100 * value:.1f} % of their spread; {100 * same:.0f} % of the "
        "first choices stay"
    )
    if not value <= _FAIL:
        return CheckResult(
            "precision",
            "fail",
            why,
            "subtract large numbers in float32, and normalise before they grow",
            value,
            _WARN,
        )
    if value > _WARN or cast is not None:
        return CheckResult(
            "precision",
            "warn",
            f"{why} (a cast of the model raises {cast})" if cast else why,
            "make tensors in the type of the input: torch.zeros_like, x.new_ones"
            if cast
            else "keep norms, softmax and the last layer in float32",
            value,
            _WARN,
        )
    return CheckResult("precision", "pass", why, None, value, _WARN)
