"""What a vision-language model can do, found by looking for abilities and never at its class.

Needed are: a tower behind ``get_image_features``, a placeholder token in the ids, positions that
can be computed and given, and a way to hand over image features. A model that lacks one is
refused with its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from domainformer.errors import VisionError
from domainformer.models.vision.positions import check_positions, rope_positions
from domainformer.models.vision.request import ImageTokens
from domainformer.models.vision.towers import encode_images

Route = Literal["mm_encoder_outputs", "inputs_embeds"]


@dataclass(frozen=True, eq=False)
class VisionBase:
    """A vision-language model opened for compression; made by :meth:`probe`.

    Args:
        model: the model, with its language head.
        image_token_id: the placeholder of an image token in ``input_ids``.
        video_token_id: the same for videos, where the model has them.
        special_ids: tokens that are no text: placeholders, vision marks, padding, begin, end.
        pad_token_id: what fills the shortened ids.
        mrope: positions have three axes (``get_rope_index``); otherwise one.
        merge: patches per token along one side, where grids are given in patches (1 otherwise).
        deepstack: deeper layers of the tower enter the language model too.
        route: how image features are handed over.

    Example:
        >>> from torch import nn
        >>> VisionBase.probe(nn.Linear(1, 1))
        Traceback (most recent call last):
        ...
        domainformer.errors.VisionError: Linear cannot be used for vision token compression
          why:   it lacks: get_image_features (a tower), ...
    """

    model: Any
    image_token_id: int
    video_token_id: int | None
    special_ids: tuple[int, ...]
    pad_token_id: int
    mrope: bool
    merge: int
    deepstack: bool
    route: Route

    @classmethod
    def probe(cls, model: nn.Module, *, route: Route | None = None) -> Self:
        """Find out what a model can do.

        Args:
            model: any vision-language model of transformers with a language head.
            route: the way of handing over features; the best available by default.

        Raises:
            VisionError: an ability is missing; it is named.
        """
        config: Any = getattr(model, "config", None)
        token = _first_id(config, "image_token_id", "image_token_index")
        _refuse_lacking(model, token)
        routes = _routes(model)
        deepstack = bool(getattr(_part(config, "vision"), "deepstack_visual_indexes", None))
        route = route or routes[0]
        if route not in routes or (deepstack and route == "inputs_embeds"):
            raise VisionError(
                f"{type(model).__name__} cannot take image features through {route}",
                why="its deepstack features have no place there" if route in routes else None,
                next_step="use a version of transformers whose models take mm_encoder_outputs",
            )
        special = _special_ids(config)
        return cls(
            model=model,
            image_token_id=token,
            video_token_id=_first_id(config, "video_token_id", "video_token_index"),
            special_ids=special,
            pad_token_id=_padding(model, special, token),
            mrope=_rope_owner(model) is not None,
            merge=int(getattr(_part(config, "vision"), "spatial_merge_size", 1)),
            deepstack=deepstack,
            route=route,
        )

    @property
    def name(self) -> str:
        """The class of the model, for messages."""
        return type(self.model).__name__

    @property
    def device(self) -> torch.device:
        """Where the text embeddings are."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.device

    @property
    def feature_size(self) -> int:
        """D, the width of image tokens and of text embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def rope_owner(self) -> Any:
        """The module that has ``get_rope_index``, for models with M-RoPE."""
        return _rope_owner(self.model)

    def encode(
        self,
        pixel_values: Tensor,
        image_grid_thw: Tensor | None = None,
        input_ids: Tensor | None = None,
        **options: Any,
    ) -> ImageTokens:
        """Image tokens of a batch from the frozen tower, without gradient.

        Args:
            pixel_values: as the processor of the model gives them.
            image_grid_thw: ``[N, 3]`` patches, for models with grids of their own.
            input_ids: ``[B, S]``; which row an image stands in is read from its placeholders.
            **options: what else ``get_image_features`` of the model takes (``image_sizes``).

        Raises:
            VisionError: placeholders and features do not fit together, or the grid is unknown.
        """
        return encode_images(self, pixel_values, image_grid_thw, input_ids, options)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Text embeddings ``[..., D]`` of token ids, without gradient."""
        with torch.no_grad():
            embedded: Tensor = self.model.get_input_embeddings()(input_ids)
        return embedded.detach()

    def rope_positions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Positions of the full sequence: ``[4, B, S]`` (text row, then M-RoPE), or ``[B, S]``.

        Args:
            input_ids: ``[B, S]``.
            attention_mask: ``[B, S]``.
            image_grid_thw: ``[N, 3]``; needed where the model has M-RoPE.
            position_ids: positions that were given; they must be the model's own.

        Raises:
            VisionError: they cannot be computed, or those given are others.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        positions = rope_positions(self, input_ids, attention_mask, image_grid_thw)
        if position_ids is not None:
            check_positions(position_ids, positions, attention_mask)
        return positions


