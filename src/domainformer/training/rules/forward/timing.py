"""Rules that act for a part of the training only."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment


class TimedRule(LearningRule):
    """A rule that acts in the steps ``first_step ≤ step < last_step``.

    Regularising the first steps alone ("early dropout") helps models that underfit, the later
    ones alone ("late dropout") those that overfit: arXiv 2303.01500, sections 4 and 5.

    Args:
        first_step: The first optimizer step in which it acts, from 0.
        last_step: The step in which it acts no more; None: it never ends.
    """

    compiles: ClassVar[bool] = True

    first_step: int = Field(default=0, ge=0)
    last_step: int | None = Field(default=None, ge=0)

    def acts(self, moment: Moment) -> bool:
        """Whether it acts now."""
        return self.first_step <= moment.step and (
            self.last_step is None or moment.step < self.last_step
        )
