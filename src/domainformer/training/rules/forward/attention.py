"""Rules inside attention: temperature, soft cap, window, normed queries and keys.

They work in every model that uses transformers' attention interface (see ``interface.py``), in
training and in evaluation alike: they change what the model computes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.forward.interface import AttentionRule
from domainformer.training.rules.forward.normalise import rms_norm


class AttentionTemperature(AttentionRule):
    """Sharper (below 1) or flatter (above 1) attention: ``softmax(q·kᵀ/(T·√d))``.

    Queries are divided by T, which is exact and costs no kernel.

    Source: arXiv 1706.03762, section 3.2.1 (T = 1); sharper heads in small models: arXiv
    2501.19399, section 3.

    Args:
        temperature: T, 1 is none.

    Example:
        >>> q, _ = AttentionTemperature(temperature=2.0).heads(torch.ones(1, 1, 1, 2), None)
        >>> q.flatten().tolist()
        [0.5, 0.5]
    """

    name: ClassVar[str] = "attention_temperature"
    temperature: float = Field(default=1.0, gt=0, le=1000)

    @property
    def neutral(self) -> bool:
        """T = 1."""
        return self.temperature == 1

    def heads(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Divide queries by T."""
        return query / self.temperature, key


class AttentionSoftcap(AttentionRule):
    """Keep scores within ±c: ``c·tanh(scores/c)``.

    Against single scores that grow until attention looks at one token alone. Scores are written
    out for it, so it is slower than the fused kernel, the more the longer the rows.

    Source: arXiv 2408.00118 (Gemma 2), section 2, "Logit soft-capping" (c = 50 there).

    Args:
        cap: c.

    Example:
        >>> AttentionSoftcap(cap=2.0).scores(torch.tensor([-99.0, 0.0, 99.0])).tolist()
        [-2.0, 0.0, 2.0]
    """

    name: ClassVar[str] = "attention_softcap"
    cap: float = Field(default=50.0, gt=0)

    def scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Cap."""
        return self.cap * torch.tanh(scores / self.cap)


class AttentionWindow(AttentionRule):
    """Each token sees itself and the ``size − 1`` tokens before it; further back in steps.

    ::

        size 2           size 2, stride 3
        ■ . . . . .      ■ . . . . .
        ■ ■ . . . .      ■ ■ . . . .
        . ■ ■ . . .      . ■ ■ . . .
        . . ■ ■ . .      ■ . ■ ■ . .
        . . . ■ ■ .      . ■ . ■ ■ .
        . . . . ■ ■      . . ■ . ■ ■

    A local window in some layers (``sites: [blocks.0.attention]``) leaves the distance to others.

    Source: arXiv 2004.05150 (Longformer), section 3.1; strided: arXiv 1904.10509 (sparse
    Transformers), section 4.2.

    Args:
        size: Tokens that are seen, with the token itself.
        stride: Beyond the window, every so manieth token back is seen, too; None: none is.

    Example:
        >>> at = torch.arange(4)
        >>> AttentionWindow(size=2).visible(at[3:, None], at[None]).tolist()
        [[False, False, True, True]]
    """

    name: ClassVar[str] = "attention_window"
    size: int = Field(default=64, ge=1)
    stride: int | None = Field(default=None, ge=1)

    def visible(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
        """By the distance of query and key; rows within the window stay as they are."""
        if key.numel() <= self.size:
            return None
        distance = query - key
        near = distance < self.size
        return near if self.stride is None else near | (distance % self.stride == 0)


class QueryKeyNorm(AttentionRule):
    """Norm queries and keys, head by head, before they meet: scores depend on angles alone.

    ``q ← g·q/rms(q)``, ``k ← k/rms(k)``: scores stay within ±g·√d, so attention cannot collapse
    onto one token. Without weights; rotary positions turn vectors and keep their length, so it
    does not matter that they come first here.

    Source: arXiv 2010.04245, section 3; arXiv 2302.05442 (ViT-22B), section 2.

    Args:
        gain: g.
        epsilon: Added to the mean square.

    Example:
        >>> q, k = QueryKeyNorm().heads(*torch.full((2, 1, 1, 1, 4), 3.0))
        >>> round(float((q * k).sum()), 3)
        4.0
    """

    name: ClassVar[str] = "qk_norm"
    gain: float = Field(default=1.0, gt=0)
    epsilon: float = Field(default=1e-6, gt=0)

    def heads(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm both."""
        return self.gain * rms_norm(query, self.epsilon), rms_norm(key, self.epsilon)
