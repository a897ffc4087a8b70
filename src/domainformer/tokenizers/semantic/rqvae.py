"""RQ-VAE: an autoencoder whose latent is quantized level by level (TIGER, arXiv 2305.05065).

::

    x ─ encoder ─▶ r₁ = z ─▶ e₁ (nearest of codebook 1), r₂ = r₁ − e₁ ─▶ e₂ … ─▶ ẑ = Σ e_l
    x̂ = decoder(z + sg[ẑ − z])                                    (straight through)

    loss = ‖x − x̂‖² + Σ_l (‖sg[r_l] − e_l‖² + β ‖r_l − sg[e_l]‖²)

with sg the stop of the gradient. Codebooks start as residual k-means of the first latents. Codes
that no entity uses are a risk: every few epochs they are moved onto latents that are far from
their code, and in a last phase nothing is moved, so that the codebooks settle.

The result is a `Quantizer` in numpy: training needs torch, codes do not.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.tokenizers.semantic.kmeans import Progress, residual_kmeans
from domainformer.tokenizers.semantic.quantizer import Floats, Quantizer, usage
from domainformer.tokenizers.semantic.settings import RQVAESettings

_FEWEST_STEPS = 10
_SMALLEST_BATCH = 16
_BLOCK = 1 << 14


class Step(NamedTuple):
    """What one step of `RQVAE` gives."""

    loss: torch.Tensor
    reconstruction: torch.Tensor
    codes: torch.Tensor


class RQVAE(nn.Module):
    """The autoencoder; shapes: B entities, D features, Z latent, L levels, K codes.

    Args:
        width: Number of features D.
        levels: L.
        codes: K.
        settings: Layers and β.
    """

    def __init__(self, width: int, levels: int, codes: int, settings: RQVAESettings) -> None:
        super().__init__()
        sizes = (width, *settings.hidden, settings.latent)
        self.encoder = _perceptron(sizes)
        self.decoder = _perceptron(sizes[::-1])
        self.codebooks_LKZ = nn.Parameter(torch.zeros(levels, codes, settings.latent))
        self.beta = settings.beta

    def forward(self, x_BD: torch.Tensor) -> Step:
        """Loss as in the module's docstring, means over entities of sums over dimensions."""
        z_BZ = self.encoder(x_BD)
        residual_BZ, total_BZ = z_BZ, torch.zeros_like(z_BZ)
        quantization = x_BD.new_zeros(())
        codes = []
        for book_KZ in self.codebooks_LKZ:
            with torch.no_grad():
                code_B = _nearest(residual_BZ, book_KZ)
            e_BZ = book_KZ[code_B]
            codebook = F.mse_loss(e_BZ, residual_BZ.detach(), reduction="sum")
            commitment = F.mse_loss(residual_BZ, e_BZ.detach(), reduction="sum")
            quantization = quantization + codebook + self.beta * commitment
            total_BZ = total_BZ + e_BZ
            residual_BZ = residual_BZ - e_BZ.detach()
            codes.append(code_B)
        decoded_BD = self.decoder(z_BZ + (total_BZ - z_BZ).detach())
        reconstruction = F.mse_loss(decoded_BD, x_BD, reduction="sum")
        loss = (reconstruction + quantization) / len(x_BD)
        return Step(loss, reconstruction / len(x_BD), torch.stack(codes, dim=1))


class Trained(NamedTuple):
    """A trained RQ-VAE without torch.

    Args:
        quantizer: Encoder and codebooks.
        unexplained: Reconstruction error as a share of the features' variance.
        history: Per epoch: loss, reconstruction, smallest usage of a level, codes moved.
    """

    quantizer: Quantizer
    unexplained: float
    history: list[dict[str, float]]


