"""What an early layer of the language model looks at (FastV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.baselines.selector import Ranker
from domainformer.models.vision.queries import IGNORED_LABEL
from domainformer.models.vision.request import CompressionRequest
from domainformer.models.vision.shortening import full_inputs
from domainformer.models.vision.towers import evaluating


class AttentionRank(Ranker):
    """The attention that the last token of the question pays to each image token.

    score_k = mean over heads of A[last, k], A being the attention of one early layer, for which the
    language model runs up to that layer on all tokens. The paper drops tokens inside the model
    from that layer on; here the same rank decides before the model, so that it costs what every
    other selector costs afterwards (and the layers below it do not see the dropped tokens).

    Args:
        layer: counted from 1. The paper's choice for Llava is 2.

    Raises:
        ConfigError: a layer below 1.

    Source: Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2", section 4.
    """

    def __init__(self, layer: int = 2) -> None:
        if layer < 1:
            raise ConfigError(f"there is no layer {layer}", next_step="layers count from 1")
        self.layer = layer

    def scores(self, request: CompressionRequest) -> tuple[Tensor, ...]:
        """The attention to each image token.

        Raises:
            VisionError: the request brings no model, or the model has no such layer or does not
                show its attention.
        """
        base, inputs = request.base, request.inputs
        if base is None or "input_ids" not in inputs:
            raise VisionError(
                "the attention rank looks inside the model",
                where="CompressionRequest",
                why="it needs the model and its full inputs",
                next_step="give base= and inputs=, as RelevanceRealizer.request does",
            )
        full = full_inputs(base, request)
        with torch.no_grad():
            weights = layer_attention(base.model, full.model_inputs(base), self.layer)
        last = last_question_token(full.attention_mask, full.labels)
        rows = torch.arange(len(last), device=weights.device)
        received = weights[rows, :, last].float().mean(dim=1)  # [B, S]
        # Images stand in their rows in order, so one sweep over all placeholders is all of them.
        paid = received[full.input_ids == base.image_token_id]
        return tuple(paid.split(list(request.images.counts)))


def last_question_token(attention_mask: Tensor, labels: Tensor | None) -> Tensor:
    """The column ``[B]`` of the last token before the answer, or of the last token.

    Args:
        attention_mask: ``[B, S]``.
        labels: ``[B, S]``, -100 outside the answer; None where there is no answer.

    Example:
        >>> mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
        >>> last_question_token(mask, None).tolist()
        [3, 2]
        >>> last_question_token(mask, torch.tensor([[-100, -100, 7, 8], [-100] * 4])).tolist()
        [1, 2]
    """
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    present = attention_mask.bool()
    if labels is not None:
        # Later turns are left out with the answer: they are read after it.
        present = present & ((labels != IGNORED_LABEL).cumsum(dim=1) == 0)
    return torch.where(present, columns, 0).amax(dim=1)


def layer_attention(model: Any, inputs: dict[str, Any], layer: int) -> Tensor:
    """The attention ``[B, heads, S, S]`` of one layer of the language model.

    The layers run by the plain ("eager") implementation, which is the one that can be read, and
    the run ends with the layer that was asked for. Whatever the model runs by is put back.

    Args:
        model: a model of transformers with a language model inside.
        inputs: arguments of its ``forward``.
        layer: counted from 1.

    Raises:
        VisionError: the model has no such layer, or its attention cannot be read.
    """
    decoder = model.get_decoder()
    attention = _attention_of(decoder, layer)
    seen: list[Tensor] = []

    def stop(_module: nn.Module, _args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor):
            seen.append(weights)
        raise _LayerReached

    hook = attention.register_forward_hook(stop)
    try:
        with evaluating(model), _plain_attention((decoder.config, attention.config)):
            model(**inputs, use_cache=False)
    except _LayerReached:
        pass
    finally:
        hook.remove()
    if not seen:
        raise VisionError(
            "the attention of this model cannot be read",
            where=f"{type(attention).__name__}, layer {layer}",
            why="its module does not answer with attention weights",
            next_step="leave the attention rank out for this model",
        )
    return seen[0]


class _LayerReached(Exception):  # noqa: N818 - a way out, not an error
    """Ends a forward pass where nothing behind it is needed."""


def _attention_of(decoder: Any, layer: int) -> Any:
    layers: Sequence[Any] = getattr(decoder, "layers", ())
    if layer > len(layers):
        raise VisionError(
            f"{type(decoder).__name__} has no layer {layer}",
            why=f"it has {len(layers)}",
            next_step="ask for an earlier one: baseline('attention_rank', layer=1)",
        )
    attention = getattr(layers[layer - 1], "self_attn", None)
    if attention is None or not hasattr(attention, "config"):
        raise VisionError(
            f"layer {layer} of {type(decoder).__name__} has no attention that can be read",
            next_step="leave the attention rank out for this model",
        )
    return attention


@contextmanager
def _plain_attention(configs: Sequence[Any]) -> Iterator[None]:
    """Eager attention, and afterwards what was there before."""
    before = [(config, config._attn_implementation) for config in configs]
    try:
        for config in configs:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
