"""What a model said about some events: an array per measure, a column per slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SlotScores:
    """Predictions of the heads of some events, each array ``[events, slots]``.

    Args:
        log_p: Log-probability (nats) of what happened, within the slot's own ids; NaN where the
            event does not have the slot.
        correct: Whether the most probable id of the slot is what happened.
        outside: Probability that the model gave to ids outside of the slot.
    """

    log_p: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    outside: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, events: int, slots: int) -> SlotScores:
        """Arrays to be filled in."""
        shape = (events, slots)
        return cls(np.full(shape, np.nan), np.zeros(shape, np.bool_), np.full(shape, np.nan))

    def take(self, rows: npt.NDArray[np.int64]) -> SlotScores:
        """The scores of some of the events."""
        return SlotScores(self.log_p[rows], self.correct[rows], self.outside[rows])


@dataclass(frozen=True)
class EventScores:
    """Everything that the model said about some events.

    Args:
        events: The scored events, ascending (counted over all entities).
        within: Each slot given history and earlier fields; None where tokens hold several fields.
        history: Each slot given the history alone; None where no samples were asked for.
        event_log_p: Log-likelihood of the whole event over the full vocabulary ``[events]``; None
            where its tokens stand in random order.
        text_log_p: Sum over BPE tokens of their log-probability within BPE ``[events, slots]``.
        text_tokens: Number of BPE tokens after each slot's head ``[events, slots]``.
    """

    events: npt.NDArray[np.int64]
    within: SlotScores | None
    history: SlotScores | None
    event_log_p: npt.NDArray[np.float64] | None
    text_log_p: npt.NDArray[np.float64]
    text_tokens: npt.NDArray[np.int64]
