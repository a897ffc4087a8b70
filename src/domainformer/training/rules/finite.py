"""Values that are not finite, and which rule made them so.

Looking at every value costs, so it is done in the first step alone (``clock.checking``), and once
more over the last batch where a loss or a gradient is not finite later on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

import torch

from domainformer.errors import DomainformerError, RuleError
from domainformer.training.rules.base import LearningRule, Moment

if TYPE_CHECKING:
    from domainformer.training.rules.attachment import Attached

_STEPS_OF_WEIGHTS = ("update", "optimizer", "after_step")


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no number is infinite or NaN.

    Example:
        >>> all_finite([torch.ones(2), torch.tensor([1.0, float("nan")])])
        False
    """
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def made_by(rule: LearningRule, what: str, *, where: str, moment: Moment) -> RuleError:
    """The error of a rule that was given finite numbers and gave back others.

    Args:
        rule: The rule.
        what: What it made: a value, a gradient, …
        where: The path of the site or of the parameter.
        moment: When.
    """
    return RuleError(
        f"the rule {rule.name!r} made a {what} that is not finite",
        where=", ".join(part for part in (where, f"step {moment.step}") if part),
        why="everything that it was given was finite",
        next_step="lower its strength, or look for a division by zero in it",
    )


def explain(
    attached: Attached, what: str, value: float, again: Callable[[], torch.Tensor]
) -> NoReturn:
    """Stop a training that diverged, and name the rule that did it, where one can be named.

    Args:
        attached: The rules; the clock stands where it stood in the last pass.
        what: ``loss`` or ``gradient``.
        value: What was found.
        again: The forward pass of the last batch; gives its loss.

    Raises:
        RuleError: A rule made something finite infinite or NaN.
        DomainformerError: No rule did.
    """
    if all_finite(attached.parameters.values()):
        attached.clock.checking = True
        again().backward()
        why = "the training diverged: no learning rule made it so when the last batch was run again"
    else:
        rules = attached.rules.rules
        moved = [repr(r.name) for r in rules if set(r.steps) & set(_STEPS_OF_WEIGHTS)]
        why = "the last update made weights that are not finite" + (
            f"; rules of the update here: {', '.join(moved)}" if moved else ""
        )
    raise DomainformerError(
        f"the {what} is {value} at step {attached.clock.step + 1}",
        why=why,
        next_step="lower training.learning_rate, or set training.precision to fp32",
    )
