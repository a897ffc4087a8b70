"""Muon: momentum whose singular values are all made equal, for the matrices between features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim.adamw import adamw

from domainformer.training.optimizer import bf16_supported
from domainformer.training.rules.base import LearningRule
from domainformer.training.rules.update.groups import (
    GroupSettings,
    is_transposed,
    make_groups,
)
from domainformer.training.rules.update.lion import momentum_of
from domainformer.training.rules.update.orthogonal import orthogonalise, polar_express
from domainformer.training.rules.update.standard import Beta

_LEARNING_RATE = 0.02  # of Jordan's own runs


class Muon(LearningRule):
    """Orthogonalised momentum for hidden matrices, AdamW for everything else.

    ::

        m ← μ m + (1 − μ) g          u = (1 − μ) g + μ m  if nesterov else  m
        w ← w − lr · λ w − lr · scale · U Vᵀ                     where u = U S Vᵀ

    Every direction of a matrix learns at the same pace, the rare ones too. The matrices of
    attention and MLP are Muon's; embeddings, output layer, norms, biases and convolutions are
    AdamW's, with the run's learning rate. All matrices of one shape are orthogonalised together
    (:mod:`domainformer.training.rules.update.orthogonal`).

    Args:
        learning_rate: Peak for the matrices; None takes 0.02 with ``scale: shape`` and the run's
            with ``scale: adamw``.
        momentum: μ.
        nesterov: Look ahead along the momentum.
        scale: ``shape`` is √max(1, rows / columns), as Jordan does; ``adamw`` is
            0.2 √max(rows, columns), which moves entries as far as AdamW does, so that learning
            rates and decays of AdamW can be kept (Moonlight).
        iterations: Products with polynomials of degree five; each costs.
        smallest: Singular values from this share of the largest on arrive near one; smaller ones
            keep their order below. With fewer iterations it should be larger: 0.03 for three, 0.1
            for two.
        every: Each matrix moves at one step in so many, that much farther, and the matrices take
            turns: a share of the cost, for small models where the products are a part of a step
            that is felt. Momentum takes in every gradient. (Not from a paper.)
        precision: Of these products; ``auto`` takes bf16 where the processor multiplies it.
        weight_decay: Of the matrices; None takes the run's.
        betas: Of AdamW.
        eps: Of AdamW.
        embedding_learning_rate: Peak for embeddings; None takes the run's.
        head_learning_rate: Peak for an output matrix that is not tied; None takes the run's.
        vector_learning_rate: Peak for norms and biases; None takes the run's.
        groups: Parameters with settings of their own.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024
    (kellerjordan.github.io/posts/muon); Liu et al., "Muon is scalable for LLM training", 2025,
    section 2.2 (``scale: adamw``); coefficients: Amsel et al., "The Polar Express", 2025.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3, bias=False))
        >>> optimizer = Muon().optimizer(model, learning_rate=1e-3, weight_decay=0.1)
        >>> [(g["method"], g["lr"]) for g in optimizer.param_groups]
        [('adamw', 0.001), ('muon', 0.02)]
    """

    name: ClassVar[str] = "muon"
    compiles: ClassVar[bool] = True
    learning_rate: float | None = Field(default=None, ge=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    nesterov: bool = True
    scale: Literal["shape", "adamw"] = "shape"
    iterations: int = Field(default=5, ge=1, le=12)
    smallest: float = Field(default=0.01, ge=0.01, lt=1)
    every: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    weight_decay: float | None = Field(default=None, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    embedding_learning_rate: float | None = Field(default=None, ge=0)
    head_learning_rate: float | None = Field(default=None, ge=0)
    vector_learning_rate: float | None = Field(default=None, ge=0)
    groups: tuple[GroupSettings, ...] = ()

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Muon over the hidden matrices, AdamW over the rest."""
        hidden = self.learning_rate
        if hidden is None:
            hidden = _LEARNING_RATE if self.scale == "shape" else learning_rate
        by_kind: dict[Any, dict[str, Any]] = {
            kind: {"method": "adamw"} for kind in ("embedding", "head", "vector", "tensor")
        }
        for kind in ("embedding", "head", "vector"):
            own = getattr(self, f"{kind}_learning_rate")
            if own is not None:
                by_kind[kind]["lr"] = own
        by_kind["hidden"] = {"method": "muon", "lr": hidden}
        if self.weight_decay is not None:
            by_kind["hidden"]["weight_decay"] = self.weight_decay
        groups = make_groups(
            model,
            self.groups,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            by_kind=by_kind,
            rule=self.name,
        )
        transposed = [m.weight for m in model.modules() if is_transposed(m)]
        return MuonOptimizer(
            groups,
            momentum=self.momentum,
            nesterov=self.nesterov,
            scale=self.scale,
            iterations=self.iterations,
            smallest=self.smallest,
            every=self.every,
            precision=self.precision,
            betas=self.betas,
            eps=self.eps,
            transposed=transposed,
        )


