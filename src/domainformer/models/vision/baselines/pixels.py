"""Images as towers are given them, made smaller: flattened patches unfolded, resized, folded again.

Qwen-like processors hand over patches instead of images: ``[N, C·T·P·P]``, the patches of one image
in the order (row of blocks, column of blocks, row in the block, column in the block), a block being
the ``merge × merge`` patches that become one token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.errors import VisionError
from domainformer.models.vision.request import Grid


@dataclass(frozen=True)
class PatchLayout:
    """How a processor cuts an image into patches.

    Args:
        patch: pixels along a patch's side.
        temporal: frames in a patch (a still image is repeated).
        merge: patches along the side of one token.
    """

    patch: int
    temporal: int
    merge: int

    @classmethod
    def of(cls, model: Any) -> PatchLayout:
        """Read it from a model's vision configuration.

        Raises:
            VisionError: the configuration does not say how patches are cut.
        """
        vision = getattr(model.config, "vision_config", None)
        names = ("patch_size", "temporal_patch_size", "spatial_merge_size")
        missing = [name for name in names if not isinstance(getattr(vision, name, None), int)]
        if missing:
            raise VisionError(
                "the image cannot be put together from its patches",
                where="config.vision_config",
                why=f"it does not say {', '.join(missing)}",
                next_step="leave the down-sampling baseline out for this model",
            )
        return cls(*(getattr(vision, name) for name in names))

    def fold(self, patches: Tensor, grid_thw: tuple[int, int, int]) -> Tensor:
        """Patches ``[t·h·w, C·T·P·P]`` of one image → frames ``[t·T, C, h·P, w·P]``."""
        t, h, w = grid_thw
        p, m = self.patch, self.merge
        blocks = patches.reshape(t, h // m, w // m, m, m, -1, self.temporal, p, p)
        # (t, gh, gw, mh, mw, C, T, ph, pw) -> (t, T, C, gh, mh, ph, gw, mw, pw)
        frames = blocks.permute(0, 6, 5, 1, 3, 7, 2, 4, 8)
        return frames.reshape(t * self.temporal, -1, h * p, w * p)

    def flatten(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """The way back: frames ``[t·T, C, H, W]`` → patches and the grid (t, h, w)."""
        p, m = self.patch, self.merge
        t = frames.shape[0] // self.temporal
        h, w = frames.shape[2] // p, frames.shape[3] // p
        blocks = frames.reshape(t, self.temporal, -1, h // m, m, p, w // m, m, p)
        patches = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return patches.reshape(t * h * w, -1), (t, h, w)

    def shrink(
        self, pixel_values: Tensor, image_grid_thw: Tensor, cells: list[Grid]
    ) -> tuple[Tensor, Tensor]:
        """Make each image of a batch as small as its grid of tokens in ``cells``.

        Args:
            pixel_values: ``[N, C·T·P·P]``, all images' patches one after another.
            image_grid_thw: ``[images, 3]``, frames, rows and columns of patches.
            cells: rows and columns of *tokens* that each image shall have.
        """
        grids = [tuple(grid) for grid in image_grid_thw.tolist()]
        small: list[Tensor] = []
        shapes: list[tuple[int, int, int]] = []
        parts = pixel_values.split([t * h * w for t, h, w in grids])
        for patches, grid, (rows, columns) in zip(parts, grids, cells, strict=True):
            side = self.patch * self.merge
            frames = resize(self.fold(patches, grid), rows * side, columns * side)
            flat, shape = self.flatten(frames)
            small.append(flat)
            shapes.append(shape)
        return torch.cat(small), image_grid_thw.new_tensor(shapes)


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Bicubic with antialiasing, as processors resize; values are not clipped: they are normalised.

    Args:
        frames: ``[n, C, H, W]``.
        height: pixels afterwards.
        width: pixels afterwards.
    """
    if frames.shape[-2:] == (height, width):
        return frames
    resized = functional.interpolate(
        frames.float(), (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.to(frames.dtype)
