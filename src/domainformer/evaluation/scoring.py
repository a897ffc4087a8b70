"""What the model predicted for each slot of some events, in two views.

``within_event`` is the chain rule as the model computes it: each slot given the history *and the
fields before it in the same event*. Its logarithms add up to the event's log-likelihood.

``history_only`` is what a forecaster knows before the event happens: P(slot | history), with the
fields before it in the same event averaged out,

    P(x_k | h) = E over x_1 … x_{k-1} ~ P(· | h) of P(x_k | x_1 … x_{k-1}, h)

estimated by completing the event S times and averaging the *distributions* (Rao-Blackwell), not the
draws. The first slot is exact. Draws are stratified over the S completions of an event. The mean is
unbiased, so its logarithm errs against the model (Jensen), the more the smaller S is.

All completions of all events of a window share one cache of its tokens: each is a branch that sees
the window up to its own event, and itself::

    window    BOS e0 e0 e1 e1 e2 e2          branch of e1: BOS e0 e0 ▸ a b c
    branches        └▸ …  └▸ a b c           branch of e2: BOS e0 e0 e1 e1 ▸ …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from domainformer.data.tokens import TokenizedEvents
from domainformer.evaluation.next_token import BranchLogits, WindowLogits, inverse_cdf
from domainformer.evaluation.parts import EventScript
from domainformer.evaluation.scores import EventScores, SlotScores
from domainformer.evaluation.windows import (
    BOS_TOKENS,
    ScoringWindow,
    batch_windows,
    plan_scoring,
)
from domainformer.inference.grammar import GrammarState, SlotGrammar
from domainformer.inference.merged_grammar import MergedState

# Queries of a window in one branching step. Branches sit side by side in the cache and are masked
# from each other, so their cost grows with the square of this number.
MOST_BRANCHES = 64
LOGIT_ROWS = 2048


@torch.inference_mode()
def score_events(
    model: PreTrainedModel,
    events: TokenizedEvents,
    grammar: SlotGrammar,
    chosen: npt.NDArray[Any],
    *,
    context: int,
    samples: int = 8,
    seed: int = 0,
    batch_tokens: int = 8192,
    bos_id: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> EventScores:
    """Score some events in both views.

    Args:
        model: A causal language model in evaluation mode.
        events: All histories, of the model's tokenizer.
        grammar: The slots of an event.
        chosen: The events to score.
        context: Longest window that the model may see, BOS included.
        samples: Completions per event for the history-only view; 0 leaves it out.
        seed: The draws of an event depend on it and on the event's number alone.
        batch_tokens: Tokens per forward pass, padding included.
        bos_id: The id that opens every window.
        progress: Called with (events done, events in all).

    Raises:
        DataError: An event is longer than the context.
    """
    chosen = np.unique(np.asarray(chosen, dtype=np.int64))
    most = max(1, MOST_BRANCHES // samples) if samples else None
    if samples and model.config.position_encoding == "learned":
        # A completion may be longer than what happened, and there is no position after the last.
        context = min(context, model.config.max_position_embeddings - grammar.longest_event)
    windows = plan_scoring(events, chosen, context, most=most)
    shape = (len(chosen), len(grammar.slots))
    scores = EventScores(
        events=chosen,
        within=SlotScores.empty(*shape),
        history=SlotScores.empty(*shape) if samples else None,
        event_log_p=np.zeros(len(chosen)),
        text_log_p=np.zeros(shape),
        text_tokens=np.zeros(shape, np.int64),
    )
    done = 0
    for indices in batch_windows(windows, batch_tokens):
        batch = Batch.of(model, events, [windows[i] for i in indices], chosen, bos_id)
        output = model.base_model(input_ids=batch.ids, use_cache=samples > 0)
        _score_within(model, grammar, batch, output.last_hidden_state, scores)
        if scores.history is not None:
            draws = stratified_draws(chosen[batch.slots_filled()], grammar, samples, seed)
            branches = Branches(model, grammar, batch, output, samples, draws)
            branches.run(events, scores.history)
        done += sum(len(windows[i].scored) for i in indices)
        if progress is not None:
            progress(done, len(chosen))
    return scores


@dataclass(frozen=True)
class Batch:
    """Windows as rows of ids, padded on the right (causal attention never looks there).

    ``targets`` has a line per token of a scored event: row, position, event (index into chosen);
    ``place`` is the chosen index of the g-th scored event of each row, −1 where there is none;
    ``boundary`` is the position of that event's first token.
    """

    ids: torch.Tensor
    targets: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        events: TokenizedEvents,
        windows: list[ScoringWindow],
        chosen: npt.NDArray[np.int64],
        bos_id: int,
    ) -> Batch:
        """The rows of some windows, and where their scored events stand."""
        offsets = events.event_offsets
        ids = np.zeros((len(windows), max(w.tokens for w in windows)), np.int64)
        place = np.full((len(windows), max(len(w.scored) for w in windows)), -1, np.int64)
        boundary = np.ones_like(place)
        targets = []
        for row, window in enumerate(windows):
            begin = int(offsets[window.event_start])
            ids[row, 0] = bos_id
            ids[row, 1 : window.tokens] = events.ids[begin : int(offsets[window.event_stop])]
            count = len(window.scored)
            place[row, :count] = np.searchsorted(chosen, window.scored)
            first = offsets[window.scored] - begin + BOS_TOKENS
            last = offsets[window.scored + 1] - begin + BOS_TOKENS
            boundary[row, :count] = first
            for event, start, stop in zip(place[row, :count], first, last, strict=True):
                positions = np.arange(start, stop)
                targets.append(
                    np.stack([np.full_like(positions, row), positions, positions * 0 + event])
                )
        flat = np.concatenate(targets, axis=1)
        return cls(torch.from_numpy(ids).to(model.device), flat, place, boundary)

    def slots_filled(self) -> npt.NDArray[np.int64]:
        """The place of every branch, 0 standing in where there is no event."""
        return np.maximum(self.place, 0).reshape(-1)


def _score_within(
    model: PreTrainedModel,
    grammar: SlotGrammar,
    batch: Batch,
    hidden: torch.Tensor,
    scores: EventScores,
) -> None:
    """Teacher-forced scores of all tokens of the scored events of a batch."""
    window = WindowLogits(model, batch.ids, hidden)
    slot_of_id = grammar.slot_of_id
    ids = batch.ids.cpu().numpy()
    # A BPE token belongs to the last head before it; heads come first in every event.
    rows, positions, places = batch.targets
    targets = ids[rows, positions]
    slots = slot_of_id[targets].astype(np.int64)
    owner = slots[np.maximum.accumulate(np.where(slots >= 0, np.arange(len(slots)), 0))]
    for start in range(0, len(targets), LOGIT_ROWS):
        part = slice(start, start + LOGIT_ROWS)
        logits = window.at(rows[part], positions[part] - 1)
        total = logits.logsumexp(dim=-1)
        wanted = torch.from_numpy(targets[part]).to(logits.device)
        log_p = (logits.gather(1, wanted[:, None])[:, 0] - total).cpu().double().numpy()
        if scores.event_log_p is not None:
            np.add.at(scores.event_log_p, places[part], log_p)
        for slot in np.unique(slots[part]):
            chosen = np.flatnonzero(slots[part] == slot)
            where = places[part][chosen]
            if slot >= 0:
                here = targets[part][chosen]
                _score_heads(grammar, slot, where, here, logits[chosen], scores)
                continue
            bpe = logits[chosen][:, grammar.text_index]
            places_B = torch.from_numpy(grammar.text_place_of_id[targets[part][chosen]])
            of_text = bpe.log_softmax(dim=-1).gather(1, places_B[:, None].to(bpe.device))
            cells = (where, owner[part][chosen])
            np.add.at(scores.text_log_p, cells, of_text[:, 0].cpu().double().numpy())
            np.add.at(scores.text_tokens, cells, 1)


def _score_heads(
    grammar: SlotGrammar,
    slot: int,
    where: npt.NDArray[np.int64],
    happened: npt.NDArray[np.int64],
    logits_NV: torch.Tensor,
    scores: EventScores,
) -> None:
    """Scores of one slot at some positions, within the slot's own ids."""
    inside = logits_NV[:, grammar.slots[slot].index]
    place_N = torch.from_numpy(grammar.place_of_id[happened].astype(np.int64)).to(inside.device)
    log_p = inside.log_softmax(dim=-1).gather(1, place_N[:, None])[:, 0]
    mass = (inside.logsumexp(dim=-1) - logits_NV.logsumexp(dim=-1)).exp()
    assert scores.within is not None
    scores.within.log_p[where, slot] = log_p.cpu().double().numpy()
    scores.within.correct[where, slot] = (inside.argmax(dim=-1) == place_N).cpu().numpy()
    scores.within.outside[where, slot] = 1.0 - mass.clamp(max=1.0).cpu().double().numpy()


