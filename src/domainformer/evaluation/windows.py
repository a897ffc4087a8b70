"""Which tokens the model sees when an event is scored, and in which batches.

Every scored event gets as much of its past as fits, and at least half a context of it where there
is so much (:func:`domainformer.data.packing.plan_scoring_windows`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.data.packing import plan_scoring_windows
from domainformer.data.tokens import TokenizedEvents

Ints = npt.NDArray[np.int64]
BOS_TOKENS = 1


@dataclass(frozen=True)
class ScoringWindow:
    """Consecutive events of one entity, some of which are scored.

    Args:
        event_start: First event (counted over all entities).
        scored: The events to score, ascending; the last one ends the window.
        tokens: Its length with the BOS token.
    """

    event_start: int
    scored: Ints
    tokens: int

    @property
    def event_stop(self) -> int:
        """One past the last event."""
        return int(self.scored[-1]) + 1


def plan_scoring(
    events: TokenizedEvents, chosen: npt.NDArray[Any], context: int, *, most: int | None = None
) -> list[ScoringWindow]:
    """Cover some events by windows of at most ``context`` tokens.

    Args:
        events: All histories.
        chosen: The events to score, ascending.
        context: Longest window in tokens, BOS included.
        most: At most so many scored events per window; further ones get a window of their own.

    Raises:
        DataError: A scored event alone is longer than the context.
    """
    offsets = np.asarray(events.event_offsets)
    score = np.zeros(events.n_events, np.bool_)
    score[chosen] = True
    plan = plan_scoring_windows(
        offsets, events.entity_offsets, context, score=score, prefix=BOS_TOKENS
    )
    windows = []
    for start, first, stop in zip(
        plan.event_start.tolist(), plan.score_start.tolist(), plan.event_stop.tolist(), strict=True
    ):
        scored = np.flatnonzero(score[first:stop]) + first
        for begin in range(0, len(scored), most or len(scored)):
            part = scored[begin : begin + (most or len(scored))]
            tokens = int(offsets[part[-1] + 1] - offsets[start]) + BOS_TOKENS
            windows.append(ScoringWindow(start, part, tokens))
    return windows


def batch_windows(windows: list[ScoringWindow], batch_tokens: int) -> list[list[int]]:
    """Indices of windows in batches of similar shape, each padded to at most ``batch_tokens``.

    Windows are ordered by the number of scored events (in powers of two) and by length, so that
    a rectangle of rows × tokens, and of rows × scored events, holds little padding.
    """
    shape = [(int(np.log2(len(window.scored))), window.tokens) for window in windows]
    order = sorted(range(len(windows)), key=shape.__getitem__, reverse=True)
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        grown = max(longest, windows[index].tokens)
        if batches and grown * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
            longest = grown
        else:
            batches.append([index])
            longest = windows[index].tokens
    return batches
