"""Gradual unfreezing in a training: which weights learn is read off the step, never remembered.

::

    before the first step   all weights of the plan learn: the optimizer takes every one
    before each step        the plan says which of them learn in it

A weight that does not learn has no gradient, so no optimizer of torch steps on it, and its moments
begin when its gradients do. A resumed run ends with the weights of an uninterrupted one, since the
step is all that the plan needs.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from domainformer.errors import ConfigError
from domainformer.models.surgery import UnfreezeSchedule


class GradualUnfreezing(TrainerCallback):
    """Carries out a plan of unfreezing, in our engine and in the Hugging Face ``Trainer``.

    Args:
        schedule: Of :func:`~domainformer.models.surgery.unfreeze_gradually`.

    Raises:
        ConfigError: When the training begins: the optimizer lacks a weight of the plan.

    Source: Howard and Ruder, "Universal language model fine-tuning for text classification",
    ACL 2018, section 3.3.

    Example:
        >>> from torch import nn
        >>> from transformers import TrainerControl, TrainerState
        >>> from domainformer.models.surgery import unfreeze_gradually
        >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 1))
        >>> callback = GradualUnfreezing(unfreeze_gradually(model, every=10))
        >>> for step in (0, 9, 10):
        ...     state = TrainerState(global_step=step)
        ...     callback.on_step_begin(None, state, TrainerControl(), model=model)
        ...     print(step, [weight.requires_grad for weight in model.parameters()])
        0 [False, True, True]
        9 [False, True, True]
        10 [True, True, True]
    """

    def __init__(self, schedule: UnfreezeSchedule) -> None:
        self.schedule = schedule
        self._applied: int | None = None  # stages; only spares work where nothing changes

    def on_train_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """See that the optimizer has what will learn later."""
        self._applied = None
        optimizer, model = values.get("optimizer"), values["model"]
        if optimizer is None:
            return
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        lost = [
            name
            for name, weight in model.named_parameters()
            if name in self.schedule.names and id(weight) not in held
        ]
        if lost:
            raise ConfigError(
                "the optimizer lacks weights that the plan of unfreezing will let learn",
                why=", ".join(lost[:3]) + (", …" if len(lost) > 3 else ""),
                next_step="make the optimizer before anything of the plan is frozen",
            )

    def on_step_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Let those weights learn that shall in this step."""
        stage = self.schedule.reached(state.global_step)
        if stage != self._applied:
            self.schedule.apply(values["model"], state.global_step)
            self._applied = stage
