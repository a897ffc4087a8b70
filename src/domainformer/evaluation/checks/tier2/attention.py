"""Statistics of attention: where each head looks.

::

    entropy of a query at t, as a share of ln(t + 1)      1: everywhere alike    0: at one token
    sink: the attention on the first token                (Xiao et al. 2024, arXiv 2309.17453)

Weights are read from models of transformers (``attn_implementation="eager"``, on a copy) and from
``nn.MultiheadAttention``, whose weights are asked for by a hook. Others are skipped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import EncoderDecoder, Subject, Unanswerable
from domainformer.models.universal.forward import unwrapped
from domainformer.models.universal.probing import draw_tokens
from domainformer.models.universal.verdict import CheckResult

_ROWS = 4
_NARROW = 0.05
_SUM, _FUTURE = 1e-3, 1e-6


def check_attention(context: Context) -> CheckResult:
    """Weights of each query sum to 1 and leave the future alone; how narrow, how many sinks."""
    subject = context.subject
    layers = attention_weights(subject, context.length, seed=context.seed)
    heads = [(place, head) for place, one in enumerate(layers) for head in range(one.shape[1])]
    for place, weights in enumerate(layers):
        off = float((weights.sum(-1) - 1).abs().max())
        if not off < _SUM:
            return CheckResult(
                "attention",
                "fail",
                f"in layer {place} the weights of a query sum to 1 ± {off:.2g}",
                "take the softmax last, and over the keys",
                off,
                _SUM,
            )
        future = float(weights.triu(1).sum(-1).max())
        if subject.causal and future > _FUTURE:
            return CheckResult(
                "attention",
                "fail",
                f"in layer {place} a query spends {100 * future:.1f} % on tokens after it",
                "mask the future before the softmax, with −inf",
                future,
                _FUTURE,
            )
    entropies = torch.cat([_entropy(one, causal=subject.causal) for one in layers])
    sinks = torch.cat([one[:, :, 1:, 0].mean(dim=(0, 2)) for one in layers])
    narrow = int((entropies < _NARROW).sum())
    share = narrow / len(heads)
    told = (
        f"{len(heads)} heads: entropy {float(entropies.min()):.2f} to "
        f"{float(entropies.max()):.2f} of the largest, {100 * float(sinks.mean()):.0f} % on the "
        "first token"
    )
    if share > 0.5:
        return CheckResult(
            "attention",
            "warn",
            f"{told}; {narrow} heads look at one token alone",
            "see whether the scores are divided by the root of the head's width, or normalise "
            "queries and keys",
            share,
            0.5,
        )
    return CheckResult("attention", "pass", told, None, share, 0.5)


def attention_weights(subject: Subject, length: int, *, seed: int) -> list[torch.Tensor]:
    """Attention of each layer [B, heads, L, L], float32, over random tokens.

    Raises:
        Unanswerable: The model gives none.
    """
    if subject.kind == "classifier":
        raise Unanswerable("attention is looked at in models that give logits for every token")
    own = subject.copied()
    ids = draw_tokens(_ROWS, length, subject.vocab_size, seed=seed, device=subject.device)
    inner = unwrapped(own.model)
    found = (
        _of_transformers(own, inner, ids) if isinstance(inner, PreTrainedModel) else []
    ) or _of_torch(own, ids)
    if not found:
        raise Unanswerable(
            "no attention weights can be read: it is no model of transformers that gives them, "
            "and has no nn.MultiheadAttention that is called"
        )
    return [one.detach().float().cpu() for one in found]


def _of_transformers(own: Subject, inner: PreTrainedModel, ids: torch.Tensor) -> list[torch.Tensor]:
    try:
        inner.set_attn_implementation("eager")
        given: dict[str, Any] = {"input_ids": ids}
        if isinstance(own, EncoderDecoder):
            source: Any = own.source
            given = {"input_ids": source.expand(len(ids), -1), "decoder_input_ids": ids}
        with torch.no_grad():
            output = inner(**given, output_attentions=True)
    except (TypeError, ValueError, AttributeError, KeyError, NotImplementedError):
        return []
    name = "decoder_attentions" if isinstance(own, EncoderDecoder) else "attentions"
    found = getattr(output, name, None) or ()
    length = ids.shape[1]
    return [one for one in found if one is not None and tuple(one.shape[-2:]) == (length, length)]


def _of_torch(own: Subject, ids: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if output[1] is not None:
            found.append(output[1])

    for part in own.model.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_pre_hook(ask, with_kwargs=True)
            part.register_forward_hook(keep)
    with torch.enable_grad():  # without gradients torch takes a path that gives no weights
        own(ids)
    square = (ids.shape[1], ids.shape[1])
    return [one for one in found if one.dim() == 4 and tuple(one.shape[-2:]) == square]


def _entropy(weights: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Mean over queries, as a share of the largest there may be [heads]."""
    plogp = torch.special.entr(weights).sum(-1)
    length = weights.shape[-1]
    seen = torch.arange(1, length + 1) if causal else torch.full((length,), length)
    # The first query of a causal model has no choice.
    return (plogp / seen.log().clamp(min=1e-9))[:, :, 1:].mean(dim=(0, 2))
