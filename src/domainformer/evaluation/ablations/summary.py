"""From finished trials to one table: each variant's figures, and its distance from the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.evaluation.ablations.axes import AXES, BASE, Variant
from domainformer.evaluation.ablations.differences import Difference, differ, spread
from domainformer.evaluation.ablations.plan import Plan
from domainformer.evaluation.ablations.scores import HeldOut
from domainformer.evaluation.ablations.trials import Trial
from domainformer.evaluation.intervals import ClusterBootstrap

RESAMPLES = 500
LOSS, ACCURACY, DOWNSTREAM = "loss", "accuracy", "downstream"
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """A figure of a variant.

    Args:
        value: Mean over seeds.
        spread: Standard deviation over seeds; None for one seed.
        difference: To the base; None for the base itself.
    """

    value: float
    spread: float | None
    difference: Difference | None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        axis: The axis.
        variant: The variant; ``base`` on each axis, since the common slots differ by axis.
        seeds: The seeds.
        loss: Nats per event over what the axis (or, where each variant lacks something else, the
            variant and the base) has in common, given the history (see `scores`); None where that
            is not known.
        accuracy: Share of right guesses over the slots with the very same tokens, as above.
        downstream: The figure of the label or task; None where there is none.
        tokens_per_event: Of all events.
        events_trained: Events that were read in training (tokens ÷ tokens per event).
        seconds: Of one training.
        parameters: Of the model.
        eval_loss: Nats per *token*; not comparable where tokens differ.
    """

    axis: str
    variant: str
    seeds: tuple[int, ...]
    loss: Figure | None
    accuracy: Figure | None
    downstream: Figure | None
    tokens_per_event: float
    events_trained: int
    seconds: float
    parameters: int
    eval_loss: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Common:
    """What the variants of an axis are compared on.

    Args:
        events: Held-out events that all of them were shown.
        joint: Whether the loss is that of whole events (all have the same fields), or of fields
            given the history alone.
        loss: Slots behind the loss.
        accuracy: Slots behind the accuracy.
        left_out: Slots of the base that not all of them have with the same tokens.
    """

    events: int
    joint: bool
    loss: tuple[str, ...]
    accuracy: tuple[str, ...]
    left_out: tuple[str, ...]


Trials = Mapping[str, Sequence[Trial]]


def summarise(plan: Plan, trials: Trials, owners: Rows) -> tuple[list[Row], dict[str, Common]]:
    """All lines of the table, and what each axis (or ``axis: variant``) is compared on.

    Args:
        plan: The variants.
        trials: Trials of each variant, by its folder name, the same seeds in the same order.
        owners: The entity of each row of the table.
    """
    rows: list[Row] = []
    common: dict[str, Common] = {}
    base = trials[BASE]
    said = _said(base)
    for axis in plan.axes:
        variants = plan.of_axis(axis)
        pairwise = axis in AXES and AXES[axis].pairwise
        together = [] if pairwise else [one for v in variants for one in _said(trials[v.folder])]
        shared = _Shared.of([*said, *together], owners) if said else None
        if shared is not None and not pairwise:
            common[axis] = shared.told(said[0])
        rows.append(_row(axis, plan.variants[0], base, base, shared))
        for variant in variants:
            own = _said(trials[variant.folder])
            if pairwise and said and own:
                shared = _Shared.of([*said, *own], owners)
                common[f"{axis}: {variant.name}"] = shared.told(said[0])
            rows.append(_row(axis, variant, trials[variant.folder], base, shared))
    return rows, common


def _said(trials: Sequence[Trial]) -> list[HeldOut]:
    return [trial.held_out for trial in trials if trial.held_out is not None]


def _row(
    axis: str,
    variant: Variant,
    trials: Sequence[Trial],
    base: Sequence[Trial],
    shared: _Shared | None,
) -> Row:
    other = None if variant.axis == BASE else base
    facts = [trial.facts for trial in trials]
    losses = [fact["eval_loss"] for fact in facts if fact["eval_loss"] is not None]
    tokens = float(np.mean([fact["tokens_per_event"] for fact in facts]))
    return Row(
        axis=axis,
        variant=variant.name,
        seeds=tuple(trial.seed for trial in trials),
        loss=_held_out(shared, trials, other, LOSS),
        accuracy=_held_out(shared, trials, other, ACCURACY),
        downstream=_downstream(trials, other),
        tokens_per_event=tokens,
        events_trained=round(float(np.mean([fact["tokens"] for fact in facts])) / tokens),
        seconds=float(np.mean([fact["seconds"] for fact in facts])),
        parameters=facts[0]["parameters"],
        eval_loss=float(np.mean(losses)) if losses else None,
    )


