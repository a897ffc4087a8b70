"""Numbers as model inputs: scaling that the model carries, embeddings, and missing values.

::

    raw [B, F] ─▶ NumericScaler ─▶ one of: plain, linear, piecewise, plr ─▶ [B, F · D]
      NaN  ───────── mask ───────▶ the feature's own "missing" vector in place of it
      ±inf ─▶ the most extreme value of training

Everything that depends on data (centres, scales, quantiles, bin edges) is fitted on training rows
by ``fit`` and lives in buffers, so that it is saved with the weights.
"""

from __future__ import annotations

import math
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import initialization as init

from domainformer.errors import ConfigError, DataError

Scaling = Literal["standard", "quantile"]
NumericEmbedding = Literal["plain", "linear", "piecewise", "plr"]
FARTHEST = 10.0  # standard deviations from the mean; what lies beyond is set there
_LARGEST = 1e30  # raw numbers beyond it, infinite ones too, are read as this (float32 ends at 3e38)


class FeatureLinear(nn.Module):
    """A linear layer of its own for each feature: [B, F, I] to [B, F, O].

    Args:
        n_features: F.
        in_features: I.
        out_features: O.
    """

    def __init__(self, n_features: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_features, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(n_features, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/√I."""
        bound = self.weight.shape[1] ** -0.5
        init.uniform_(self.weight, -bound, bound)
        init.uniform_(self.bias, -bound, bound)

    def forward(self, x_BFI: torch.Tensor) -> torch.Tensor:
        """Apply each feature's layer."""
        return torch.einsum("bfi,fio->bfo", x_BFI, self.weight) + self.bias


class PeriodicLinearReLU(nn.Module):
    """Periodic embeddings of numbers (PLR).

    ::

        ReLU(Linear([cos(2π c·x), sin(2π c·x)]))        c ~ N(0, σ), trained, one row per feature

    σ is the sensitive setting: the best is below 0.05 on half of the paper's tasks and below 0.5
    on three quarters, so start small.

    Args:
        n_features: F.
        width: Numbers per feature that come out.
        n_frequencies: Frequencies c per feature.
        frequency_scale: σ; drawn values beyond 3σ are drawn again.
        lite: One linear layer shared by all features (arXiv 2307.14338) instead of one for each.

    Source: Gorishniy, Rubachev, Babenko, "On embeddings for numerical features in tabular deep
    learning", arXiv 2203.05556, section 3.3; the authors' ``rtdl_num_embeddings`` is the oracle of
    the tests.

    Example:
        >>> PeriodicLinearReLU(3, width=8)(torch.randn(5, 3)).shape
        torch.Size([5, 3, 8])
    """

    def __init__(
        self,
        n_features: int,
        width: int = 24,
        *,
        n_frequencies: int = 48,
        frequency_scale: float = 0.01,
        lite: bool = False,
    ) -> None:
        super().__init__()
        if frequency_scale <= 0:
            raise ConfigError(
                f"the frequency scale must be positive, not {frequency_scale}",
                next_step="start at 0.01",
            )
        self.frequency_scale = frequency_scale
        self.frequencies = nn.Parameter(torch.empty(n_features, n_frequencies))
        self.linear: nn.Module = (
            nn.Linear(2 * n_frequencies, width)
            if lite
            else FeatureLinear(n_features, 2 * n_frequencies, width)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the frequencies."""
        sigma = self.frequency_scale
        init.trunc_normal_(self.frequencies, mean=0.0, std=sigma, a=-3 * sigma, b=3 * sigma)

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        """Embed scaled numbers [B, F] as [B, F, width]."""
        angles_BFK = 2 * math.pi * self.frequencies * x_BF[..., None]
        waves = torch.cat([torch.cos(angles_BFK), torch.sin(angles_BFK)], dim=-1)
        return torch.relu(self.linear(waves))


class PiecewiseLinearEncoding(nn.Module):
    """How far a number reaches into each bin of its feature.

    ::

        edges  b₀ ──── b₁ ──── b₂ ──── b₃        x between b₁ and b₂
        code      1     (x−b₁)/(b₂−b₁)    0      below b₀ the first, above b₃ the last goes on

    Args:
        n_features: F.
        n_bins: Most bins K of a feature. Where quantiles coincide a feature has fewer, and zeros
            fill the rest.

    Source: arXiv 2203.05556, section 3.2 and equation 1; quantile bins as in 3.2.1.

    Example:
        >>> encoding = PiecewiseLinearEncoding(1, 2).fit(np.array([[0.0], [1.0], [5.0]]))
        >>> encoding(torch.tensor([[0.5], [3.0], [9.0]]))
        tensor([[[0.5000, 0.0000]],
        <BLANKLINE>
                [[1.0000, 0.5000]],
        <BLANKLINE>
                [[1.0000, 2.0000]]])
    """

    def __init__(self, n_features: int, n_bins: int) -> None:
        super().__init__()
        for name in ("slope", "offset", "lowest", "highest"):
            self.register_buffer(name, torch.zeros(n_features, n_bins))

    @torch.no_grad()
    def fit(self, x_NF: npt.NDArray[np.floating]) -> Self:
        """Put the edges at quantiles of the numbers of training; NaN is left out."""
        n_features, n_bins = self.slope.shape
        table = np.zeros((4, n_features, n_bins), np.float32)
        for feature in range(n_features):
            values = x_NF[np.isfinite(x_NF[:, feature]), feature]
            shares = np.linspace(0, 1, n_bins + 1)
            edges = np.unique(np.quantile(values, shares)) if len(values) else np.empty(0)
            bins = len(edges) - 1
            if bins < 1:
                continue  # one value or none: all zeros
            widths = np.diff(edges)
            low, high = np.zeros(bins), np.ones(bins)
            low[0], high[-1] = -np.inf, np.inf
            for row, line in enumerate((1 / widths, -edges[:-1] / widths, low, high)):
                table[row, feature, :bins] = line
        for name, line in zip(("slope", "offset", "lowest", "highest"), table, strict=True):
            getattr(self, name).copy_(torch.from_numpy(line))
        return self

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        """Encode scaled numbers [B, F] as [B, F, K]."""
        reach = torch.addcmul(self.offset, self.slope, x_BF[..., None].to(self.slope.dtype))
        return reach.clamp(self.lowest, self.highest)


class NumericScaler(nn.Module):
    """Brings raw numbers to a common scale, with what it learned from training in buffers.

    ``standard``: (x − mean) / standard deviation, cut off at ±10. ``quantile``: the normal score
    of x's place among the quantiles of training, whatever the distribution was.

    NaN is missing. Infinite numbers are read as the most extreme number that can come out on
    their side. A feature that is constant, or always missing, comes out as 0.

    Args:
        n_features: F.
        kind: ``standard`` or ``quantile``.
        n_quantiles: Knots Q of each feature for ``quantile``.

    Example:
        >>> scaler = NumericScaler(1).fit(np.array([[1.0], [3.0], [np.nan]]))
        >>> scaler(torch.tensor([[3.0], [float("nan")], [float("-inf")]]))
        (tensor([[  1.],
                [  0.],
                [-10.]]), tensor([[False],
                [ True],
                [False]]))
    """

    def __init__(
        self, n_features: int, kind: Scaling = "standard", *, n_quantiles: int = 256
    ) -> None:
        super().__init__()
        if kind not in get_args(Scaling):
            raise ConfigError(
                f"there is no scaling {kind!r}", next_step="choose standard or quantile"
            )
        self.kind = kind
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        if kind == "quantile":
            self.register_buffer("knots", torch.zeros(n_features, n_quantiles))
            self.register_buffer("levels", torch.full((n_features, n_quantiles), 0.5))

    @torch.no_grad()
    def fit(self, x_NF: npt.NDArray[np.floating]) -> Self:
        """Learn the scale from raw training numbers; NaN and infinite ones are left out.

        Raises:
            DataError: There are no rows, or another number of columns than features.
        """
        n_features = len(self.center)
        if x_NF.ndim != 2 or x_NF.shape[1] != n_features or not len(x_NF):
            raise DataError(
                "the scaler cannot be fitted on these numbers",
                why=f"they have shape {x_NF.shape}; [rows, {n_features}] is needed",
                next_step="pass the training rows of the same columns",
            )
        for feature in range(n_features):
            values = np.asarray(x_NF[:, feature], np.float64)
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            values = values.clip(-_LARGEST, _LARGEST)
            spread = float(values.std()) if values.max() > values.min() else 0.0
            self.center[feature] = float(values.mean())
            self.scale[feature] = spread or math.inf  # a constant comes out as 0
            if self.kind == "quantile":
                knots, levels = _quantile_map(values, self.knots.shape[1])
                self.knots[feature] = torch.from_numpy(knots)
                self.levels[feature] = torch.from_numpy(levels)
        return self

    @torch.no_grad()
    def forward(self, x_BF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled numbers [B, F] (0 where missing) and the mask of the missing ones [B, F]."""
        missing_BF = torch.isnan(x_BF)
        # Raw numbers may be large (times, account numbers): they keep their precision until here.
        known_BF = torch.where(missing_BF, self.center.to(x_BF.dtype), x_BF)
        known_BF = known_BF.clamp(-_LARGEST, _LARGEST)
        scaled = self._normal(known_BF) if self.kind == "quantile" else self._standard(known_BF)
        return scaled.masked_fill(missing_BF, 0.0).to(self.center.dtype), missing_BF

    def _standard(self, x_BF: torch.Tensor) -> torch.Tensor:
        return ((x_BF - self.center) / self.scale).clamp(-FARTHEST, FARTHEST)

    def _normal(self, x_BF: torch.Tensor) -> torch.Tensor:
        knots, levels = self.knots.to(x_BF.dtype), self.levels.to(x_BF.dtype)
        x_FB = x_BF.T.clamp(knots[:, :1], knots[:, -1:]).contiguous()
        right = torch.searchsorted(knots, x_FB, right=True).clamp(1, knots.shape[1] - 1)
        low, high = knots.gather(1, right - 1), knots.gather(1, right)
        width = high - low
        share = torch.where(width > 0, (x_FB - low) / width.clamp(min=1e-300), 0.0)
        start, stop = levels.gather(1, right - 1), levels.gather(1, right)
        return torch.special.ndtri(start + share * (stop - start)).T


def _quantile_map(
    values: npt.NDArray[np.float64], n_quantiles: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Knots and the share of training below each, the extremes half a row inside (0, 1).

    A value that holds several quantiles gets the middle of its shares.
    """
    shares = np.linspace(0, 1, min(n_quantiles, max(2, len(values))))
    quantiles = np.quantile(values, shares).astype(np.float32)
    inside = 0.5 / len(values)
    unique, group = np.unique(quantiles, return_inverse=True)
    mean = np.bincount(group, weights=inside + (1 - 2 * inside) * shares) / np.bincount(group)
    fill = n_quantiles - len(unique)
    knots = np.concatenate([unique, np.full(fill, unique[-1])])
    levels = np.concatenate([mean, np.full(fill, mean[-1])])
    return knots.astype(np.float32), levels.astype(np.float32)


class NumericEncoder(nn.Module):
    """Raw numbers [B, F] to model inputs [B, out_features]: scaled, embedded, missing told.

    Args:
        n_features: F.
        embedding: ``plain`` (the scaled number and a flag for missing), ``linear`` (ReLU of a
            linear layer per feature), ``piecewise`` (the same on its piecewise-linear encoding),
            or ``plr`` (:class:`PeriodicLinearReLU`). All but ``plain`` have a trained vector per
            feature that stands for a missing number.
        width: Numbers per feature that come out (``plain``: 2).
        n_frequencies: For ``plr``.
        frequency_scale: For ``plr``.
        n_bins: For ``piecewise``.
        scaling: See :class:`NumericScaler`.
        n_quantiles: See there.

    Example:
        >>> rows = np.array([[0.0, 1.0], [2.0, 5.0], [1.0, np.nan]])
        >>> encoder = NumericEncoder(2, "plr", width=4).fit(rows)
        >>> encoder(torch.tensor([[0.5, float("nan")]])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        n_features: int,
        embedding: NumericEmbedding = "plr",
        *,
        width: int = 8,
        n_frequencies: int = 16,
        frequency_scale: float = 0.01,
        n_bins: int = 16,
        scaling: Scaling = "standard",
        n_quantiles: int = 256,
    ) -> None:
        super().__init__()
        if embedding not in get_args(NumericEmbedding):
            raise ConfigError(
                f"there is no numeric embedding {embedding!r}",
                next_step=f"choose one of: {', '.join(get_args(NumericEmbedding))}",
            )
        self.embedding = embedding
        self.scaler = NumericScaler(n_features, scaling, n_quantiles=n_quantiles)
        self.encoding: PiecewiseLinearEncoding | None = None
        self.embed: nn.Module | None = None
        if embedding == "piecewise":
            self.encoding = PiecewiseLinearEncoding(n_features, n_bins)
            self.embed = FeatureLinear(n_features, n_bins, width)
        elif embedding == "linear":
            self.embed = FeatureLinear(n_features, 1, width)
        elif embedding == "plr":
            self.embed = PeriodicLinearReLU(
                n_features, width, n_frequencies=n_frequencies, frequency_scale=frequency_scale
            )
        self.missing = (
            None if embedding == "plain" else nn.Parameter(torch.zeros(n_features, width))
        )
        self.out_features = n_features * (2 if embedding == "plain" else width)

    def fit(self, x_NF: npt.NDArray[np.floating]) -> Self:
        """Fit the scaler, and bins where there are any, on raw training numbers."""
        self.scaler.fit(x_NF)
        if self.encoding is not None:
            scaled, missing = self.scaler(torch.as_tensor(x_NF, device=self.scaler.center.device))
            known = scaled.double().masked_fill(missing, torch.nan)
            self.encoding.fit(known.cpu().numpy())
        return self

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        """Encode raw numbers."""
        scaled_BF, missing_BF = self.scaler(x_BF)
        if self.embed is None or self.missing is None:
            return torch.cat([scaled_BF, missing_BF.to(scaled_BF.dtype)], dim=1)
        if self.encoding is not None:
            embedded = torch.relu(self.embed(self.encoding(scaled_BF)))
        elif self.embedding == "linear":
            embedded = torch.relu(self.embed(scaled_BF[..., None]))
        else:
            embedded = self.embed(scaled_BF)
        embedded = torch.where(missing_BF[..., None], self.missing.to(embedded.dtype), embedded)
        return embedded.flatten(1)


__all__ = [
    "FeatureLinear",
    "NumericEmbedding",
    "NumericEncoder",
    "NumericScaler",
    "PeriodicLinearReLU",
    "PiecewiseLinearEncoding",
    "Scaling",
]
