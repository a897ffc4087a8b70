"""Next-event accuracy and log-loss of every slot, model against baselines, on the same events.

Two views, because one number would mislead (see :mod:`~domainformer.evaluation.scoring`):

- ``history_only`` is the fair contest: model and baselines know the history and nothing of the
  event itself. The headline.
- ``within_event`` is how the model factorises: later fields may look at earlier fields of the same
  event, which no baseline can. Its log-losses add up to that of the whole event. A model of merged
  tokens has none: its tokens hold several fields each.

The first event of a history is left out, for all contestants alike: nothing precedes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from domainformer.data.splits import ROLE_NAMES, TEST, TRAIN
from domainformer.data.store import TokenStore
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError, FingerprintError
from domainformer.evaluation.baselines import (
    BASELINES,
    POPULAR,
    REPEAT,
    Prediction,
    SlotBaselines,
    first_events,
    slot_values,
)
from domainformer.evaluation.intervals import ClusterBootstrap, Interval
from domainformer.evaluation.merged_scoring import score_bundle
from domainformer.evaluation.parts import SlotPart, first_of_entity, slot_parts
from domainformer.evaluation.scores import EventScores, SlotScores
from domainformer.inference import Bundle
from domainformer.inference.grammar import SlotGrammar
from domainformer.tokenizers import Slot

View = Literal["history_only", "within_event"]
MODEL = "model"


@dataclass(frozen=True)
class SlotResult:
    """One slot in one view.

    Args:
        view: ``history_only`` or ``within_event``.
        field: Name of the field.
        part: Calendar part, ``"elapsed"``, ``"present"`` (of a text), or "".
        kind: The field's type.
        ids: Number of ids that the slot chooses from.
        accuracy: Share of right guesses by contestant: ``model`` and the baselines.
        log_loss: Mean −log p in nats by contestant.
        best: The better of *most popular* and *repeat last*, per metric, on these very events.
        differences: ``{baseline: {metric: Interval}}``, model minus baseline, paired, by entity.
            Positive accuracy and negative log-loss speak for the model.
        outside: Mean probability that the model gave to ids outside the slot (within_event).
        source: The source of the events; None for events of all sources.
        events: Scored events that have the slot.
    """

    view: View
    field: str
    part: str
    kind: str
    ids: int
    accuracy: dict[str, float]
    log_loss: dict[str, float]
    best: dict[str, str]
    differences: dict[str, dict[str, Interval]]
    outside: float | None
    source: str | None = None
    events: int = 0

    @property
    def name(self) -> str:
        """``field`` or ``field.part``, with its source where there are several."""
        own = f"{self.field}.{self.part}" if self.part else self.field
        return own if self.source is None else f"{self.source}: {own}"

    @property
    def beats_baselines(self) -> bool:
        """Whether the model is ahead of both asked-for baselines in accuracy and in log-loss."""
        return all(
            self.accuracy[MODEL] > self.accuracy[other]
            and self.log_loss[MODEL] < self.log_loss[other]
            for other in (POPULAR, REPEAT)
        )


@dataclass(frozen=True)
class TextResult:
    """The BPE tokens of one text field: mean nats per token, given all that stands before it.

    Args:
        field: Name of the field.
        tokens: Number of BPE tokens.
        log_loss: Of ``model`` (within BPE) and ``most_popular`` (training frequency of tokens).
    """

    field: str
    tokens: int
    log_loss: dict[str, float]


@dataclass(frozen=True)
class NextEvent:
    """The contest over the next event.

    Args:
        role: Which events were scored (``test``).
        events: Number of scored events.
        candidates: Number of events that could have been scored.
        entities: Entities that the scored events belong to.
        first_events: Whether first events of histories are among them.
        samples: Completions per event behind ``history_only``.
        seed: Of the choice of events and of the completions.
        context: Longest window, in tokens.
        event_log_loss: Mean nats per whole event, over the full vocabulary; of merged tokens those
            of the greedy encoding, and None where the model was trained on permuted ones.
        slots: Every slot in every view.
        text: Every text field.
    """

    role: str
    events: int
    candidates: int
    entities: int
    first_events: bool
    samples: int
    seed: int
    context: int
    event_log_loss: float | None
    slots: list[SlotResult]
    text: list[TextResult]

    def view(self, view: View) -> list[SlotResult]:
        """The slots of one view, in the order of the event."""
        return [slot for slot in self.slots if slot.view == view]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def next_event(
    bundle: Bundle,
    source: TokenizedEvents | TokenStore,
    *,
    role: int = TEST,
    max_events: int | None = 3000,
    samples: int = 8,
    seed: int = 0,
    include_first: bool = False,
    context: int | None = None,
    batch_tokens: int = 8192,
    resamples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> NextEvent:
    """Score a causal language model on events of one role, against the baselines.

    Args:
        bundle: Model and tokenizer.
        source: Whole histories with roles: training events fit the baselines, all events before
            a scored one are its history.
        role: 0 train, 1 validation, 2 test.
        max_events: Score at most so many events, drawn at random; None scores all.
        samples: Completions per event for ``history_only``; 0 leaves that view out.
        seed: Of the draw and of the completions.
        include_first: Also score first events of histories.
        context: Longest window in tokens; the bundle's own by default.
        batch_tokens: Tokens per forward pass.
        resamples: Bootstrap resamples for the intervals.
        progress: Called with (events done, events in all).

    Raises:
        ArtifactError: The model is a classifier, or its merged tokens hold parts of several events.
        FingerprintError: The events were made by another tokenizer.
        DataError: There are no roles, no events to score, or no training events.
    """
    events = source.events() if isinstance(source, TokenStore) else source
    _check(bundle, events)
    grammar = SlotGrammar.of(bundle.tokenizer)
    assert events.roles is not None
    first = first_events(events)
    eligible = np.ones(events.n_events, np.bool_) if include_first else ~first
    candidates = np.flatnonzero((events.roles == role) & eligible)
    if not len(candidates):
        raise DataError(
            f"there are no {ROLE_NAMES[role]} events to score",
            why="none has this role and a past",
            next_step="choose another split, or another role",
        )
    chosen = choose_events(candidates, max_events, seed)
    values = slot_values(events, grammar)
    scores = score_bundle(
        bundle,
        events,
        values,
        chosen,
        context=context,
        samples=samples,
        seed=seed,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    log_p = scores.event_log_p
    owners = np.searchsorted(np.asarray(events.entity_offsets), chosen, side="right")
    train = (events.roles == TRAIN) & eligible
    return NextEvent(
        role=ROLE_NAMES[role],
        events=len(chosen),
        candidates=len(candidates),
        entities=len(np.unique(owners)),
        first_events=include_first,
        samples=samples,
        seed=seed,
        context=context or bundle.context,
        event_log_loss=None if log_p is None else float(-log_p.mean()),
        slots=_slot_results(events, grammar, values, scores, train, resamples=resamples, seed=seed),
        text=_text_results(events, grammar, scores),
    )


def choose_events(
    candidates: npt.NDArray[np.int64], most: int | None, seed: int
) -> npt.NDArray[np.int64]:
    """A uniform random sample, ascending; all where they are not too many."""
    if most is None or len(candidates) <= most:
        return candidates
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(candidates, size=most, replace=False))


def _check(bundle: Bundle, events: TokenizedEvents) -> None:
    if events.tokenizer_fingerprint != bundle.tokenizer.fingerprint:
        raise FingerprintError(
            "the events were made by another tokenizer than the model's",
            why=f"events: {events.tokenizer_fingerprint}, model: {bundle.tokenizer.fingerprint}",
            next_step="encode the table with the bundle's tokenizer",
        )
    if events.roles is None:
        raise DataError(
            "the events have no split roles",
            why="baselines are fitted on training events, the contest is held on test events",
            next_step="encode with roles: tokenizer.encode(table, roles=split.roles)",
        )


def _slot_results(
    events: TokenizedEvents,
    grammar: SlotGrammar,
    values: npt.NDArray[np.int32],
    scores: EventScores,
    train: npt.NDArray[np.bool_],
    *,
    resamples: int,
    seed: int,
) -> list[SlotResult]:
    offsets = np.asarray(events.entity_offsets)
    both: list[tuple[View, SlotScores | None]] = [
        ("history_only", scores.history),
        ("within_event", scores.within),
    ]
    views = [(view, of_view) for view, of_view in both if of_view is not None]
    results: dict[View, list[SlotResult]] = {view: [] for view, _ in views}
    resamplers: dict[bytes, ClusterBootstrap] = {}
    for part in slot_parts(grammar, values):
        slot, own = grammar.slots[part.slot], part.events
        rows = np.flatnonzero(np.isin(scores.events, own))
        if grammar.forms is not None and not (len(rows) and train[own].any()):
            continue  # nothing to score, or nothing that the baselines could learn from
        owners = np.searchsorted(offsets, scores.events[rows], side="right")
        key = rows.tobytes()  # most slots are of the same events
        if key not in resamplers:
            resamplers[key] = ClusterBootstrap(owners, samples=resamples, seed=seed)
        predictions = SlotBaselines(
            values[own, part.slot],
            slot.width,
            first_of_entity(own, offsets),
            train[own],
            _places(slot, grammar.first),
        ).predict(np.searchsorted(own, scores.events[rows]))
        for view, of_view in views:
            results[view].append(
                _slot_result(view, slot, part, of_view.take(rows), predictions, resamplers[key])
            )
    return [result for view, _ in views for result in results[view]]


def _places(slot: Slot, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where some ids stand among a slot's own; ids of other slots are left out."""
    return np.flatnonzero(np.isin(slot.ids, ids))


