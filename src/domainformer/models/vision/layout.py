"""Where the tokens of a padded batch of images stand: mask, rows and columns, neighbours.

Shape legend: N images, K tokens (the most of any image), D features, Q words, O = 9 offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from domainformer.errors import VisionError
from domainformer.models.vision.request import Grid

OFFSETS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
"""The 3×3 neighbourhood, in raster order; the middle one is the token itself."""

CENTRE = OFFSETS.index((0, 0))


@dataclass(frozen=True)
class TokenLayout:
    """Which tokens of a padded batch exist, and where on their image's grid they stand.

    ::

        grid of 2 × 3    0 1 2     token 4 has the neighbours 0 1 2
                         3 4 5                               3 4 5   (none below)

    Args:
        mask: ``[N, K]`` bool, True where there is a token.
        positions: ``[N, K, 2]`` int64, row and column; each image is a whole grid in raster order.
        neighbours: ``[N, K, 9]`` int64, the token at each of :data:`OFFSETS`.
        has_neighbour: ``[N, K, 9]`` bool, False beyond the edge of the image's own grid.
        extent: above every row and every column.
        grid: of every image, where all have the same one; then nothing is padded.
    """

    mask: Tensor
    positions: Tensor
    neighbours: Tensor
    has_neighbour: Tensor
    extent: int
    grid: Grid | None = None

    @classmethod
    def of(
        cls,
        mask: Tensor,
        positions: Tensor,
        extent: int | None = None,
        grid: Grid | None = None,
    ) -> TokenLayout:
        """Find the neighbours from ``positions``; no value is read back from the device."""
        present = mask.unsqueeze(-1)
        size = (positions * present).amax(dim=1)[:, None, None, :] + 1  # [N, 1, 1, 2]
        offsets = torch.tensor(OFFSETS, device=positions.device)
        moved = positions.unsqueeze(2) + offsets  # [N, K, 9, 2]
        inside = ((moved >= 0) & (moved < size)).all(-1) & present
        index = moved[..., 0] * size[..., 1] + moved[..., 1]
        extent = mask.shape[1] if extent is None else extent
        return cls(mask, positions, index.masked_fill(~inside, 0), inside, extent, grid)

    @classmethod
    def of_grids(cls, grids: tuple[Grid, ...], device: torch.device) -> TokenLayout:
        """The layout of images of these grids, remembered: batches are much like each other."""
        return _layout_of_grids(grids, device)

    @cached_property
    def neighbour_counts(self) -> Tensor:
        """Tokens in each 3×3, at least 1: ``[N, K, 1]``."""
        return self.has_neighbour.sum(-1, keepdim=True).clamp_min(1)

    @cached_property
    def padding_mask(self) -> Tensor | None:
        """The mask, or None where no image is padded."""
        return self.mask if self.grid is None else None

    @cached_property
    def _rows(self) -> Tensor:
        """``[N · K · 9]`` into the tokens of all images in a row, and one behind them for none."""
        images, tokens = self.mask.shape
        first = tokens * torch.arange(images, device=self.mask.device)[:, None, None]
        return (self.neighbours + first).masked_fill(~self.has_neighbour, images * tokens).flatten()

    def mean_around(self, values_NKC: Tensor) -> Tensor:
        """The mean of each token's 3×3, as far as it lies on the grid: ``[N, K, C]``."""
        if self.grid is None:
            return self.around(values_NKC).sum(2) / self.neighbour_counts
        # Channels stay last in memory, so that one pooling reads whole rows and copies nothing.
        maps = values_NKC.unflatten(1, self.grid).permute(0, 3, 1, 2)
        means = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
        return means.permute(0, 2, 3, 1).flatten(1, 2)

    def around(self, values: Tensor) -> Tensor:
        """The values ``[N, K]`` or ``[N, K, C]`` of each token's 3×3, zero beyond the edge."""
        # A row of zeros stands for what does not exist, which saves to fill it in afterwards.
        rows = F.pad(values.reshape(self.mask.numel(), -1), (0, 0, 0, 1))
        shape = (*self.has_neighbour.shape, *values.shape[2:])
        return rows.index_select(0, self._rows).view(shape)


@lru_cache(maxsize=16)
def _layout_of_grids(grids: tuple[Grid, ...], device: torch.device) -> TokenLayout:
    # What is remembered must serve a training, too, also where it is first asked for in inference.
    with torch.inference_mode(False):
        positions, mask = pad([raster_positions(grid, device) for grid in grids])
        same = grids[0] if len(set(grids)) == 1 else None
        layout = TokenLayout.of(mask, positions, max(max(grid) for grid in grids), same)
        _ = layout.neighbour_counts, layout._rows
        return layout


def raster_positions(grid: Grid, device: torch.device | None = None) -> Tensor:
    """Row and column of each token of a grid, ``[rows · columns, 2]``.

    Example:
        >>> raster_positions((2, 2)).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    token = torch.arange(grid[0] * grid[1], device=device)
    return torch.stack([token // grid[1], token % grid[1]], dim=-1)


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One tensor ``[N, longest, ...]`` of rows of different lengths, and its bool mask."""
    if len({len(row) for row in rows}) == 1:
        whole = rows[0][None] if len(rows) == 1 else torch.stack(list(rows))
        return whole, torch.ones(whole.shape[:2], dtype=torch.bool, device=whole.device)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    return pad_sequence(list(rows), batch_first=True), mask.to(rows[0].device)


def batch_layout(
    features_NKD: Tensor, mask: Tensor | None, positions: Tensor | None, grid: Grid | None
) -> TokenLayout:
    """The layout of a batch as a scorer is given it; without grid and positions, one row.

    Raises:
        VisionError: the grid, the positions or the mask do not fit the features.
    """
    count, tokens = features_NKD.shape[:2]
    if mask is None:
        mask = torch.ones(count, tokens, dtype=torch.bool, device=features_NKD.device)
    if positions is None:
        grid = grid or (1, tokens)
        if grid[0] * grid[1] != tokens:
            raise VisionError(
                f"the grid {grid[0]} × {grid[1]} does not hold the image's {tokens} tokens",
                next_step="give rows and columns after the tower's merging of patches",
            )
        positions = raster_positions(grid, features_NKD.device).expand(count, -1, -1)
    if mask.shape != (count, tokens) or positions.shape != (count, tokens, 2):
        raise VisionError(
            "the mask or the positions do not fit the features",
            why=f"mask {tuple(mask.shape)}, positions {tuple(positions.shape)}, "
            f"features {tuple(features_NKD.shape)}",
            next_step="give a mask [..., K] and positions [..., K, 2]",
        )
    return TokenLayout.of(mask, positions)


def standardise(scores: Tensor, mask: Tensor | None, epsilon: float = 1e-6) -> Tensor:
    """Scores with mean 0 and variance 1 over the tokens of their own image; padding becomes 0.

    Args:
        scores: ``[..., K]``.
        mask: ``[..., K]`` bool, True where there is a token; None: everywhere.
        epsilon: added to the variance; an image whose scores are all equal stays at 0.

    Example:
        >>> standardise(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).round()
        tensor([-1.,  1.,  0.])
    """
    if mask is None:
        return F.layer_norm(scores, scores.shape[-1:], eps=epsilon)
    count = mask.sum(-1, keepdim=True).clamp_min(1)
    mean = scores.masked_fill(~mask, 0.0).sum(-1, keepdim=True) / count
    centred = (scores - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / count
    return centred * (variance + epsilon).rsqrt()
