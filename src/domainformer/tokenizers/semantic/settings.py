"""How an RQ-VAE is built and trained; apart from `rqvae`, so that reading it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from domainformer.errors import InputError


@dataclass(frozen=True)
class RQVAESettings:
    """How an RQ-VAE is built and trained.

    Args:
        hidden: Widths of the encoder's hidden layers; the decoder mirrors them.
        latent: Width of the latent.
        beta: Weight β of the commitment.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        epochs: Passes over the entities in all.
        batch_size: Most entities per step; of few entities, a tenth.
        reset_every: Epochs between moves of unused codes.
        settled: Share of the epochs, at the end, without such moves.

    Raises:
        InputError: A value out of range.
    """

    hidden: tuple[int, ...] = (256, 128)
    latent: int = 32
    beta: float = 0.25
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    epochs: int = 250
    batch_size: int = 1024
    reset_every: int = 10
    settled: float = 0.3

    def __post_init__(self) -> None:
        for name in ("latent", "epochs", "batch_size", "reset_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden widths must be 1 or more, not {self.hidden}")
        for name in ("beta", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.settled <= 1:
            raise InputError(f"settled must be from 0 to 1, not {self.settled}")