class MuonOptimizer(torch.optim.Optimizer):
    """Muon and AdamW side by side; see :class:`Muon`.

    Args:
        params: Groups with ``method`` (``muon`` or ``adamw``), ``lr`` and ``weight_decay``.
        transposed: Matrices that are kept as [in, out].
        **defaults: As in :class:`Muon`; a group may have its own.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        transposed: Sequence[nn.Parameter] = (),
        **defaults: Any,
    ) -> None:
        names = ("momentum", "nesterov", "scale", "iterations", "smallest", "every", "precision")
        known = {name: Muon.model_fields[name].default for name in (*names, "betas", "eps")}
        own = {"lr": _LEARNING_RATE, "weight_decay": 0.0, "method": "muon", "turn": 0}
        # AdamW's kernel reads its step on the device; torch loads it there where a group says so.
        own["fused"] = True
        super().__init__(params, {**own, **known, **defaults})
        self._transposed = {id(parameter) for parameter in transposed}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of all parameters that have gradients."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                (self._muon if group["method"] == "muon" else self._adamw)(moved, group)

    def _adamw(self, moved: list[nn.Parameter], group: dict[str, Any]) -> None:
        for p in moved:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32, device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in moved]
        beta1, beta2 = group["betas"]
        adamw(
            moved,
            [p.grad for p in moved],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon(self, moved: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in moved]
        momenta = [momentum_of(self.state[p], p) for p in moved]
        mu = group["momentum"]
        torch._foreach_lerp_(momenta, gradients, 1.0 - mu)
        updates = torch._foreach_lerp(gradients, momenta, mu) if group["nesterov"] else momenta
        if group["weight_decay"]:
            torch._foreach_mul_(moved, 1.0 - group["lr"] * group["weight_decay"])
        coefficients = polar_express(group["iterations"], group["smallest"])
        every, group["turn"] = group["every"], group["turn"] + 1
        for shape in self._by_shape(moved):
            members = shape[-group["turn"] % every :: every]
            if not members:
                continue
            stack_NRC = _stack([updates[i] for i in members], group["precision"])
            factors_NRC = orthogonalise(stack_NRC, coefficients)
            parameters = [moved[i] for i in members]
            rate = every * group["lr"] * self._scale(parameters[0], group["scale"])
            factors = list(factors_NRC.to(parameters[0].dtype).unbind())
            torch._foreach_add_(parameters, factors, alpha=-rate)

    def _by_shape(self, moved: Sequence[nn.Parameter]) -> list[list[int]]:
        """Places of the matrices that go together."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for place, p in enumerate(moved):
            key = (tuple(p.shape), p.dtype, p.device, id(p) in self._transposed)
            found.setdefault(key, []).append(place)
        return list(found.values())

    def _scale(self, parameter: nn.Parameter, scale: str) -> float:
        rows, columns = parameter.shape
        if scale == "adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        if id(parameter) in self._transposed:
            rows, columns = columns, rows
        return math.sqrt(max(1.0, rows / columns))


def _stack(matrices: Sequence[torch.Tensor], precision: str) -> torch.Tensor:
    """Matrices as one batch, in the precision to compute in."""
    first = matrices[0]
    half = precision == "bf16" or (precision == "auto" and bf16_supported(first.device))
    dtype = torch.bfloat16 if half else torch.promote_types(first.dtype, torch.float32)
    stack_NRC = torch.empty((len(matrices), *first.shape), dtype=dtype, device=first.device)
    torch._foreach_copy_(list(stack_NRC.unbind()), list(matrices))
    return stack_NRC
