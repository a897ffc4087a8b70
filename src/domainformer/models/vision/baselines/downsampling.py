"""A smaller image instead of fewer tokens: what dynamic resolution offers for nothing."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from domainformer.errors import VisionError
from domainformer.models.vision.baselines.grids import (
    Placement,
    check_placement,
    placed,
    smaller_grid,
)
from domainformer.models.vision.baselines.pixels import PatchLayout, resize
from domainformer.models.vision.baselines.selector import Baseline, token_budgets
from domainformer.models.vision.request import CompressionRequest, Grid, Selection
from domainformer.models.vision.towers import evaluating


class DownSampling(Baseline):
    """Resizes each image to a grid within its budget and asks the tower again.

    The tower sees the whole image at a lower resolution. Families that take patches (Qwen) are
    given smaller ones; those of a fixed image size (Llava) only where their tower can interpolate
    its position embeddings. The grid is that of
    :func:`~domainformer.models.vision.baselines.grids.smaller_grid`.

    Args:
        place: ``"spread"`` gives each token of the small image the position of the place that it
            shows; ``"corner"`` the position that the model would have given to an image of this
            size.

    Raises:
        ConfigError: an unknown placement.
    """

    def __init__(self, place: Placement = "spread") -> None:
        check_placement(place)
        self.place = place

    def select(self, request: CompressionRequest) -> Selection:
        """Encode every image anew at the size that its budget allows.

        Raises:
            VisionError: the request has no model or no pixels, or the tower takes images of one
                size only.
        """
        images = request.images
        budgets = token_budgets(request, type(self).__name__)
        cells = [smaller_grid(grid, k) for grid, k in zip(images.grids, budgets, strict=True)]
        model = getattr(request.base, "model", None)
        pixels = request.inputs.get("pixel_values")
        if model is None or pixels is None:
            raise VisionError(
                "down-sampling needs the image itself and the model's tower",
                where="CompressionRequest",
                why=f"base {'missing' if model is None else 'given'}, "
                f"pixel_values {'missing' if pixels is None else 'given'}",
                next_step="give base= and inputs= with pixel_values",
            )
        grid_thw = request.inputs.get("image_grid_thw")
        with torch.no_grad():
            if grid_thw is not None:
                small, shapes = PatchLayout.of(model).shrink(pixels, grid_thw, cells)
                encoded = request.base.encode(small, shapes)
                features, deepstack = encoded.features, encoded.deepstack
            else:
                features, deepstack = _interpolated(model, pixels, images.grids, cells), ()
        kept = tuple(
            placed(grid, small, self.place).to(tokens.device)
            for tokens, grid, small in zip(images.features, images.grids, cells, strict=True)
        )
        return Selection(kept=kept, features=features, deepstack=deepstack or None)


def _interpolated(
    model: Any, pixels: Tensor, grids: Sequence[Grid], cells: Sequence[Grid]
) -> tuple[Tensor, ...]:
    if pixels.ndim != 4 or len(pixels) != len(grids) or not _can_interpolate(model):
        raise VisionError(
            "this model's tower takes images of one size only",
            where=f"pixel_values {list(pixels.shape)}",
            why="its position embeddings fix the number of patches, and it cannot interpolate them",
            next_step="leave the down-sampling baseline out; average pooling takes its place",
        )
    encoded: dict[int, Tensor] = {}
    for size in sorted(set(zip(grids, cells, strict=True))):
        members = [i for i, pair in enumerate(zip(grids, cells, strict=True)) if pair == size]
        (rows, columns), (small_rows, small_columns) = size
        height = pixels.shape[-2] // rows * small_rows
        width = pixels.shape[-1] // columns * small_columns
        small = resize(pixels[members], height, width)
        with evaluating(model):
            output = model.get_image_features(
                pixel_values=small, interpolate_pos_encoding=True, return_dict=True
            )
        encoded.update(zip(members, output.pooler_output, strict=True))
    return tuple(encoded[i] for i in range(len(grids)))


def _can_interpolate(model: Any) -> bool:
    """Whether a part of the model has the switch by which transformers' towers offer it."""
    return any(
        "interpolate_pos_encoding" in inspect.signature(part.forward).parameters
        and "pixel_values" in inspect.signature(part.forward).parameters
        for part in model.modules()
        if part is not model
    )
