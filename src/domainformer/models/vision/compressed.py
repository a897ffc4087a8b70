"""The inputs of a shortened sequence, as a model's ``forward`` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from domainformer.errors import VisionError
from domainformer.models.vision.request import ImageTokens, Selection

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase


@dataclass(frozen=True)
class CompressedInputs:
    """What the language model is called with; see :meth:`model_inputs`.

    Args:
        input_ids: ``[B, S']``, with one placeholder per kept image token.
        attention_mask: ``[B, S']``.
        position_ids: ``[4, B, S']`` (text row, then M-RoPE) or ``[B, S']``; never left out.
        mm_token_type_ids: ``[B, S']``, 1 at image tokens.
        columns: ``[B, S']``: the column of the full sequence; -1 at padding.
        features: one ``[k_i, D]`` per image.
        selection: what was kept of ``images``.
        images: the tower's whole answer, for the next turn.
        deepstack: as ``features``, per deepstack layer.
        labels: ``[B, S']`` where they were given.

    Raises:
        VisionError: positions are missing or have another shape than the ids.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    mm_token_type_ids: Tensor
    columns: Tensor
    features: tuple[Tensor, ...]
    selection: Selection
    images: ImageTokens
    deepstack: tuple[tuple[Tensor, ...], ...] = ()
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(getattr(self.position_ids, "shape", ()))
        ids = tuple(self.input_ids.shape)
        if shape not in (ids, (4, *ids)):
            raise VisionError(
                "a shortened sequence needs a position for every token",
                where="position_ids",
                why=f"{shape} positions for {ids} ids" if shape else "there are none",
                next_step="take position_ids from RelevanceRealizer.compress, or gather them from "
                "VisionBase.rope_positions of the full ids",
            )

    def model_inputs(self, base: VisionBase) -> dict[str, Any]:
        """Arguments for the model's ``forward`` or ``generate``, without labels.

        The features are wrapped anew each time, since ``generate`` repeats them for its beams in
        place.

        Raises:
            VisionError: positions of the wrong kind for this model.
        """
        self._check_kind(base)
        inputs: dict[str, Any] = {
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }
        if base.route == "inputs_embeds":
            return inputs | {"inputs_embeds": self.embeddings(base)}
        return inputs | {
            "input_ids": self.input_ids,
            "mm_encoder_outputs": encoder_outputs(self.features, self.deepstack),
        }

    def embeddings(self, base: VisionBase) -> Tensor:
        """``[B, S', D]``: text embeddings with the image features in their places."""
        places = self.mm_token_type_ids.bool()
        # The placeholder may lie outside the vocabulary.
        embedded = base.embed(self.input_ids.masked_fill(places, base.pad_token_id))
        features = torch.cat(self.features).to(embedded)
        return embedded.masked_scatter(places[..., None], features)

    def _check_kind(self, base: VisionBase) -> None:
        if (self.position_ids.ndim == 3) != base.mrope:
            raise VisionError(
                f"{base.name} needs {'M-RoPE' if base.mrope else 'one-dimensional'} positions",
                where="position_ids",
                why=f"their shape is {tuple(self.position_ids.shape)}",
                next_step="compress the inputs with the model that will read them",
            )
        attention = getattr(base.model.config, "_attn_implementation", None) or ""
        if not base.mrope and "flash" in attention:
            raise VisionError(
                f"{attention} cannot be used with {base.name} and dropped tokens",
                why="it takes a gap between positions for the start of another document",
                next_step="open the model with attn_implementation='sdpa'",
            )


@dataclass
class EncoderOutput(BaseModelOutputWithPooling):
    """A tower's answer with a place for deepstack features, as Qwen3-VL's own class has.

    Args:
        deepstack_features: per layer, one ``[k_i, D]`` per image.
    """

    deepstack_features: list[list[Tensor]] | None = None


def encoder_outputs(
    features: tuple[Tensor, ...], deepstack: tuple[tuple[Tensor, ...], ...] = ()
) -> dict[str, Any]:
    """Image features as ``mm_encoder_outputs`` of a model's ``forward``."""
    pooled: Any = list(features)
    layers = [list(layer) for layer in deepstack] or None
    return {"image": EncoderOutput(pooler_output=pooled, deepstack_features=layers)}


def joined(inputs: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a model and options beside them, none of which replaces one.

    Raises:
        VisionError: an option of the same name.
    """
    twice = sorted(inputs.keys() & options.keys())
    if twice:
        raise VisionError(
            f"{twice[0]} cannot be an option",
            where="options",
            why="it belongs to the shortened sequence, and another would not fit it",
            next_step="pass it as an input of the full sequence",
        )
    return {**inputs, **options}
