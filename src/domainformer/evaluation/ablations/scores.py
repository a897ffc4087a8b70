"""What one trained variant said about the held-out events, kept so that any two can be compared.

The loss per token cannot be: a variant with fewer tokens an event, or with tokens that are easy to
guess, has another sum over another number of terms. Comparable is what variants have to say about
the same thing. Where all have the same fields, that is the event::

    loss(variant) = mean over common events of  −log p(event | history)

Where they differ in fields, it is each *field of an event given the history alone*::

    loss(variant) = mean over common events of  Σ over common slots k of  −log p(x_k | history)

The fields before it in the same event are averaged out (:mod:`~domainformer.evaluation.scoring`),
or a variant would be helped by a field that another does not have. A slot is common where it has
the very same tokens. The bins of a number differ between variants, yet the number does not, so
there p counts as a *density* over ln |x|, uniform within a bin::

    −log p(bin) + log(width of the bin in ln |x|)

which is the same for 8 and for 64 bins that tell equally much. No bin counts as narrower than
`RESOLUTION`, so that a price that is always 0.99 is a value and not infinitely good.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.artifacts import fingerprint
from domainformer.data import EventTable
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ArtifactError
from domainformer.evaluation.baselines import slot_values
from domainformer.evaluation.merged_scoring import score_bundle
from domainformer.inference import Bundle
from domainformer.inference.grammar import SlotGrammar
from domainformer.schema import DomainSchema, FieldType
from domainformer.tokenizers import DomainTokenizer

RESOLUTION = 0.01
_ARRAYS = ("events", "loss", "correct", "joint")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Limits = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class SlotFacts:
    """What makes a slot of one variant the same as that of another.

    Args:
        name: ``field`` or ``field.part``.
        tokens: Short name of its tokens and of what they stand for.
        density: Whether its loss is one of a density, comparable whatever the tokens are.
    """

    name: str
    tokens: str
    density: bool


@dataclass(frozen=True)
class HeldOut:
    """What a variant said about some events.

    Args:
        events: Rows of the base's table, ascending, ``[events]``.
        loss: Nats of each slot given the history alone; NaN where an event lacks the slot,
            ``[events, slots]``.
        correct: Whether the most probable id was right; NaN as above, ``[events, slots]``.
        joint: Nats of the whole event given the history; NaN where the model cannot tell them,
            ``[events]``.
        slots: The slots.
    """

    events: Ints
    loss: Floats
    correct: Floats
    joint: Floats
    slots: tuple[SlotFacts, ...]

    def save(self, path: Path) -> None:
        """Write the numbers, whole or not at all (the slots are told elsewhere)."""
        staging = path.with_name(f".{path.name}.staging-{os.getpid()}")
        try:
            with staging.open("wb") as handle:
                np.savez(handle, **{name: getattr(self, name) for name in _ARRAYS})
                handle.flush()
                os.fsync(handle.fileno())
            staging.replace(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be written", why=str(error)) from error
        finally:
            staging.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, slots: list[dict[str, Any]]) -> HeldOut:
        """Read what `save` wrote.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        try:
            with np.load(path) as found:
                arrays = {name: found[name] for name in _ARRAYS}
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"{path} cannot be read",
                why=str(error),
                next_step=f"delete {path.parent} and run the ablation again",
            ) from error
        return cls(slots=tuple(SlotFacts(**slot) for slot in slots), **arrays)


