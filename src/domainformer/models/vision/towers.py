"""Image tokens out of a frozen tower: one ``[K, D]`` per image, with its grid and its row."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from domainformer.errors import VisionError
from domainformer.models.vision.request import Grid, ImageTokens

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase


def encode_images(
    base: VisionBase,
    pixel_values: Tensor,
    image_grid_thw: Tensor | None,
    input_ids: Tensor | None,
    options: Mapping[str, Any],
) -> ImageTokens:
    """The tower's tokens, as :meth:`VisionBase.encode` describes them."""
    if image_grid_thw is None and base.mrope:
        raise VisionError(
            "the images have no grid",
            where="image_grid_thw",
            why=f"{base.name} places image tokens by their row and column",
            next_step="pass image_grid_thw as the processor gives it",
        )
    function = base.model.get_image_features
    known = inspect.signature(function).parameters
    given: dict[str, Any] = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
    given |= {name: value for name, value in options.items() if name in known}
    given = {name: value for name, value in given.items() if value is not None and name in known}
    lacking = [name for name, item in known.items() if _required(item) and name not in given]
    if lacking:
        raise VisionError(
            f"the tower of {base.name} needs {', '.join(lacking)}",
            next_step="pass every output of the processor",
        )
    with torch.no_grad(), evaluating(base.model):
        output = function(**given, return_dict=True)
    features = _pooled(base, output)
    counts = [len(feature) for feature in features]
    layers = getattr(output, "deepstack_features", None) or ()
    deepstack = tuple(_split(base, layer, counts) for layer in layers)
    return ImageTokens(
        features=features,
        grids=_grids(base, counts, pixel_values, image_grid_thw),
        rows=(0,) * len(counts) if input_ids is None else image_rows(base, input_ids, counts),
        deepstack=deepstack,
    )


def image_rows(base: VisionBase, input_ids: Tensor, counts: Sequence[int]) -> tuple[int, ...]:
    """The row of the batch in which each image stands, by counting placeholders.

    Args:
        base: the opened model.
        input_ids: ``[B, S]``.
        counts: tokens per image.

    Raises:
        VisionError: placeholders and tokens are not equally many, or an image crosses two rows.
    """
    per_row = (input_ids == base.image_token_id).sum(-1).tolist()
    if sum(per_row) != sum(counts):
        raise VisionError(
            f"{sum(per_row)} image placeholders stand for {sum(counts)} image tokens",
            where="input_ids",
            why="the ids were cut, or belong to other images",
            next_step="give input_ids, pixel_values and grids of one call of the processor, "
            "with a max_length that holds them",
        )
    rows, row, room = [], 0, per_row[0] if per_row else 0
    for index, count in enumerate(counts):
        while room == 0:
            row += 1
            room = per_row[row]
        if count > room:
            raise VisionError(
                f"image {index} has {count} tokens, and row {row} has places for {room}",
                where="input_ids",
                next_step="give the images in the order of their placeholders",
            )
        rows.append(row)
        room -= count
    return tuple(rows)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch every module that trains to evaluation, and back: a frozen tower has no dropout."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def _pooled(base: VisionBase, output: Any) -> tuple[Tensor, ...]:
    pooled = getattr(output, "pooler_output", output)
    images = tuple(pooled) if isinstance(pooled, Tensor | list | tuple) else ()
    if not images or any(not isinstance(image, Tensor) or image.ndim != 2 for image in images):
        raise VisionError(
            f"the tower of {base.name} does not answer with one [tokens, width] per image",
            why=f"its answer is a {type(output).__name__}",
            next_step="use a model whose get_image_features splits its answer by image",
        )
    return tuple(image.detach() for image in images)


def _split(base: VisionBase, layer: Any, counts: list[int]) -> tuple[Tensor, ...]:
    parts = layer.split(counts) if isinstance(layer, Tensor) else layer
    if any(not isinstance(part, Tensor) for part in parts) or [*map(len, parts)] != counts:
        raise VisionError(
            f"the deepstack features of {base.name} are not one tensor per image",
            next_step="use a model that lays them out as Qwen3-VL does",
        )
    return tuple(part.detach() for part in parts)


def _grids(
    base: VisionBase, counts: list[int], pixel_values: Tensor, image_grid_thw: Tensor | None
) -> tuple[Grid, ...]:
    if image_grid_thw is not None:
        return tuple(_patch_grid(base, thw) for thw in image_grid_thw.tolist())
    return tuple(_square_grid(base, count, pixel_values) for count in counts)


def _patch_grid(base: VisionBase, thw: list[int]) -> Grid:
    time, height, width = thw
    if time != 1:
        raise VisionError(
            f"an image has {time} frames; videos are not compressed",
            where="image_grid_thw",
            next_step="give single images",
        )
    return height // base.merge, width // base.merge


def _square_grid(base: VisionBase, count: int, pixel_values: Tensor) -> Grid:
    """Rows and columns from the picture's own shape, else of a square."""
    patch = getattr(getattr(base.model.config, "vision_config", None), "patch_size", None)
    if isinstance(patch, int):
        rows, columns = (size // patch for size in pixel_values.shape[-2:])
        if rows * columns == count:
            return rows, columns
    side = math.isqrt(count)
    if side * side != count:
        raise VisionError(
            f"the grid of an image of {count} tokens is unknown",
            why=f"{base.name} gives no grid, and {count} tokens are no square",
            next_step="use a model that gives image_grid_thw, or square images",
        )
    return side, side