@dataclass(frozen=True)
class _Shared:
    """The events and slots that several variants have in common."""

    events: Rows
    joint: bool
    loss: tuple[str, ...]
    accuracy: tuple[str, ...]
    bootstrap: ClusterBootstrap | None

    @classmethod
    def of(cls, found: Sequence[HeldOut], owners: Rows) -> _Shared:
        events = found[0].events
        for one in found[1:]:
            events = np.intersect1d(events, one.events)
        tokens = [{slot.name: slot for slot in one.slots} for one in found]
        named = [name for name in tokens[0] if all(name in slots for slots in tokens)]
        same = [name for name in named if len({slots[name].tokens for slots in tokens}) == 1]
        loss = [name for name in named if name in same or all(s[name].density for s in tokens)]
        bootstrap = None
        if len(events):
            bootstrap = ClusterBootstrap(owners[events], samples=RESAMPLES)
        whole = all(len(one.slots) == len(loss) for one in found)
        joint = whole and not any(np.isnan(one.joint).any() for one in found)
        return cls(events, joint, tuple(loss), tuple(same), bootstrap)

    def told(self, base: HeldOut) -> Common:
        left_out = tuple(slot.name for slot in base.slots if slot.name not in self.loss)
        return Common(len(self.events), self.joint, self.loss, self.accuracy, left_out)

    def per_event(self, found: HeldOut, what: str) -> npt.NDArray[np.float64]:
        """The figure of each common event: its loss, or the share of right guesses."""
        if what == LOSS and self.joint:
            return found.joint[np.searchsorted(found.events, self.events)]
        names = self.loss if what == LOSS else self.accuracy
        columns = np.flatnonzero([slot.name in names for slot in found.slots])
        rows = np.searchsorted(found.events, self.events)
        if what == LOSS:
            return np.asarray(np.nansum(found.loss[np.ix_(rows, columns)], axis=1))
        correct = found.correct[np.ix_(rows, columns)]
        has = ~np.isnan(correct)
        return np.asarray(np.where(has, correct, 0.0).sum(axis=1) / np.maximum(has.sum(axis=1), 1))


def _held_out(
    shared: _Shared | None, trials: Sequence[Trial], base: Sequence[Trial] | None, what: str
) -> Figure | None:
    own = _said(trials)
    if shared is None or shared.bootstrap is None or not own:
        return None
    if not (shared.loss if what == LOSS else shared.accuracy):
        return None
    if what == LOSS and not shared.joint and any(np.isnan(one.loss).all() for one in own):
        return None
    values = [shared.per_event(one, what) for one in own]
    means = [float(value.mean()) for value in values]
    if base is None:
        return Figure(float(np.mean(means)), spread(means), None)
    others = [shared.per_event(one, what) for one in _said(base)]
    paired = np.stack(values) - np.stack(others)
    interval = shared.bootstrap.mean(paired.mean(axis=0))
    drawn = (interval.high - interval.low) / 2
    by_seed = {trial.seed: float(row.mean()) for trial, row in zip(trials, paired, strict=True)}
    difference = differ(by_seed, drawn=drawn, higher_is_better=what == ACCURACY)
    return Figure(float(np.mean(means)), spread(means), difference)


def _downstream(trials: Sequence[Trial], base: Sequence[Trial] | None) -> Figure | None:
    scores = [trial.facts["downstream"] for trial in trials]
    if any(score is None for score in scores):
        return None
    values = [score["value"] for score in scores]
    if base is None:
        return Figure(float(np.mean(values)), spread(values), None)
    others = [trial.facts["downstream"]["value"] for trial in base]
    by_seed = {
        trial.seed: value - other
        for trial, value, other in zip(trials, values, others, strict=True)
    }
    higher = scores[0]["higher_is_better"]
    return Figure(float(np.mean(values)), spread(values), differ(by_seed, higher_is_better=higher))