def _slot_result(
    view: View,
    slot: Slot,
    part: SlotPart,
    scores: SlotScores,
    baselines: dict[str, Prediction],
    resampler: ClusterBootstrap,
) -> SlotResult:
    index = part.slot
    contestants = {MODEL: Prediction(scores.log_p[:, index], scores.correct[:, index]), **baselines}
    accuracy = {name: float(one.correct.mean()) for name, one in contestants.items()}
    log_loss = {name: float(-one.log_p.mean()) for name, one in contestants.items()}
    model = contestants[MODEL]
    differences = {
        name: {
            "accuracy": resampler.mean(model.correct.astype(float) - baselines[name].correct),
            "log_loss": resampler.mean(baselines[name].log_p - model.log_p),
        }
        for name in BASELINES
    }
    asked = (POPULAR, REPEAT)
    return SlotResult(
        view=view,
        field=slot.field,
        part="present" if slot.ragged else slot.part,
        kind=str(slot.kind),
        ids=slot.width,
        accuracy=accuracy,
        log_loss=log_loss,
        best={
            "accuracy": max(asked, key=accuracy.__getitem__),
            "log_loss": min(asked, key=log_loss.__getitem__),
        },
        differences=differences,
        outside=float(scores.outside[:, index].mean()) if view == "within_event" else None,
        source=part.source,
        events=len(scores.log_p),
    )


