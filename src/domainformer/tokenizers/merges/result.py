"""`learn_merges`: learn from a store, say what was gained; one call for the command line."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from domainformer.data.splits import ROLE_NAMES
from domainformer.data.store import TokenStore
from domainformer.data.tokens import TokenizedEvents
from domainformer.tokenizers.merges.actionpiece import ActionPieceMerges, Progress

_SHOWN = 10


@dataclass(frozen=True)
class Shortening:
    """How many tokens one part of the events takes.

    Args:
        part: Name of the split role, or ``"all"``.
        events: Number of events.
        before: Tokens before merging.
        after: Tokens after.
    """

    part: str
    events: int
    before: int
    after: int

    @property
    def share(self) -> float:
        """Share of tokens that merging saved, in [0, 1]."""
        return 1 - self.after / self.before if self.before else 0.0


@dataclass(frozen=True)
class MergesResult:
    """What `learn_merges` learned.

    Args:
        merges: The merges.
        seconds: Time that learning took.
        shortening: Tokens before and after, per split role where the events have roles.
        examples: The first merges, as `ActionPieceMerges.describe` has them.
    """

    merges: ActionPieceMerges
    seconds: float
    shortening: tuple[Shortening, ...]
    examples: list[dict[str, Any]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "base_vocab_size": self.merges.base_vocab_size,
            "vocab_size": self.merges.vocab_size,
            "merges": self.merges.n_merges,
            "note": self.merges.note,
            "fingerprint": self.merges.fingerprint,
            "seconds": self.seconds,
            "shortening": [{**asdict(part), "share": part.share} for part in self.shortening],
            "examples": self.examples,
        }

    def render(self) -> Table:
        """The result as a table to print."""
        table = Table(title=self.merges.note, title_justify="left")
        for name in ("part", "events", "tokens before", "after", "saved"):
            table.add_column(name, justify="left" if name == "part" else "right")
        for part in self.shortening:
            numbers = (f"{part.events:,}", f"{part.before:,}", f"{part.after:,}")
            table.add_row(part.part, *numbers, f"{part.share:.1%}")
        return table


def learn_merges(
    source: TokenizedEvents | TokenStore,
    vocab_size: int,
    progress: Progress | None = None,
    *,
    slot_of_id: npt.ArrayLike | None = None,
    vocab: list[str] | None = None,
    compiled: bool | None = None,
    across_events: bool = True,
) -> MergesResult:
    """Learn merges from the training events of a store, and count what they save.

    Args:
        source: Ids of a fitted tokenizer; only events with the role of training are learned from,
            or all where there are no roles.
        vocab_size: Size to reach, base vocabulary included.
        progress: Called with (merges so far, merges wanted).
        slot_of_id: `Layout.slot_of_id` of the tokenizer.
        vocab: Its tokens, for the examples.
        compiled: Use numba (extra ``fast``); None where it is installed.
        across_events: Also merge parts of adjacent events.

    Raises:
        TokenizerError: As `ActionPieceMerges.fit`.
        DataError: As `ActionPieceMerges.fit`.
    """
    events = source.events() if isinstance(source, TokenStore) else source
    begin = time.perf_counter()
    merges = ActionPieceMerges.fit(
        events,
        vocab_size=vocab_size,
        slot_of_id=slot_of_id,
        progress=progress,
        compiled=compiled,
        across_events=across_events,
    )
    seconds = time.perf_counter() - begin
    first = range(merges.base_vocab_size, min(merges.vocab_size, merges.base_vocab_size + _SHOWN))
    return MergesResult(
        merges=merges,
        seconds=seconds,
        shortening=measure(events, merges.encode(events, compiled=compiled)),
        examples=[merges.describe(token, vocab) for token in first],
    )


def measure(before: TokenizedEvents, after: TokenizedEvents) -> tuple[Shortening, ...]:
    """Tokens of the same events before and after merging, per split role."""
    lengths = [np.diff(events.event_offsets) for events in (before, after)]
    if before.roles is None:
        return (Shortening("all", before.n_events, *(int(part.sum()) for part in lengths)),)
    found = []
    for role in np.unique(before.roles).tolist():
        chosen = before.roles == role
        name = ROLE_NAMES[role] if role < len(ROLE_NAMES) else str(role)
        sums = (int(part[chosen].sum()) for part in lengths)
        found.append(Shortening(name, int(chosen.sum()), *sums))
    return tuple(found)