def train_rqvae(
    features: Floats,
    *,
    levels: int = 3,
    codes: int = 256,
    settings: RQVAESettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trained:
    """Train on standardised features; the same seed gives the same codes on the same machine.

    Args:
        features: ``[n, d]``, zero mean and unit variance.
        levels: Codes of an entity.
        codes: Values of each.
        settings: Layers and optimisation.
        seed: Of weights, batches, k-means and moves. torch's own random state is left as it was.
        progress: Called with (epochs done, epochs in all, what is being done).
    """
    settings = settings or RQVAESettings()
    x_ND = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RQVAE(x_ND.shape[1], levels, codes, settings)
        _start_codebooks(model, x_ND, seed)
        history = _optimise(model, x_ND, settings, seed, progress)
    quantizer = _export(model)
    with torch.no_grad():
        chosen = quantizer.quantized(quantizer.codes(features))
        decoded = model.decoder(torch.from_numpy(chosen.astype(np.float32))).double().numpy()
    centred = features - features.mean(axis=0)
    unexplained = ((features - decoded) ** 2).sum() / max(float((centred**2).sum()), 1e-12)
    return Trained(quantizer, float(unexplained), history)


def _nearest(rows_NZ: torch.Tensor, book_KZ: torch.Tensor) -> torch.Tensor:
    """Index of the nearest code of each row, in blocks, so that a million rows fit in memory."""
    blocks = rows_NZ.split(_BLOCK)
    return torch.cat([torch.cdist(block, book_KZ).argmin(dim=1) for block in blocks])


def _perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.ReLU()] if index else []
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)


def _start_codebooks(model: RQVAE, x_ND: torch.Tensor, seed: int) -> None:
    levels, codes, _ = model.codebooks_LKZ.shape
    with torch.no_grad():
        latent = model.encoder(x_ND).double().numpy()
        start = residual_kmeans(latent, levels=levels, codes=codes, seed=seed, iterations=10)
        model.codebooks_LKZ.copy_(torch.from_numpy(start.codebooks))


def _optimise(
    model: RQVAE,
    x_ND: torch.Tensor,
    settings: RQVAESettings,
    seed: int,
    progress: Progress | None,
) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    random = torch.Generator().manual_seed(seed)
    last_move = round(settings.epochs * (1 - settings.settled))
    n_codes = model.codebooks_LKZ.shape[1]
    # Few entities in large batches would be hardly any steps.
    size = min(settings.batch_size, max(_SMALLEST_BATCH, len(x_ND) // _FEWEST_STEPS))
    history = []
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(x_ND), generator=random)
        loss = reconstruction = 0.0
        seen = []
        for batch in order.split(size):
            step: Step = model(x_ND[batch])
            optimizer.zero_grad(set_to_none=True)
            step.loss.backward()
            optimizer.step()
            share = len(batch) / len(x_ND)
            loss += step.loss.item() * share
            reconstruction += step.reconstruction.item() * share
            seen.append(step.codes)
        used = min(usage(torch.cat(seen).int().numpy(), n_codes))
        moving = epoch % settings.reset_every == 0 and epoch <= last_move
        moved = _move_unused(model, x_ND, optimizer, random) if moving else 0
        history.append(
            {"loss": loss, "reconstruction": reconstruction, "usage": used, "moved": float(moved)}
        )
        if progress is not None:
            progress(epoch, settings.epochs, f"RQ-VAE, loss {loss:.3f}, usage {used:.0%}")
    return history


@torch.no_grad()
def _move_unused(
    model: RQVAE, x_ND: torch.Tensor, optimizer: torch.optim.Optimizer, random: torch.Generator
) -> int:
    """Put codes that nothing uses onto residuals, drawn in proportion to squared distance."""
    residual_NZ = model.encoder(x_ND)
    state: dict[str, Any] = optimizer.state[model.codebooks_LKZ]
    moved = 0
    for level, book_KZ in enumerate(model.codebooks_LKZ):
        code_N = _nearest(residual_NZ, book_KZ)
        unused = torch.bincount(code_N, minlength=len(book_KZ)) == 0
        count = int(unused.sum())
        if count:
            far_N = (residual_NZ - book_KZ[code_N]).square().sum(dim=1) + 1e-12
            chosen = torch.multinomial(far_N, min(count, len(far_N)), generator=random)
            places = unused.nonzero()[: len(chosen), 0]
            book_KZ[places] = residual_NZ[chosen]
            # The moments belong to where the codes were before.
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    state[name][level, places] = 0.0
            code_N = _nearest(residual_NZ, book_KZ)
            moved += count
        residual_NZ = residual_NZ - book_KZ[code_N]
    return moved


def _export(model: RQVAE) -> Quantizer:
    layers = tuple(
        (layer.weight.detach().double().numpy().T.copy(), layer.bias.detach().double().numpy())
        for layer in model.encoder
        if isinstance(layer, nn.Linear)
    )
    return Quantizer(layers, model.codebooks_LKZ.detach().double().numpy().copy())
