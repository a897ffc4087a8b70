"""What a pretraining may learn from, and the settings of each objective."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from domainformer.config import StrictConfig


class ObjectiveWeights(StrictConfig):
    """How much each objective counts; what is not named is not trained.

    Args:
        next_token: Predict each token from those before it.
        contrastive: Tell slices of one entity's history from those of others.

    Raises:
        ValueError: No weight is above zero.

    Example:
        >>> ObjectiveWeights(next_token=1.0, contrastive=0.5).used
        {'next_token': 1.0, 'contrastive': 0.5}
    """

    next_token: float = Field(0.0, ge=0, allow_inf_nan=False)
    contrastive: float = Field(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_weight(self) -> ObjectiveWeights:
        if not self.used:
            raise ValueError("at least one objective needs a weight above 0")
        return self

    @property
    def used(self) -> dict[str, float]:
        """The objectives with a weight above zero."""
        return {name: value for name, value in self.model_dump().items() if value > 0}


class ContrastiveConfig(StrictConfig):
    """Slices of histories and how they are told apart.

    Args:
        slices: Slices of each entity.
        min_events: Shortest slice; entities with fewer events give none.
        max_events: Longest slice.
        loss: ``margin`` as in CoLES, or ``info_nce``.
        margin: For ``margin``: slices of different entities shall be so far apart (vectors have
            length 1, so that distances are at most 2).
        hard_negatives: Each slice meets only so many nearest slices of other entities; None: all.
        temperature: For ``info_nce``: cosines are divided by it.
    """

    slices: int = Field(4, ge=2)
    min_events: int = Field(4, ge=1)
    max_events: int = Field(32, ge=1)
    loss: Literal["margin", "info_nce"] = "margin"
    margin: float = Field(0.5, gt=0, le=2)
    hard_negatives: int | None = Field(5, ge=1)
    temperature: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _some_length(self) -> ContrastiveConfig:
        if self.max_events < self.min_events:
            raise ValueError("max_events is smaller than min_events")
        return self