def _refuse_lacking(model: nn.Module, token: int | None) -> None:
    named = {
        "get_image_features (a tower)": hasattr(model, "get_image_features"),
        "image_token_id in its configuration (a placeholder)": token is not None,
        "get_input_embeddings (text embeddings)": hasattr(model, "get_input_embeddings"),
        "get_output_embeddings (a language head)": _has_head(model),
        "position_ids in its forward": _accepts(model, "position_ids"),
        "get_rope_index, which its mrope_section asks for": _positions_known(model),
        "mm_encoder_outputs or inputs_embeds in its forward": bool(_routes(model)),
        "attention that is causal among image tokens": _causal(model),
    }
    lacking = [name for name, there in named.items() if not there]
    if lacking:
        raise VisionError(
            f"{type(model).__name__} cannot be used for vision token compression",
            why=f"it lacks: {', '.join(lacking)}",
            next_step="open a model as AutoModelForImageTextToText: Qwen2-VL, Qwen2.5-VL, "
            "Qwen3-VL, Llava, or one with the same abilities",
        )


def _accepts(model: nn.Module, name: str) -> bool:
    """Whether its forward, or the one of the model inside, names an argument."""
    inner = getattr(model, "model", None)
    methods = [module.forward for module in (model, inner) if isinstance(module, nn.Module)]
    return any(name in inspect.signature(method).parameters for method in methods)


def _routes(model: nn.Module) -> tuple[Route, ...]:
    order: tuple[Route, ...] = ("mm_encoder_outputs", "inputs_embeds")
    return tuple(route for route in order if _accepts(model, route))


def _rope_owner(model: nn.Module) -> Any:
    for module in (model, getattr(model, "model", None)):
        if hasattr(module, "get_rope_index"):
            return module
    return None


def _positions_known(model: nn.Module) -> bool:
    rope = getattr(_part(getattr(model, "config", None), "text"), "rope_parameters", None) or {}
    return "mrope_section" not in rope or _rope_owner(model) is not None


def _causal(model: nn.Module) -> bool:
    """Token types open the attention among image tokens, where they do not serve M-RoPE."""
    types = _accepts(model, "mm_token_type_ids") and _rope_owner(model) is None
    return not types and not _accepts(model, "token_type_ids")


def _has_head(model: nn.Module) -> bool:
    head = getattr(model, "get_output_embeddings", None)
    return head is not None and head() is not None


def _part(config: Any, name: str) -> Any:
    return getattr(config, f"{name}_config", None)


def _first_id(config: Any, *names: str) -> Any:
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _special_ids(config: Any) -> tuple[int, ...]:
    """Every ``*_token_id`` of the configuration and of its text part."""
    found: set[int] = set()
    for part in (config, _part(config, "text")):
        for name, value in (part.to_dict() if part is not None else {}).items():
            if not name.endswith(("_token_id", "_token_index")):
                continue
            values: Sequence[Any] = value if isinstance(value, list | tuple) else (value,)
            found.update(each for each in values if isinstance(each, int))
    return tuple(sorted(found))


def _padding(model: Any, special: tuple[int, ...], image_token: int) -> int:
    text = _part(model.config, "text")
    generation = getattr(model, "generation_config", None)
    given = [getattr(part, "pad_token_id", None) for part in (generation, text, model.config)]
    usable = [pad for pad in (*given, *special) if isinstance(pad, int) and pad != image_token]
    return usable[0] if usable else int(image_token == 0)
