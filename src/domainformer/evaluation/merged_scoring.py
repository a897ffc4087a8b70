"""What a model of merged tokens predicted for each field of some events.

``history_only`` is what it is for single fields (see `scoring`): P(x_k | h), with all else of the
event averaged out. A merged token fills several slots at once. With T_j the j-th token of an event
and F(k, v) the ids that put v at slot k,

    P(x_k = v | h) = Σ_j E [k is open after T_1 … T_{j−1}] · P(F(k, v) | T_1 … T_{j−1})

which is estimated by completing the event S times. Were all completions drawn from the model, a
value that no merged token holds would often get nothing, since merged tokens close its slot first,
and a probability of 0 has no logarithm. So half of the completions take tokens of single fields
alone, and reach every slot while it is open. Prefixes count by what the model gives them against
what the mixture of both halves does (the balance heuristic of multiple importance sampling; Veach
and Guibas 1995):

    w = P / (½ P + ½ P_single) = 2 / (1 + [all single] / Π_i P_i(ids of one field)) ≤ 2

Sums over j and completions are unbiased; they are divided by their sum over v. The first field of
greedy encodings needs no completion and is exact.

``within_event`` has no meaning here: a token that fills three slots predicts them at once, and
which fields came before depends on what happened.

The whole event's log-likelihood is that of its greedy encoding. Other encodings of the same event
have some probability, too, so the event's own is at least that. After training on permuted
encodings the greedy one is one of very many, and tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import InputError
from domainformer.evaluation.next_token import WindowLogits, inverse_cdf
from domainformer.evaluation.scores import EventScores, SlotScores
from domainformer.evaluation.scoring import (
    LOGIT_ROWS,
    MOST_BRANCHES,
    Batch,
    Branches,
    score_events,
    stratified_draws,
)
from domainformer.evaluation.windows import batch_windows, plan_scoring
from domainformer.inference import Bundle
from domainformer.inference.grammar import SlotGrammar
from domainformer.inference.merged_grammar import MergedGrammar, MergedState, merged_grammar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def score_bundle(
    bundle: Bundle,
    events: TokenizedEvents,
    values: npt.NDArray[np.int32],
    chosen: npt.NDArray[Any],
    *,
    context: int | None = None,
    samples: int = 8,
    seed: int = 0,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> EventScores:
    """Score some events by a bundle, whether its model reads single fields or merged ones.

    Args:
        bundle: A causal language model.
        events: All histories, as the ids of single fields (of the bundle's tokenizer).
        values: What stands at each slot of each event (`baselines.slot_values`).
        chosen: The events to score.
        context: Longest window in tokens; the bundle's own by default.
        samples: Completions per event; 0 leaves the history-only view out.
        seed: Of the draws.
        batch_tokens: Tokens per forward pass.
        progress: Called with (events done, events in all).

    Raises:
        ArtifactError: The model is a classifier, or its merged tokens hold parts of several events.
        DataError: An event is longer than the context.
    """
    settings: dict[str, Any] = {
        "context": context or bundle.context,
        "samples": samples,
        "seed": seed,
        "batch_tokens": batch_tokens,
        "bos_id": bundle.tokenizer.bos_id,
        "progress": progress,
    }
    model = bundle.language_model
    if bundle.merges is None:
        return score_events(model, events, SlotGrammar.of(bundle.tokenizer), chosen, **settings)
    grammar, merged = merged_grammar(bundle), bundle.encode(events)
    return score_merged_events(model, merged, values, grammar, chosen, **settings)


@torch.inference_mode()
def score_merged_events(
    model: PreTrainedModel,
    events: TokenizedEvents,
    values: npt.NDArray[np.int32],
    grammar: MergedGrammar,
    chosen: npt.NDArray[Any],
    *,
    context: int,
    samples: int = 8,
    seed: int = 0,
    batch_tokens: int = 8192,
    bos_id: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> EventScores:
    """Score some events given their histories alone.

    Args:
        model: A causal language model in evaluation mode.
        events: All histories, as merged ids.
        values: What stands at each slot of each event (`baselines.slot_values`).
        grammar: Which merged ids may follow.
        chosen: The events to score.
        context: Longest window that the model may see, BOS included.
        samples: Completions per event, 2 or more; 0: the whole event alone is scored.
        seed: The draws of an event depend on it and on the event's number alone.
        batch_tokens: Tokens per forward pass, padding included.
        bos_id: The id that opens every window.
        progress: Called with (events done, events in all).

    Raises:
        DataError: An event is longer than the context.
        InputError: One completion was asked for.
    """
    if samples == 1:
        raise InputError(
            "one completion per event is too few for merged tokens",
            why="half of them take single fields alone, half any tokens",
            next_step="ask for 2 or more samples (8 is usual)",
        )
    chosen = np.unique(np.asarray(chosen, dtype=np.int64))
    most = max(1, MOST_BRANCHES // samples) if samples else None
    windows = plan_scoring(events, chosen, context, most=most)
    shape = (len(chosen), len(grammar.slots))
    scores = EventScores(
        events=chosen,
        within=None,
        history=SlotScores.empty(*shape) if samples else None,
        event_log_p=np.zeros(len(chosen)) if grammar.ordered else None,
        text_log_p=np.zeros(shape),
        text_tokens=np.zeros(shape, np.int64),
    )
    done = 0
    for indices in batch_windows(windows, batch_tokens):
        batch = Batch.of(model, events, [windows[i] for i in indices], chosen, bos_id)
        output = model.base_model(input_ids=batch.ids, use_cache=samples > 0)
        if scores.event_log_p is not None:
            _score_whole(model, batch, output.last_hidden_state, scores.event_log_p)
        if scores.history is not None:
            own = chosen[batch.slots_filled()]
            draws = stratified_draws(own, grammar.fields, samples, seed)
            branches = MergedBranches(model, grammar, batch, output, samples, draws)
            branches.complete(values[chosen], scores.history)
        done += sum(len(windows[i].scored) for i in indices)
        if progress is not None:
            progress(done, len(chosen))
    return scores


def _score_whole(
    model: PreTrainedModel, batch: Batch, hidden: torch.Tensor, event_log_p: Floats
) -> None:
    """Teacher-forced log-likelihood of the tokens of the scored events of a batch."""
    window = WindowLogits(model, batch.ids, hidden)
    rows, positions, places = batch.targets
    targets = batch.ids.cpu().numpy()[rows, positions]
    for start in range(0, len(targets), LOGIT_ROWS):
        part = slice(start, start + LOGIT_ROWS)
        log_p_NV = window.at(rows[part], positions[part] - 1).log_softmax(dim=-1)
        wanted = torch.from_numpy(targets[part]).to(log_p_NV.device)
        log_p = log_p_NV.gather(1, wanted[:, None])[:, 0].cpu().double().numpy()
        np.add.at(event_log_p, places[part], log_p)


class MergedBranches(Branches):
    """Completions whose tokens may fill several slots at once.

    Args:
        model: The model.
        grammar: Which merged ids may follow.
        batch: Windows and boundaries.
        output: Hidden states and cache of the windows.
        samples: Branches per event, S.
        draws: Uniform numbers ``[rows × events, steps, S]``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        grammar: MergedGrammar,
        batch: Batch,
        output: Any,
        samples: int,
        draws: Floats,
    ) -> None:
        self.merged = grammar
        self.is_single = grammar.fills.sum(axis=1) == 1
        branches = batch.place.size * samples
        # Whether a branch takes single fields alone; and of each prefix whether all its ids are of
        # single fields, and what the model gave to such ids along it.
        self.takes_single = np.tile(np.arange(samples) < samples // 2, batch.place.size)
        self.share_single = samples // 2 / samples
        self.all_single = np.ones(branches, np.bool_)
        self.mass = np.ones(branches)
        super().__init__(model, grammar.fields, batch, output, samples, draws)

    def _start(self) -> MergedState:
        return self.merged.start(self.rows * self.queries)

    def complete(self, happened: npt.NDArray[np.int32], scores: SlotScores) -> None:
        """Complete the events, then write the mean distributions' scores into ``scores``.

        Args:
            happened: Place of what happened at each slot ``[events, slots]``.
            scores: Of the same events.
        """
        self.grow()
        places = self.batch.place.reshape(-1)
        real = np.flatnonzero(places >= 0)
        for slot, sums in enumerate(self.sums):
            mean, own = sums[real] / sums[real].sum(axis=1, keepdims=True), places[real]
            target = happened[own, slot]
            p = mean[np.arange(len(target)), target]
            scores.log_p[own, slot] = np.log(np.maximum(p, np.finfo(np.float64).tiny))
            scores.correct[own, slot] = mean.argmax(axis=1) == target

    def _choose(self, step: int) -> Ints:
        """Draw the next id of every branch, and note the distributions of all open slots."""
        assert isinstance(self.state, MergedState)
        ids = np.zeros(self.rows * self.queries, np.int64)
        patterns, which = np.unique(self.state.filled, axis=0, return_inverse=True)
        which = which.reshape(-1)
        for number, fits in enumerate(self.merged.fitting(patterns)):
            here = np.flatnonzero((which == number) & ~self.done)
            if not len(here):
                continue
            able = np.flatnonzero(fits)
            inside = self.logits.inside(here, able)
            for slot in np.flatnonzero(~patterns[number]).tolist():
                self._note(slot, here, able, inside)
            ids[here] = self._draw(here, able, inside, step)
        return ids

    def _draw(self, here: Ints, able: Ints, inside: Floats, step: int) -> Ints:
        """The next ids of some branches, and what their prefixes are then."""
        single = np.flatnonzero(self.is_single[able])
        draws = self.draws[here, step]
        picked = able[inverse_cdf(inside, draws)]
        alone = self.takes_single[here]
        picked[alone] = able[single][inverse_cdf(inside[np.ix_(alone, single)], draws[alone])]
        self.mass[here] *= inside[:, single].sum(axis=1)
        self.all_single[here] &= self.is_single[picked]
        return picked

    def _note(self, slot: int, here: Ints, able: Ints, inside: Floats) -> None:
        """Add what the ids that could fill a slot now would put there, by the prefixes' weights."""
        filling = np.flatnonzero(self.merged.fills[able, slot])
        if not len(filling):
            return
        places = self.merged.place[able[filling], slot]
        order = np.argsort(places, kind="stable")
        values, starts = np.unique(places[order], return_index=True)
        masses = np.zeros((len(here), self.sums[slot].shape[1]))
        masses[:, values] = np.add.reduceat(inside[:, filling[order]], starts, axis=1)
        # P_single / P of the prefix: 1 / mass where all its ids are of single fields, else 0.
        mass = np.maximum(self.mass[here], np.finfo(np.float64).tiny)
        ratio = np.where(self.all_single[here], 1 / mass, 0.0)
        weights = 1 / (1 - self.share_single + self.share_single * ratio)
        np.add.at(self.sums[slot], here // self.samples, masses * weights[:, None])
