"""A smaller grid for an image: how many rows and columns a budget buys, and where they stand."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from domainformer.errors import ConfigError
from domainformer.models.vision.request import Grid

Placement = Literal["spread", "corner"]
"""``spread``: a cell stands where its middle was; ``corner``: as in an image of the smaller grid,
beginning at the top left."""


def check_placement(place: str) -> None:
    """Refuse a placement that is not one.

    Raises:
        ConfigError: neither ``"spread"`` nor ``"corner"``.
    """
    if place not in ("spread", "corner"):
        raise ConfigError(f"unknown placement {place!r}", next_step="use 'spread' or 'corner'")


@lru_cache(maxsize=4096)
def smaller_grid(grid: Grid, budget: int) -> Grid:
    """The grid of at most ``budget`` cells that loses least in number and in shape.

    Among all r × c ≤ budget it maximises log(r·c) − ½ |log((r/c) / (rows/columns))|, and then r·c.

    Args:
        grid: rows and columns of the image's tokens.
        budget: cells to spend, at least 1.

    Example:
        >>> smaller_grid((8, 8), 16), smaller_grid((8, 8), 7), smaller_grid((4, 12), 12)
        ((4, 4), (2, 3), (2, 6))
    """
    rows, columns = grid
    options = [(r, min(columns, budget // r)) for r in range(1, min(rows, budget) + 1)]
    options += [(min(rows, budget // c), c) for c in range(1, min(columns, budget) + 1)]

    def worth(option: Grid) -> tuple[float, int]:
        r, c = option
        shape = abs(math.log((r / c) / (rows / columns)))
        return round(math.log(r * c) - shape / 2, 9), r * c

    return max(options, key=worth)


def placed(grid: Grid, cells: Grid, place: Placement) -> Tensor:
    """The index of the image's grid at which each cell of the smaller grid stands, ascending.

    Example:
        >>> placed((4, 4), (2, 2), "spread"), placed((4, 4), (2, 2), "corner")
        (tensor([ 5,  7, 13, 15]), tensor([0, 1, 4, 5]))
    """
    if place == "corner":
        rows, columns = torch.arange(cells[0]), torch.arange(cells[1])
    else:
        rows, columns = (
            (torch.arange(part) * 2 + 1) * whole // (2 * part)
            for part, whole in zip(cells, grid, strict=True)
        )
    return (rows[:, None] * grid[1] + columns).flatten()