def score_variant(
    bundle: Bundle,
    events: TokenizedEvents,
    rows: Ints,
    chosen: Ints,
    limits: Limits,
    *,
    samples: int,
    whole: bool,
) -> HeldOut:
    """Score the chosen events that a variant was shown.

    Args:
        bundle: Model and tokenizer.
        events: Histories as the variant saw them.
        rows: Which row of the base's table each of these events is, ascending.
        chosen: Rows of the base's table to score.
        limits: Smallest and largest magnitude of each number, as `magnitude_limits` gives them.
        samples: Completions per event.
        whole: Whether the variant saw all events: otherwise the time since the last event is
            another one.

    Raises:
        ArtifactError: The model has merged tokens that tell of several events.
    """
    present = np.flatnonzero(np.isin(rows, chosen))
    grammar = SlotGrammar.of(bundle.tokenizer)
    values = slot_values(events, grammar)
    scores = score_bundle(bundle, events, values, present, samples=samples)
    assert scores.history is not None
    values = values[present]
    widths = _log_widths(bundle.tokenizer, limits, values)
    correct = np.where(values >= 0, scores.history.correct, np.nan)
    unknown = scores.event_log_p is None
    joint = np.full(len(present), np.nan) if unknown else widths.sum(axis=1) - scores.event_log_p
    loss = widths - scores.history.log_p
    if bundle.merges is not None:
        # A completion decides on several fields with one token: another estimate, with another
        # error, than that of a model of single fields.
        loss = np.full_like(loss, np.nan)
    return HeldOut(rows[present], loss, correct, joint, slot_facts(bundle.tokenizer, whole=whole))


def slot_facts(tokenizer: DomainTokenizer, *, whole: bool = True) -> tuple[SlotFacts, ...]:
    """What the slots of a tokenizer are, in order.

    Args:
        tokenizer: Fitted.
        whole: Whether all events were shown.
    """
    token_of = dict(zip(tokenizer.layout.token_ids.tolist(), tokenizer.layout.tokens, strict=True))
    facts = []
    for block in tokenizer.layout.blocks:
        for slot in block.slots:
            is_bins = slot.kind is FieldType.NUMERICAL_CONTINUOUS
            told: list[Any] = [str(slot.kind), [token_of.get(i) for i in slot.ids.tolist()]]
            if is_bins or slot.part == "elapsed":
                told.append(block.tokenizer.state())
            if slot.part == "elapsed":
                told.append(whole)
            if slot.ragged:  # other pieces tell other parts of a text that is cut
                told += [slot.max_tokens, len(tokenizer.bpe_ids)]
            facts.append(SlotFacts(slot.name, fingerprint(told), is_bins))
    return tuple(facts)


def magnitude_limits(schema: DomainSchema, training: EventTable) -> dict[str, tuple[float, float]]:
    """Smallest and largest magnitude above zero of each number in the training events.

    They close the first and the last bin, which are open.
    """
    limits = {}
    for spec in schema.fields:
        if spec.field_type is not FieldType.NUMERICAL_CONTINUOUS:
            continue
        size = training.frame[spec.source].cast(pl.Float64).abs()
        size = size.filter(size.is_finite() & (size > 0))
        if len(size):
            limits[spec.name] = (float(size.min()), float(size.max()))  # type: ignore[arg-type]
    return limits


def _log_widths(
    tokenizer: DomainTokenizer, limits: Limits, values: npt.NDArray[np.int32]
) -> Floats:
    """The log-width of the bin of each event's numbers; 0 at other slots, ``[events, slots]``."""
    widths = np.zeros(values.shape)
    index = -1
    for block in tokenizer.layout.blocks:
        for slot in block.slots:
            index += 1
            if slot.kind is not FieldType.NUMERICAL_CONTINUOUS or slot.field not in limits:
                continue
            described = [block.tokenizer.describe(local) for local in range(slot.width)]
            own = np.array([_log_width(one, limits[slot.field]) for one in described])
            has = values[:, index] >= 0
            widths[has, index] = own[values[has, index]]
    return widths


def _log_width(described: Mapping[str, Any], limits: tuple[float, float]) -> float:
    """Log of the width of a bin in ln |x|; 0 for what is no bin: zero and missing are atoms.

    Example:
        >>> bin_of_one = {"kind": "bin", "low": 1.0, "high": math.e}
        >>> _log_width(bin_of_one, (1.0, 100.0)), _log_width({"kind": "zero"}, (1.0, 100.0))
        (0.0, 0.0)
    """
    if described["kind"] != "bin":
        return 0.0
    smallest, largest = limits
    low = max(described["low"], smallest)
    high = largest if described["high"] is None else min(described["high"], largest)
    if high <= low:  # a bin of the largest value alone
        return math.log(RESOLUTION)
    return math.log(max(math.log(high / low), RESOLUTION))