def _text_results(
    events: TokenizedEvents, grammar: SlotGrammar, scores: EventScores
) -> list[TextResult]:
    """Nats per BPE token; the baseline knows the frequency of tokens in training texts."""
    if not len(grammar.text_ids):
        return []
    assert events.roles is not None
    counts = np.ones(len(grammar.text_ids))
    offsets = np.asarray(events.event_offsets)
    lengths = np.diff(offsets)
    in_train = np.repeat(np.asarray(events.roles) == TRAIN, lengths)
    ids = np.asarray(events.ids)
    texts = grammar.text_place_of_id[ids[in_train]]
    texts = texts[texts >= 0]
    counts += np.bincount(texts, minlength=len(counts))
    log_popular = np.log(counts / counts.sum())
    owner_slot = _text_owners(events, grammar, scores.events)
    results = []
    for index, slot in enumerate(grammar.slots):
        tokens = int(scores.text_tokens[:, index].sum())
        if not slot.ragged or not tokens:
            continue
        popular = -float(log_popular[owner_slot[index]].mean())
        model = -float(scores.text_log_p[:, index].sum()) / tokens
        results.append(TextResult(slot.field, tokens, {MODEL: model, POPULAR: popular}))
    return results


def _text_owners(
    events: TokenizedEvents, grammar: SlotGrammar, chosen: npt.NDArray[np.int64]
) -> dict[int, npt.NDArray[np.int64]]:
    """The BPE tokens (counted from 0) of the chosen events, by the slot whose text they are."""
    found: dict[int, list[npt.NDArray[np.int64]]] = {}
    for event in chosen:
        start, stop = events.event_offsets[event], events.event_offsets[event + 1]
        ids = np.asarray(events.ids[start:stop]).astype(np.int64)
        slots = grammar.slot_of_id[ids]
        owner = slots[np.maximum.accumulate(np.where(slots >= 0, np.arange(len(ids)), 0))]
        text = slots < 0
        for slot in np.unique(owner[text]):
            found.setdefault(int(slot), []).append(ids[text & (owner == slot)])
    return {slot: grammar.text_place_of_id[np.concatenate(parts)] for slot, parts in found.items()}
