"""Soft gates that a top-k selection is trained through, and the temperature that hardens them.

A language model adds the log of the gate to the attention logits of an image token's key. At a
high temperature it still reads tokens that would be dropped, and its training loss then lies: only
a schedule that ends cold makes the soft selection what the hard one will be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from domainformer.errors import ConfigError, VisionError


def threshold_gate(
    scores: Tensor,
    budget: int | Tensor,
    temperature: float | Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Log-gate whose midpoint lies between the k-th and the next score of each image.

    ::

        log σ((s − θ_k) / T)        θ_k = (s₍k₎ + s₍k+1₎) / 2, taken as a constant

    The scores are centred first: a shift of all of them changes no selection, and must get no
    gradient from a threshold that is taken as a constant. As T → 0 the gate becomes 0 for the top
    k and −∞ for the others: the hard selection. A budget of all tokens or more opens every gate.

    Args:
        scores: ``[..., K]``.
        budget: k, at least 1: one number, or one per image ``[...]``.
        temperature: T, above 0.
        mask: ``[..., K]`` bool, False on padding (whose gate is 0: it has no token to close).

    Raises:
        VisionError: a budget below 1 or a temperature that is not above 0.

    Example:
        >>> gate = threshold_gate(torch.tensor([3.0, 1.0, 2.0, 0.0]), 2, 0.1)
        >>> (gate.exp() > 0.5).tolist()
        [True, False, True, False]
    """
    _check_temperature(temperature)
    size = scores.shape[-1]
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    k = torch.as_tensor(budget, device=scores.device).expand(scores.shape[:-1]).unsqueeze(-1)
    if bool((k < 1).any()):
        raise VisionError(
            "a budget of no tokens leaves the model without its image",
            why=f"the smallest budget is {int(k.min())}",
            next_step="keep at least one token per image",
        )
    present = mask.sum(-1, keepdim=True).clamp_min(1)
    scores = scores - scores.masked_fill(~mask, 0.0).sum(-1, keepdim=True) / present
    ranked = scores.detach().masked_fill(~mask, -math.inf).sort(dim=-1, descending=True).values
    last = ranked.gather(-1, (k - 1).clamp(max=size - 1))
    following = ranked.gather(-1, k.clamp(max=size - 1))
    open_all = k >= present
    midpoint = ((last + following) / 2).masked_fill(open_all, 0.0)
    gate = F.logsigmoid((scores - midpoint) / temperature)
    return gate.masked_fill(open_all | ~mask, 0.0)


def open_gate(scores: Tensor, temperature: float | Tensor) -> Tensor:
    """Log-gate with its midpoint at score 0, for budgets that the scores themselves decide.

    ::

        log σ(s / T)        tokens kept = number of scores above 0

    Raises:
        VisionError: a temperature that is not above 0.

    Example:
        >>> open_gate(torch.tensor([-9.0, 9.0]), 1.0).exp().round().tolist()
        [0.0, 1.0]
    """
    _check_temperature(temperature)
    return F.logsigmoid(scores / temperature)


def harden(log_gate: Tensor, temperature: float | Tensor) -> Tensor:
    """The hard choice in the forward pass, the smooth gate's gradient in the backward pass.

    ::

        forward    0 where the gate is at least half open, −1 / T nats where it is not
        backward   that of the log-gate (straight-through)

    A smooth gate can be cheated: where all scores are alike, every gate stands half open and the
    model reads what will be dropped, however cold the gate is. Here a dropped token is dropped,
    at first by a nat, which leaves it a voice in the gradient, and at T = 0.05 by twenty.

    Args:
        log_gate: of :func:`threshold_gate` or :func:`open_gate`.
        temperature: T, above 0.

    Example:
        >>> scores = torch.tensor([0.02, 0.01, 0.0, -0.01], requires_grad=True)
        >>> gate = harden(threshold_gate(scores, 2, 0.1), 0.1)
        >>> gate.tolist()
        [0.0, 0.0, -10.0, -10.0]
        >>> gate[2].backward()
        >>> bool(scores.grad[2] > 0)
        True

    Source: straight-through estimation, Bengio, Léonard and Courville 2013, section 4.
    """
    _check_temperature(temperature)
    hard = torch.where(log_gate > -math.log(2), 0.0, -1.0 / temperature)
    return hard + (log_gate - log_gate.detach())


def _check_temperature(temperature: float | Tensor) -> None:
    if bool(torch.as_tensor(temperature <= 0).any()):
        raise VisionError(
            "a gate's temperature must be above 0",
            why=f"it is {temperature}",
            next_step="select hard instead of cooling the gate to 0",
        )


@dataclass(frozen=True)
class TemperatureSchedule:
    """From a gate that every token's gradient passes to one that is almost hard.

    ::

        exponential   start · (end / start)^(step / steps)
        linear        start + (end − start) · step / steps
        cosine        end + (start − end) · (1 + cos(π · step / steps)) / 2

    Args:
        steps: training steps until ``end`` is reached; it stays there.
        start: temperature of the first step, above 0.
        end: temperature of the last step, above 0.
        shape: the way between.

    Raises:
        ConfigError: a temperature not above 0, no steps, or a shape of no such name.

    Example:
        >>> schedule = TemperatureSchedule(steps=100)
        >>> [round(schedule(step), 3) for step in (0, 50, 100, 1000)]
        [1.0, 0.224, 0.05, 0.05]
    """

    steps: int
    start: float = 1.0
    end: float = 0.05
    shape: Literal["exponential", "linear", "cosine"] = "exponential"

    def __post_init__(self) -> None:
        if self.steps < 1 or not (self.start > 0 and self.end > 0):
            raise ConfigError(
                "a temperature schedule needs steps ≥ 1 and temperatures above 0",
                why=f"steps={self.steps}, start={self.start}, end={self.end}",
            )
        if self.shape not in ("exponential", "linear", "cosine"):
            raise ConfigError(
                f"there is no temperature schedule of the shape {self.shape!r}",
                next_step="choose 'exponential', 'linear' or 'cosine'",
            )

    def __call__(self, step: int) -> float:
        """The temperature at a step, counted from 0."""
        done = min(max(step / self.steps, 0.0), 1.0)
        if self.shape == "exponential":
            return self.start * (self.end / self.start) ** done
        if self.shape == "linear":
            return self.start + (self.end - self.start) * done
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2
