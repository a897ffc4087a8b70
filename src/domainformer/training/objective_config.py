"""What a pretraining may learn from, and the settings of each objective."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from domainformer.config import StrictConfig

_MICROSECONDS = {
    "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86_400 * 10**6, "w": 604_800 * 10**6,
}  # fmt: skip


def parse_span(span: str | float) -> int:
    """A span of time in the units of a store: a text in microseconds, a number as it is.

    Example:
        >>> parse_span("30d"), parse_span("1.5 h"), parse_span(12)
        (2592000000000, 5400000000, 12)
    """
    if not isinstance(span, str):
        return int(span)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", span)
    if match is None:
        raise ValueError(f"{span!r} is no span of time such as 30d, 12h, 45min or 2w")
    return int(float(match[1]) * _MICROSECONDS[match[2]])


class ObjectiveWeights(StrictConfig):
    """How much each objective counts; what is not named is not trained.

    Args:
        next_token: Predict each token from those before it.
        contrastive: Tell slices of one entity's history from those of others.
        masked_field: Tell hidden fields of events from all the rest of the history.
        horizon: Tell what comes within a span of time, or some events ahead.

    Raises:
        ValueError: No weight is above zero.

    Example:
        >>> ObjectiveWeights(next_token=1.0, contrastive=0.5).used
        {'next_token': 1.0, 'contrastive': 0.5}
    """

    next_token: float = Field(0.0, ge=0, allow_inf_nan=False)
    contrastive: float = Field(0.0, ge=0, allow_inf_nan=False)
    masked_field: float = Field(0.0, ge=0, allow_inf_nan=False)
    horizon: float = Field(0.0, ge=0, allow_inf_nan=False)

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


class MaskedFieldConfig(StrictConfig):
    """What is hidden in a history, to be told from the rest.

    Args:
        share: Probability of each part to be hidden.
        unit: A part is a ``field`` of an event (all its tokens), or a whole ``event``.
        fields: Fields that may be hidden; None: all.
        most: Most parts of a history that are hidden; of more, some at random.
    """

    share: float = Field(0.15, gt=0, le=1)
    unit: Literal["field", "event"] = "field"
    fields: tuple[str, ...] | None = Field(None, min_length=1)
    most: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _fields_of_fields(self) -> MaskedFieldConfig:
        if self.unit == "event" and self.fields is not None:
            raise ValueError("fields belong to unit: field; unit: event hides all of an event")
        return self


class HorizonConfig(StrictConfig):
    """What of the future is told from the end of each event: one of ``within`` and ``steps``.

    Args:
        within: Sum up the events of this span after it: a text such as ``30d``, ``12h``, ``45min``
            where times are dates, a number in the units of the column where they are numbers.
        steps: Tell the tokens of the event so many events later. Neither given: 4.
        observed_until: For ``within``: a span counts as seen where it ends no later than the last
            event of all entities (``part``), or than the entity's own (``entity``: where entities
            are seen for different times).
        values: For ``within``: categorical fields of which is told which values occur; None: all.
        most_values: Commonest values of each of them.
        count_bins: Bins of the number of events: 0, 1, 2, 3-4, 5-8, … the last without end.
        sums: For ``within``: numeric fields of which the sum of sizes is told.
        sum_bins: Bins of each sum, equally filled in training.
    """

    within: str | float | None = None
    steps: int | None = Field(None, ge=1)
    observed_until: Literal["part", "entity"] = "part"
    values: tuple[str, ...] | None = None
    most_values: int = Field(64, ge=1)
    count_bins: int = Field(8, ge=2)
    sums: tuple[str, ...] = ()
    sum_bins: int = Field(8, ge=2)

    @field_validator("within")
    @classmethod
    def _some_span(cls, value: str | float | None) -> str | float | None:
        if value is not None and parse_span(value) < 1:
            raise ValueError("the horizon must be longer than nothing")
        return value

    @model_validator(mode="after")
    def _one_horizon(self) -> HorizonConfig:
        if self.within is not None and self.steps is not None:
            raise ValueError("give within or steps, not both")
        return self

    @property
    def ahead(self) -> int | None:
        """Events ahead; None where a span is summed up."""
        return None if self.within is not None else self.steps or 4