def stratified_draws(
    events: npt.NDArray[np.int64], grammar: SlotGrammar, samples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Uniform numbers ``[events, steps, samples]``, one in each of ``samples`` strata per step.

    They depend on the seed and the event's number alone, never on the batch.
    """
    steps = grammar.longest_event
    draws = np.empty((len(events), steps, samples))
    strata = np.tile(np.arange(samples), (steps, 1))
    for row, event in enumerate(events):
        rng = np.random.default_rng([seed, int(event)])
        draws[row] = (rng.permuted(strata, axis=1) + rng.random((steps, samples))) / samples
    return draws


class Branches:
    """Completes every scored event of a batch S times, all branches in step.

    Args:
        model: The model.
        grammar: The slots.
        batch: Windows and boundaries.
        output: Hidden states and cache of the windows.
        samples: Branches per event, S.
        draws: Uniform numbers ``[rows × events, steps, S]``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        grammar: SlotGrammar,
        batch: Batch,
        output: Any,
        samples: int,
        draws: npt.NDArray[np.float64],
    ) -> None:
        self.model, self.grammar, self.batch, self.samples = model, grammar, batch, samples
        self.rows, self.per_row = batch.place.shape
        self.queries = self.per_row * samples
        self.draws = draws.transpose(0, 2, 1).reshape(self.rows * self.queries, -1)
        self.cache = output.past_key_values
        boundary = torch.from_numpy(batch.boundary).to(model.device)
        self.boundary = boundary.repeat_interleave(samples, dim=1)
        hidden = output.last_hidden_state
        self.logits = BranchLogits(model, batch.ids, hidden, self.boundary)
        self.dtype = hidden.dtype
        self.state: GrammarState | EventScript | MergedState = self._start()
        self.done = np.repeat(batch.place.reshape(-1) < 0, samples)
        self.sums = [
            np.zeros((self.rows * self.per_row, head.width), np.float64) for head in grammar.slots
        ]

    def _start(self) -> GrammarState | EventScript | MergedState:
        """All branches before their event."""
        grammar, batch = self.grammar, self.batch
        if grammar.forms is not None:
            rows, positions, owners = batch.targets
            ids = batch.ids.cpu().numpy()[rows, positions]
            return EventScript.of(grammar, ids, owners, batch.place.reshape(-1), self.samples)
        # The model's own distributions are scored, with whatever they give to semantic ids that
        # do not exist, so branches may go there, too.
        return GrammarState(replace(grammar, existing=None), self.rows * self.queries)

    def run(self, events: TokenizedEvents, scores: SlotScores) -> None:
        """Complete the events, then write the mean distributions' scores into ``scores``."""
        self.grow()
        self._score(events, scores)

    def grow(self) -> None:
        """Complete the events, and sum up the distributions that the branches met."""
        step = 0
        while not self.done.all():
            ids = self._choose(step)
            self.state.advance(ids, ~self.done)
            # The last head is all that is asked for: what follows it is another event, or text.
            self.done |= self.state.finished()
            if not self.done.all():
                self._feed(ids, step)
            step += 1

    def _choose(self, step: int) -> npt.NDArray[np.int64]:
        """Draw the next id of every branch, and note the distributions of the heads."""
        ids = np.zeros(self.rows * self.queries, np.int64)
        assert not isinstance(self.state, MergedState)
        slots, in_text = self.state.slot, self.state.text_left > 0
        for slot in np.unique(slots[~self.done]):
            head = self.grammar.slots[slot]
            here = np.flatnonzero((slots == slot) & ~self.done)
            inside = self.logits.inside(here, head.index)
            picked = head.ids[inverse_cdf(inside, self.draws[here, step])]
            open_text = in_text[here]
            if open_text.any():
                picked[open_text] = self._draw_with_text(here[open_text], slot, step)
            if slot == 0 and isinstance(self.state, EventScript):
                picked = self.state.happened[here]  # what follows is asked given the source
            leaves = self.grammar.slot_of_id[picked] == slot
            ids[here] = picked
            np.add.at(self.sums[slot], here[leaves] // self.samples, inside[leaves])
        return ids

    def _draw_with_text(
        self, here: npt.NDArray[np.int64], slot: int, step: int
    ) -> npt.NDArray[np.int64]:
        """Inside a text: a BPE token, or the head of the next slot, which ends the text."""
        head, grammar = self.grammar.slots[slot], self.grammar
        logits = self.logits.of(here)
        ids = np.concatenate([head.ids, grammar.text_ids])
        allowed = logits[:, ids].softmax(dim=-1).cpu().double().numpy()
        return ids[inverse_cdf(allowed, self.draws[here, step])]

    def _feed(self, ids: npt.NDArray[np.int64], step: int) -> None:
        """Append one token to every branch; each sees its window's past and its own tokens."""
        device, dtype = self.boundary.device, self.dtype
        width = self.batch.ids.shape[1]
        seen = torch.arange(width, device=device) < self.boundary[:, :, None]
        own = torch.eye(self.queries, dtype=torch.bool, device=device).repeat(1, step + 1)
        visible = torch.cat([seen, own.expand(self.rows, -1, -1)], dim=-1)
        mask = torch.zeros(visible.shape, dtype=dtype, device=device)
        mask.masked_fill_(~visible, torch.finfo(dtype).min)
        tokens = torch.from_numpy(ids).to(device).view(self.rows, self.queries)
        output = self.model.base_model(
            input_ids=tokens,
            attention_mask=mask[:, None],
            position_ids=self.boundary + step,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = output.past_key_values
        self.logits.grow(tokens, output.last_hidden_state)

    def _score(self, events: TokenizedEvents, scores: SlotScores) -> None:
        places = self.batch.place.reshape(-1)
        real = places >= 0
        ids = self.batch.ids.cpu().numpy()
        slot_of_id = self.grammar.slot_of_id
        rows, positions, owners = self.batch.targets
        targets = ids[rows, positions]
        happened = np.full((len(scores.log_p), len(self.grammar.slots)), -1, np.int64)
        slots = slot_of_id[targets]
        happened[owners[slots >= 0], slots[slots >= 0]] = targets[slots >= 0]
        for slot in range(len(self.grammar.slots)):
            has = real & (happened[places, slot] >= 0)  # others do not have this slot
            mean = self.sums[slot][has] / self.samples
            target = self.grammar.place_of_id[happened[places[has], slot]]
            p = mean[np.arange(len(target)), target]
            scores.log_p[places[has], slot] = np.log(np.maximum(p, np.finfo(np.float64).tiny))
            scores.correct[places[has], slot] = mean.argmax(axis=1) == target
