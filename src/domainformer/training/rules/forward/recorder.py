"""Looks at activations while a model trains, and changes nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment, Site, State


class ActivationRecorder(LearningRule):
    """Mean, spread, share of zeros and largest size of a value, into the run's log.

    Every n steps, in the first pass of the step, for each site::

        {site}.mean   {site}.std   {site}.zeros   {site}.largest

    Values and gradients stay as they are, and nothing is drawn: the curve is bit-identical.

    Source: what to look at: arXiv 2309.14322 (small-scale proxies for training instabilities),
    section 3.

    Args:
        every: n, in optimizer steps.

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> with attach(ActivationRecorder(sites=("0",)), model) as attached:
        ...     _ = model(torch.tensor([-1.0, 3.0]))
        ...     attached.metrics()["rule_activation_recorder_0.zeros"]
        0.5
    """

    name: ClassVar[str] = "activation_recorder"
    exact_gradient: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*",)
    every: int = Field(default=100, ge=1)

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Look."""
        if moment.step % self.every or moment.clock.micro:
            return value, state
        seen = value.detach().float()
        numbers = torch.stack(
            (
                seen.mean(),
                seen.std(correction=0),
                seen.eq(0).float().mean(),
                seen.abs().max(),
            )
        )
        return value, {**state, at.path: numbers.tolist()}

    def metrics(self, state: State) -> dict[str, float]:
        """The numbers of the last time."""
        names = ("mean", "std", "zeros", "largest")
        return {
            f"{path}.{name}": number
            for path, numbers in state.items()
            for name, number in zip(names, numbers, strict=True)
        }
