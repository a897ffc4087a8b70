"""Two ways of knowing an image token that need no question: its information and its salience.

The third, :class:`~domainformer.models.vision.coupling.CouplingScorer`, reads the question. All
share one call (:class:`Scorer`); an image's scores never depend on the other images of a batch.

Shape legend: N images, K tokens, D features, Q words, E query features, d projected features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from domainformer.errors import VisionError
from domainformer.models.vision.layout import TokenLayout, batch_layout
from domainformer.models.vision.reading import Normed, Projected, Read, read_each
from domainformer.models.vision.request import Grid


class Scorer(nn.Module, ABC):
    """One number per image token; a subclass tells what it reads of the features, and judges that.

    What is read, :meth:`reads`, is apart from :meth:`judge` so that several scorers can read the
    features in one product (:func:`~domainformer.models.vision.reading.read_together`).

    Example:
        >>> features, query = torch.randn(6, 16), torch.randn(3, 8)
        >>> InformationScorer(16)(features, query).shape
        torch.Size([6])
    """

    feature_size: int

    def forward(
        self,
        features: Tensor,
        query: Tensor,
        *,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
        grid: Grid | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Scores ``[..., K]``; without grid and positions the tokens are one row.

        Args:
            features: ``[..., K, D]`` of the image.
            query: ``[..., Q, E]`` of the question.
            mask: ``[..., K]`` bool, False on padding (whose score is 0).
            query_mask: ``[..., Q]`` bool, False on padding.
            grid: rows and columns, the same for every image.
            positions: ``[..., K, 2]`` row and column, where grids differ.

        Raises:
            VisionError: shapes that do not fit each other or this scorer.
        """
        if features.dim() < 2 or features.shape[-1] != self.feature_size:
            raise VisionError(
                f"a scorer for {self.feature_size} features was given other features",
                why=f"their shape is {tuple(features.shape)}",
                next_step=f"give [..., K, {self.feature_size}]",
            )
        leading = features.shape[:-2]
        features_NKD = features.reshape(-1, *features.shape[-2:])
        count = len(features_NKD)
        words = query.shape[-2]
        query_NQE = query.expand(*leading, *query.shape[-2:]).reshape(count, words, -1)
        mask = None if mask is None else mask.reshape(count, -1)
        positions = None if positions is None else positions.reshape(count, -1, 2)
        if query_mask is None:
            query_mask = torch.ones(count, words, dtype=torch.bool, device=query.device)
        layout = batch_layout(features_NKD, mask, positions, grid)
        scores = self.score(features_NKD, query_NQE, query_mask.reshape(count, words), layout)
        return scores.masked_fill(~layout.mask, 0.0).reshape(*leading, -1)

    def score(
        self,
        features_NKD: Tensor,
        query_NQE: Tensor,
        query_mask: Tensor | None,
        layout: TokenLayout,
    ) -> Tensor:
        """Scores ``[N, K]`` of a padded batch; what stands on padding is not looked at."""
        read = read_each(features_NKD, self.reads())
        return self.judge(read, query_NQE, query_mask, layout)

    @abstractmethod
    def reads(self) -> list[Read]:
        """What it reads of the features."""

    @abstractmethod
    def judge(
        self,
        read: Sequence[Tensor],
        query_NQE: Tensor,
        query_mask: Tensor | None,
        layout: TokenLayout,
    ) -> Tensor:
        """Scores ``[N, K]`` from what was read, one ``[N, K, C]`` for each of :meth:`reads`.

        Where ``query_mask`` is None, no question is padded.
        """


