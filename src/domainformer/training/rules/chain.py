"""Several rules as one, in the order in which they are written.

``chain(a, b)`` is itself a rule. Values at a site go through a, then b; so do gradients at a site,
gradients of the weights, and weights after a step. At most one rule brings an optimizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import SerializeAsAny, model_validator
from torch import nn

from domainformer.training.rules.base import (
    STEPS,
    Gradients,
    LearningRule,
    Moment,
    Parameters,
    Seen,
    Site,
    Slot,
    State,
)
from domainformer.training.rules.finite import all_finite, made_by
from domainformer.training.rules.sites import find_sites


class Chain(LearningRule):
    """Rules in order; see :func:`chain`."""

    name: ClassVar[str] = "chain"
    rules: tuple[SerializeAsAny[LearningRule], ...] = ()

    @model_validator(mode="after")
    def _one_optimizer(self) -> Chain:
        brought = [rule.name for rule in self.rules if "optimizer" in rule.steps]
        if len(brought) > 1:
            raise ValueError(f"several rules bring an optimizer: {', '.join(brought)}; keep one")
        return self

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that any of the rules has to do with."""
        return tuple(step for step in STEPS if any(step in rule.steps for rule in self.rules))

    @property
    def keyed(self) -> list[tuple[str, LearningRule]]:
        """The rules, each with a key of its own: its place and its name."""
        return [(f"{index}:{rule.name}", rule) for index, rule in enumerate(self.rules)]

    def sites_of(self, model: nn.Module) -> dict[str, list[Site]]:
        """The sites of each rule, by key.

        Raises:
            RuleError: A pattern matches nothing.
        """
        return {key: find_sites(model, rule.sites, rule=rule.name) for key, rule in self.keyed}

    def init(self, model: nn.Module, sites: Sequence[Site]) -> State:
        """The states of all rules, by key."""
        found = self.sites_of(model)
        return {key: rule.init(model, found[key]) for key, rule in self.keyed}

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """One rule after the other."""
        for key, rule in self._with("update"):
            own = Moment(moment.clock, key)
            # Looked at before: rules may change gradients in place.
            looks = own.clock.checking and all_finite(gradients.values())
            gradients, state[key] = rule.update(gradients, state[key], parameters, own)
            if looks:
                _check(rule, gradients, "gradient of the weights", own)
        return gradients, state

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer | None:
        """The optimizer of the one rule that brings one."""
        for _, rule in self._with("optimizer"):
            return rule.optimizer(model, learning_rate=learning_rate, weight_decay=weight_decay)
        return None

    def after_step(self, parameters: Parameters, state: State, moment: Moment) -> State:
        """One rule after the other."""
        for key, rule in self._with("after_step"):
            own = Moment(moment.clock, key)
            looks = own.clock.checking and all_finite(parameters.values())
            state[key] = rule.after_step(parameters, state[key], own)
            if looks:
                _check(rule, parameters, "weight", own)
        return state

    def evaluation_weights(
        self, parameters: Parameters, state: State
    ) -> Mapping[str, torch.Tensor] | None:
        """Those of the last rule that has some."""
        for key, rule in reversed(self.keyed):
            weights = rule.evaluation_weights(parameters, state[key])
            if weights is not None:
                return weights
        return None

    def auxiliary_loss(
        self, seen: Seen, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The sum of all terms; ``seen.values`` are looked up by each rule's own key."""
        total = seen.logits.new_zeros(())
        for key, rule in self._with("auxiliary_loss"):
            own: Mapping[str, Any] = seen.values.get(key, {})
            mine = Seen(seen.model, seen.logits, seen.targets, seen.inputs, own)
            when = Moment(moment.clock, key)
            loss, state[key] = rule.auxiliary_loss(mine, state[key], when)
            if when.clock.checking and all_finite([seen.logits]) and not all_finite([loss]):
                raise made_by(rule, "term of the loss", where="", moment=when)
            total = total + loss
        return total, state

    def metrics(self, state: State) -> dict[str, float]:
        """Numbers of all rules, under ``rule_{name}_…`` (numbered where a name comes twice)."""
        names = [rule.name for rule in self.rules]
        told: dict[str, float] = {}
        for index, (key, rule) in enumerate(self.keyed):
            name = rule.name if names.count(rule.name) == 1 else f"{rule.name}{index}"
            told |= {f"rule_{name}_{k}": v for k, v in rule.metrics(state[key]).items()}
        return told

    @contextlib.contextmanager
    def around(
        self, model: nn.Module, sites: Sequence[Site], slot: Slot, moment: Moment
    ) -> Iterator[None]:
        """All rules' own changes of the model, undone in the opposite order."""
        found = self.sites_of(model)
        with contextlib.ExitStack() as stack:
            for key, rule in self.keyed:
                own = Moment(moment.clock, key)
                stack.enter_context(rule.around(model, found[key], Slot(slot.state, key), own))
            yield

    def _with(self, step: str) -> list[tuple[str, LearningRule]]:
        return [(key, rule) for key, rule in self.keyed if step in rule.steps]


def _check(rule: LearningRule, made: Mapping[str, torch.Tensor], what: str, moment: Moment) -> None:
    for name, tensor in made.items():
        if isinstance(tensor, torch.Tensor) and not all_finite([tensor]):
            raise made_by(rule, what, where=name, moment=moment)


def chain(*rules: LearningRule) -> Chain:
    """Several rules as one, in this order; chains inside are opened.

    Raises:
        ConfigError: More than one of them brings an optimizer.

    Example:
        >>> class Nothing(LearningRule):
        ...     name: ClassVar[str] = "nothing"
        >>> [key for key, _ in chain(Nothing(), chain(Nothing())).keyed]
        ['0:nothing', '1:nothing']
    """
    from domainformer.config import build

    flat: list[LearningRule] = []
    for rule in rules:
        flat.extend(rule.rules if isinstance(rule, Chain) else [rule])
    return build(Chain, {"rules": tuple(flat)})
