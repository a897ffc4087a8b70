"""Training through a choice: gates on the keys of image tokens, instead of dropping them.

::

    attention logit of query i and key j  +=  log gate(j)     j an image token, j ≠ i

A gate of 1 leaves the token, a gate of 0 hides it: at temperature 0 this is masking, which is
dropping. The gradient reaches the selector's scores alone. Above 0 the language model reads
through soft-dropped tokens, so **a soft loss says nothing about use**: anneal the temperature and
measure with ``RelevanceRealizer.forward``.

Positions are those of the full sequence under either policy, since nothing is dropped here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from domainformer.errors import VisionError
from domainformer.models.vision.compressed import joined
from domainformer.models.vision.gates import harden, open_gate, threshold_gate
from domainformer.models.vision.request import CompressionRequest
from domainformer.models.vision.shortening import full_inputs


@dataclass(frozen=True)
class SoftOutput:
    """What a soft pass gives.

    Args:
        loss: of the language model, where there are labels.
        logits: ``[B, S, V]`` at the columns of the full sequence.
        scores: one ``[K_i]`` per image, with gradient.
        kept_share: ``[N]``: mean smooth gate per image, the expected share of kept tokens, with
            gradient.
        mixing: per image, the weight of each way of knowing.
    """

    loss: Tensor | None
    logits: Tensor
    scores: tuple[Tensor, ...]
    kept_share: Tensor
    mixing: tuple[dict[str, float], ...] | None = None


def soft_forward(
    request: CompressionRequest,
    selector: Any,
    temperature: float,
    options: dict[str, Any],
    *,
    straight: bool = False,
) -> SoftOutput:
    """The language model on the full sequence, its image keys gated by the selector's scores.

    Args:
        request: with ``base``; budgets place the gate between kept and dropped tokens, without
            them it opens at score 0.
        selector: has ``score(request)``.
        temperature: of the gates.
        options: further arguments of the model's ``forward``.
        straight: the gate is hard in the forward pass, see :func:`gates.harden`.

    Raises:
        VisionError: the selector does not score, or the model's attention takes no additive mask.
    """
    base = request.base
    _check(base, selector)
    scored = selector.score(request)
    gates = _gates(request, scored.scores, temperature)
    kept_share = torch.stack([gate.exp().mean() for gate in gates])
    if straight:
        gates = [harden(gate, temperature) for gate in gates]
    full = full_inputs(base, request)
    inputs = full.model_inputs(base)
    dtype = base.model.get_input_embeddings().weight.dtype
    inputs["attention_mask"] = gated_mask(
        full.attention_mask, full.mm_token_type_ids.bool(), torch.cat(gates).to(dtype)
    )
    if full.labels is not None:
        options = {**options, "labels": full.labels}
    output = base.model(**joined(inputs, {"use_cache": False, **options}))
    return SoftOutput(
        loss=output.loss,
        logits=output.logits,
        scores=scored.scores,
        kept_share=kept_share,
        mixing=getattr(scored, "mixing", None),
    )


def gated_mask(attention_mask: Tensor, image_keys: Tensor, gates: Tensor) -> Tensor:
    """An additive attention mask ``[B, 1, S, S]``: causal, without padding, image keys gated.

    A token always sees itself, so that no row is closed on all sides.

    Args:
        attention_mask: ``[B, S]``.
        image_keys: ``[B, S]`` bool, the placeholders.
        gates: ``[K]`` log-gates of all image tokens, in their order in the batch.

    Example:
        >>> mask = gated_mask(torch.ones(1, 3).long(), torch.tensor([[False, True, False]]),
        ...                   torch.tensor([-2.0]))
        >>> mask[0, 0, 2].tolist(), mask[0, 0, 1].tolist()[:2]
        ([0.0, -2.0, 0.0], [0.0, 0.0])
    """
    length = attention_mask.shape[1]
    own = torch.eye(length, dtype=torch.bool, device=gates.device)
    causal = torch.ones_like(own).tril()
    seen = causal & attention_mask.bool()[:, None, None, :]
    keys = gates.new_zeros(attention_mask.shape).masked_scatter(image_keys, gates)
    closed = torch.finfo(gates.dtype).min
    mask = keys[:, None, None, :].masked_fill(~seen, closed)
    return mask.masked_fill(own, 0.0)


def _gates(
    request: CompressionRequest, scores: tuple[Tensor, ...], temperature: float
) -> list[Tensor]:
    if request.budgets is None:
        return [open_gate(score, temperature) for score in scores]
    pairs = zip(scores, request.budgets, strict=True)
    return [threshold_gate(score, budget, temperature) for score, budget in pairs]


def _check(base: Any, selector: Any) -> None:
    if not hasattr(selector, "score"):
        raise VisionError(
            f"{type(selector).__name__} cannot be trained: it selects without scores",
            next_step="train a RelevanceCompressor",
        )
    attention = getattr(base.model.config, "_attn_implementation", None)
    layers = getattr(base.model.config.text_config, "layer_types", None) or ()
    other = sorted({kind for kind in layers if kind != "full_attention"})
    if attention not in (None, "eager", "sdpa") or other:
        raise VisionError(
            f"{base.name} cannot be trained through: it has "
            + (f"layers of {', '.join(other)}" if other else f"{attention} attention"),
            why="the gates are an additive mask over the full sequence",
            next_step="choose a model with full attention in all layers"
            if other
            else "open the model with attn_implementation='sdpa'",
        )