def orthogonal_projection(size: int, target: int) -> Tensor:
    """A fixed matrix ``[size, min(size, target)]`` with orthonormal columns, the same each time.

    Example:
        >>> p = orthogonal_projection(16, 4)
        >>> torch.allclose(p.T @ p, torch.eye(4), atol=1e-6)
        True
    """
    chance = torch.Generator().manual_seed(0)
    drawn = torch.randn(size, min(size, target), generator=chance, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.float()


def _image_mean(x_NKC: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens that exist, ``[N, 1, C]``."""
    if mask is None:
        return x_NKC.mean(1, keepdim=True)
    present = mask.unsqueeze(-1)
    total = x_NKC.masked_fill(~present, 0.0).sum(1, keepdim=True)
    return total / present.sum(1, keepdim=True).clamp_min(1)


class InformationScorer(Scorer):
    """How surprising a token is among the tokens of its own image, in nats.

    ::

        −log N(z; μ, Σ)      z = Pᵀ f, a fixed orthogonal projection to d dimensions
                             Σ = (1 − λ) S + λ (tr S / d) I,  λ = d / (K + d)

    The mean and covariance are those of the image alone: what else stands in the batch changes
    nothing. The shrinkage leaves a covariance that can be inverted even for one token. Costs
    O(K · d²), not K²; nothing is learned, and the question is not read.

    Args:
        feature_size: D.
        dimensions: d, at most D.

    Example:
        >>> features = torch.zeros(9, 16) + 0.1 * torch.randn(9, 16)
        >>> features[4] += 5.0
        >>> int(InformationScorer(16)(features, torch.randn(2, 8)).argmax())
        4
    """

    projection: Tensor

    def __init__(self, feature_size: int, dimensions: int = 32) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.register_buffer("projection", orthogonal_projection(feature_size, dimensions))

    def score(
        self,
        features_NKD: Tensor,
        query_NQE: Tensor,
        query_mask: Tensor | None,
        layout: TokenLayout,
    ) -> Tensor:
        """See the class."""
        with torch.autocast(features_NKD.device.type, enabled=False):
            return super().score(features_NKD.float(), query_NQE, query_mask, layout)

    def reads(self) -> list[Read]:
        """See the class."""
        return [Projected(self.projection.float())]

    def judge(
        self,
        read: Sequence[Tensor],
        query_NQE: Tensor,
        query_mask: Tensor | None,
        layout: TokenLayout,
    ) -> Tensor:
        """See the class."""
        z_NKd, mask = read[0], layout.padding_mask
        size = z_NKd.shape[-1]
        centred = z_NKd - _image_mean(z_NKd, mask)
        count: Tensor | int = z_NKd.shape[1]
        if mask is not None:
            centred = centred.masked_fill(~mask.unsqueeze(-1), 0.0)
            count = mask.sum(-1).clamp_min(1)[:, None, None]
        covariance = centred.mT @ centred / count
        spread = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        shrinkage = size / (count + size)
        ridge = shrinkage * spread + 1e-6 * spread + 1e-8
        identity = torch.eye(size, device=z_NKd.device).expand_as(covariance)
        covariance = (1 - shrinkage) * covariance + ridge * identity
        # The ridge makes it definite; features that are not finite stay so instead of raising here.
        factor = torch.linalg.cholesky_ex(covariance).L
        # One small inverse and a product: cheaper than to solve for each of the many tokens. The
        # shrinkage keeps the factor's condition below the root of K.
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        whitened = centred @ inverse.mT
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        return 0.5 * whitened.square().sum(-1) + half_log_det + 0.5 * size * math.log(2 * math.pi)


class SalienceScorer(Scorer):
    """How a token stands out from its surroundings, and what is learned to matter in any question.

    ::

        w₁ |f − mean of its 3×3|  +  w₂ |f − mean of the image|  +  MLP(f)

    The distances are taken in a fixed projection to d dimensions, in units of the image's own
    spread; the MLP sees no position and no question. Both weights start at 1.

    Args:
        feature_size: D.
        width: of the MLP's hidden layer.
        dimensions: d, at most D.

    Example:
        >>> features = torch.zeros(9, 16)
        >>> features[4] += 5.0
        >>> int(SalienceScorer(16)(features, torch.randn(2, 8), grid=(3, 3)).argmax())
        4

    Source: centre-surround contrast of Itti, Koch and Niebur, "A Model of Saliency-Based Visual
        Attention", PAMI 1998, taken in the tower's feature space.
    """

    projection: Tensor

    def __init__(self, feature_size: int, width: int = 32, dimensions: int = 32) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.register_buffer("projection", orthogonal_projection(feature_size, dimensions))
        self.contrast_weights = nn.Parameter(torch.ones(2))
        self.mlp = nn.Sequential(
            nn.LayerNorm(feature_size),
            nn.Linear(feature_size, width),
            nn.GELU(),
            nn.Linear(width, 1, bias=False),  # one constant for all tokens ranks nothing
        )

    def reads(self) -> list[Read]:
        """See the class."""
        return [Projected(self.projection), Normed(self.mlp[0], self.mlp[1])]

    def judge(
        self,
        read: Sequence[Tensor],
        query_NQE: Tensor,
        query_mask: Tensor | None,
        layout: TokenLayout,
    ) -> Tensor:
        """See the class."""
        z_NKd, hidden_NKC = read
        learned: Tensor = self.mlp[3](self.mlp[2](hidden_NKC)).squeeze(-1)
        return self.contrast(z_NKd, layout) @ self.contrast_weights + learned

    def contrast(self, z_NKd: Tensor, layout: TokenLayout) -> Tensor:
        """Distance to the mean of the 3×3 and to the mean of the image, ``[N, K, 2]``."""
        z_NKd = z_NKd - _image_mean(z_NKd, layout.padding_mask)
        squares = [each.square().sum(-1) for each in (z_NKd - layout.mean_around(z_NKd), z_NKd)]
        distances = torch.stack(squares, dim=-1)
        variance = _image_mean(distances[..., 1:], layout.padding_mask)
        distances = distances / (variance + 1e-6)
        return (distances + 1e-8).sqrt()
