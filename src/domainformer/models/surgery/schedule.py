"""Gradual unfreezing: a plan, as plain data, of which weights learn from which step on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery.depths import depth_groups
from domainformer.models.surgery.wrappers import described


@dataclass(frozen=True)
class UnfreezeStage:
    """Weights that begin to learn together.

    Args:
        step: Optimizer steps done before they do.
        part: What they are: ``head``, the path of a block, ``embeddings``.
        names: Their names in the model.
    """

    step: int
    part: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class UnfreezeSchedule:
    """Which weights learn at which step; a function of the step alone, so that resuming is exact.

    Args:
        stages: In the order of their steps; the first begins at step 0.

    Example:
        >>> schedule = UnfreezeSchedule((UnfreezeStage(0, "head", ("b",)),
        ...                              UnfreezeStage(10, "body", ("a",))))
        >>> [sorted(schedule.learning_at(step)) for step in (0, 9, 10)]
        [['b'], ['b'], ['a', 'b']]
        >>> UnfreezeSchedule.from_json(schedule.to_json()) == schedule
        True
    """

    stages: tuple[UnfreezeStage, ...]

    @property
    def names(self) -> frozenset[str]:
        """All weights that learn at some time."""
        return frozenset(name for stage in self.stages for name in stage.names)

    def learning_at(self, step: int) -> frozenset[str]:
        """The weights that learn in the step that comes after ``step`` finished ones."""
        return frozenset(
            name for stage in self.stages if stage.step <= step for name in stage.names
        )

    def reached(self, step: int) -> int:
        """Number of stages that have begun."""
        return sum(stage.step <= step for stage in self.stages)

    def apply(self, model: nn.Module, step: int) -> None:
        """Let those weights learn that shall; what the plan does not name stays as it is.

        Raises:
            SurgeryError: The plan was made for another model.
        """
        weights = dict(model.named_parameters())
        unknown = sorted(self.names - weights.keys())
        if unknown:
            raise SurgeryError(
                f"the plan of unfreezing was made for another model than {described(model)}",
                why=f"it names {unknown[0]!r}",
                next_step="make it anew: unfreeze_gradually(model, …)",
            )
        learning = self.learning_at(step)
        for name in self.names:
            weights[name].requires_grad_(name in learning)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> UnfreezeSchedule:
        """From plain data."""
        return cls(
            tuple(
                UnfreezeStage(int(one["step"]), str(one["part"]), tuple(one["names"]))
                for one in data["stages"]
            )
        )


def unfreeze_gradually(
    model: nn.Module, *, every: int, order: Sequence[str] | None = None
) -> UnfreezeSchedule:
    """Plan to let a model learn from its head downwards, one layer more every so many steps.

    ::

        step 0          head
        step every      head, last block
        step 2 · every  head, last two blocks        … down to the embeddings

    The plan changes nothing yet: the callback
    :class:`~domainformer.training.unfreezing.GradualUnfreezing` carries it out in a training. What
    is frozen now stays frozen throughout.

    Args:
        model: Any module; a tied weight belongs to its lowest place.
        every: Optimizer steps from one stage to the next.
        order: Patterns from the input to the output; None: as the model defines its layers.

    Raises:
        SurgeryError: Nothing in the model learns, or the order does not fit.

    Source: Howard and Ruder, "Universal language model fine-tuning for text classification",
    ACL 2018, section 3.3.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> [(stage.step, stage.part) for stage in unfreeze_gradually(model, every=50).stages]
        [(0, '2'), (50, '1'), (100, '0')]
    """
    if every < 1:
        raise SurgeryError(f"every={every} is no number of steps", next_step="give 1 or more")
    parts = [
        (
            group.name,
            tuple(weight.names[0] for weight in group.weights if weight.parameter.requires_grad),
        )
        for group in reversed(depth_groups(model, order))
    ]
    learning = [(part, names) for part, names in parts if names]
    if not learning:
        raise SurgeryError(
            f"nothing in {described(model)} learns",
            next_step="unfreeze(model, …) what shall learn in the end, then plan",
        )
    return UnfreezeSchedule(
        tuple(
            UnfreezeStage(place * every, part, names)
            for place, (part, names) in enumerate(learning)
        )
    )
