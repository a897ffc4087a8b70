"""Average pooling of the tower's features onto a smaller grid."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from domainformer.models.vision.baselines.grids import (
    Placement,
    check_placement,
    placed,
    smaller_grid,
)
from domainformer.models.vision.baselines.selector import Baseline, token_budgets
from domainformer.models.vision.request import CompressionRequest, Grid, Selection


class AveragePooling(Baseline):
    """Each cell of a smaller grid is the mean of the tokens that it covers.

    ``[K, D]`` → ``[rows, columns, D]`` → mean over cells → ``[k, D]``, where k is the largest
    well-shaped grid within the budget (see
    :func:`~domainformer.models.vision.baselines.grids.smaller_grid`), so k may lie below it.

    Args:
        place: where the cells stand for the language model.

    Raises:
        ConfigError: an unknown placement.

    Example:
        >>> import torch
        >>> from domainformer.models.vision.request import ImageTokens
        >>> images = ImageTokens((torch.arange(4.0)[:, None],), ((2, 2),), (0,))
        >>> AveragePooling().select(CompressionRequest(images, (), budgets=(1,))).features
        (tensor([[1.5000]]),)
    """

    def __init__(self, place: Placement = "spread") -> None:
        check_placement(place)
        self.place = place

    def select(self, request: CompressionRequest) -> Selection:
        """Pool every image to its budget."""
        images = request.images
        budgets = token_budgets(request, type(self).__name__)
        cells = [smaller_grid(grid, k) for grid, k in zip(images.grids, budgets, strict=True)]

        def pool(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            shapes = zip(parts, images.grids, cells, strict=True)
            return tuple(pooled(tokens, grid, small) for tokens, grid, small in shapes)

        kept = tuple(
            placed(grid, small, self.place).to(tokens.device)
            for tokens, grid, small in zip(images.features, images.grids, cells, strict=True)
        )
        deepstack = tuple(pool(layer) for layer in images.deepstack) or None
        return Selection(kept=kept, features=pool(images.features), deepstack=deepstack)


def pooled(tokens: Tensor, grid: Grid, cells: Grid) -> Tensor:
    """Means over the cells of a smaller grid: ``[rows · columns, D]`` → ``[r · c, D]``."""
    image = tokens.reshape(*grid, -1).permute(2, 0, 1)
    return functional.adaptive_avg_pool2d(image, cells).flatten(1).T
