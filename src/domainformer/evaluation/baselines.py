"""What one can predict about the next event without any model: the honest opponents.

Each gives, for every slot, a distribution over the slot's own ids and a best guess:

- *most popular*: ``u(x)``, the frequency in the training events, one added to every count.
- *repeat last*: ``λ · 1[x = last] + (1 − λ) · u(x)``, the entity's previous event repeated, with λ
  the maximum-likelihood estimate on the training events; its guess is the last value itself, and
  where there is none it is *most popular*.
- *entity frequency*: ``(n(x) + α · u(x)) / (n + α)`` over all of the entity's earlier events, α by
  maximum likelihood on training events. Not asked for by anyone, and often the strongest.

They are fitted on training events, and see the same histories as the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError
from domainformer.inference.grammar import SlotGrammar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

POPULAR, REPEAT, FREQUENCY = "most_popular", "repeat_last", "entity_frequency"
BASELINES = (POPULAR, REPEAT, FREQUENCY)
_CHUNK_TOKENS = 1 << 24
_ALPHAS = 2.0 ** np.arange(-4, 13)
_ALPHA_EVENTS = 3000


@dataclass(frozen=True)
class Prediction:
    """One baseline on some events, for one slot.

    Args:
        log_p: Log-probability (nats) of what happened ``[events]``.
        correct: Whether the guess was right ``[events]``.
    """

    log_p: Floats
    correct: npt.NDArray[np.bool_]


def slot_values(events: TokenizedEvents, grammar: SlotGrammar) -> npt.NDArray[np.int32]:
    """What stands at each slot of each event, as ids within the slot; −1 where nothing does.

    The head of a slot is found by its id, since the text before it makes its position
    differ from event to event.

    Args:
        events: All histories.
        grammar: The slots.

    Returns:
        int32 ``[events, slots]``.
    """
    offsets = np.asarray(events.event_offsets)
    values = np.full((events.n_events, len(grammar.slots)), -1, np.int32)
    slot_of_id = grammar.slot_of_id
    place_of_id = grammar.place_of_id
    for first, last in _chunks(offsets):
        ids = np.asarray(events.ids[offsets[first] : offsets[last]])
        owner = np.repeat(np.arange(first, last), np.diff(offsets[first : last + 1]))
        slots = slot_of_id[ids]
        heads = slots >= 0
        values[owner[heads], slots[heads]] = place_of_id[ids[heads]]
    return values


def _chunks(offsets: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of events of bounded size in tokens, so that temporaries stay small."""
    first, count = 0, len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + _CHUNK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def first_events(events: TokenizedEvents) -> npt.NDArray[np.bool_]:
    """Events before which the entity has none, ``[events]``."""
    first = np.zeros(events.n_events, np.bool_)
    offsets = np.asarray(events.entity_offsets)
    first[offsets[:-1][np.diff(offsets) > 0]] = True
    return first


class SlotBaselines:
    """The three baselines of one slot.

    Args:
        values: Ids within the slot of all events in order, −1 where absent ``[events]``.
        width: Number of ids of the slot.
        first: Events without a past ``[events]``.
        train: Events to fit on ``[events]``.
        never_last: Ids within the slot that cannot be repeated (``ELAPSED=FIRST``).

    Attributes:
        popularity: ``u``, ``[width]``.
        weight: λ of *repeat last*.
        prior: α of *entity frequency*.

    Raises:
        DataError: There is no training event.
    """

    def __init__(
        self,
        values: npt.NDArray[np.int32],
        width: int,
        first: npt.NDArray[np.bool_],
        train: npt.NDArray[np.bool_],
        never_last: Ints,
    ) -> None:
        self.values, self.width = values, width
        self.last = np.full(len(values), -1, np.int32)
        self.last[1:] = values[:-1]
        self.last[first] = -1
        self.last[np.isin(self.last, never_last)] = -1
        self._hidden = np.isin(values, never_last)
        begins = np.flatnonzero(first)
        self._start = begins[np.searchsorted(begins, np.arange(len(values)), side="right") - 1]
        fitted = np.flatnonzero(train & (values >= 0))
        if not len(fitted):
            raise DataError(
                "the baselines have no training events",
                why="no event has the role TRAIN",
                next_step="evaluate on a table that holds the training events too, with its split",
            )
        counts = np.bincount(values[fitted], minlength=width)
        self.popularity: Floats = (counts + 1.0) / (counts.sum() + width)
        self.prior = 1.0
        self.weight = self._fit_weight(fitted)
        self.prior = self._fit_prior(fitted)

    def predict(self, events: Ints) -> dict[str, Prediction]:
        """All baselines on some events in which the slot is present."""
        targets = self.values[events]
        popular = self.popularity[targets]
        guess = int(self.popularity.argmax())
        last = self.last[events]
        repeated = self._mixed(popular, last == targets, last >= 0, self.weight)
        counts, totals, best = self._frequencies(events)
        frequent = (counts + self.prior * popular) / (totals + self.prior)
        return {
            POPULAR: Prediction(np.log(popular), targets == guess),
            REPEAT: Prediction(np.log(repeated), targets == np.where(last >= 0, last, guess)),
            FREQUENCY: Prediction(np.log(frequent), targets == best),
        }

    @staticmethod
    def _mixed(
        popular: Floats,
        same: npt.NDArray[np.bool_],
        known: npt.NDArray[np.bool_],
        weight: float,
    ) -> Floats:
        return np.where(known, weight * same + (1.0 - weight) * popular, popular)

    def _fit_weight(self, fitted: Ints) -> float:
        """λ maximises Σ log(λ·m + (1−λ)·u), which is concave: bisect its derivative."""
        known = fitted[self.last[fitted] >= 0]
        if not len(known):
            return 0.0
        popular = self.popularity[self.values[known]]
        same = (self.last[known] == self.values[known]).astype(np.float64)
        low, high = 0.0, 1.0 - 1e-6
        for _ in range(40):
            middle = (low + high) / 2
            slope = np.sum((same - popular) / (middle * same + (1.0 - middle) * popular))
            low, high = (middle, high) if slope > 0 else (low, middle)
        return (low + high) / 2

    def _fit_prior(self, fitted: Ints) -> float:
        """α with the highest likelihood on a sample of training events, over powers of two."""
        some = np.sort(np.random.default_rng(0).permutation(fitted)[:_ALPHA_EVENTS])
        popular = self.popularity[self.values[some]]
        counts, totals, _ = self._frequencies(some, guess=False)
        log_p = [
            np.mean(np.log((counts + alpha * popular) / (totals + alpha))) for alpha in _ALPHAS
        ]
        return float(_ALPHAS[int(np.argmax(log_p))])

    def _frequencies(self, events: Ints, *, guess: bool = True) -> tuple[Floats, Floats, Ints]:
        """Earlier occurrences of what happened, earlier events, and the best guess."""
        counts, totals = np.zeros(len(events)), np.zeros(len(events))
        best = np.zeros(len(events), np.int64)
        prior = self.prior * self.popularity
        for row, event in enumerate(events):
            start = int(self._start[event])
            past = self.values[start:event][~self._hidden[start:event]]
            past = past[past >= 0]
            counts[row] = np.count_nonzero(past == self.values[event])
            totals[row] = len(past)
            if guess:
                best[row] = (np.bincount(past, minlength=self.width) + prior).argmax()
        return counts, totals, best
