"""Learning merges: which events, in which units, and how to watch and stop the loop."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from domainformer.data.tokens import Ints, TokenizedEvents
from domainformer.errors import DataError, TokenizerError
from domainformer.tokenizers.kernels import numba_available
from domainformer.tokenizers.merges.chain import MOST_TOKENS
from domainformer.tokenizers.merges.compiled import Machine, machine
from domainformer.tokenizers.merges.histories import (
    Stretches,
    chain_of,
    on_machine,
)

_LARGEST_SUM = 1 << 61
_LARGEST_UNIT = 1 << 50
_TICK_S = 0.2


@dataclass(frozen=True)
class Learned:
    """What learning gave.

    Args:
        rules: (left, right, distance) of each merge, [n_merges, 3].
        weights: What each pair weighed when it was merged.
        note: How learning ended.
    """

    rules: Ints
    weights: tuple[float, ...]
    note: str


def learn_rules(
    events: TokenizedEvents,
    vocab_size: int,
    *,
    train_roles: Iterable[int] | None,
    progress: Callable[[int, int], None] | None,
    compiled: bool | None,
    across_events: bool = True,
) -> Learned:
    """Learn merges (see `ActionPieceMerges.fit`).

    Raises:
        TokenizerError: The vocabulary wanted is smaller than the base vocabulary, or too large.
        DataError: There are no training events.
    """
    base = events.vocab_size
    if not base <= vocab_size <= MOST_TOKENS:
        raise TokenizerError(
            f"merges cannot make a vocabulary of {vocab_size:,}",
            where="vocab_size",
            why=f"the base vocabulary has {base:,} tokens, and at most {MOST_TOKENS:,} can be",
            next_step=f"choose a size between {base:,} and {MOST_TOKENS:,}; 40,000 is usual",
        )
    roles = None if train_roles is None else frozenset(train_roles)
    stretches = Stretches.of(events, roles)
    if not across_events:
        stretches = stretches.alone()
    if not len(stretches.starts):
        raise DataError(
            "there are no training events to learn merges from",
            next_step="check the split, or pass train_roles=None to use all events",
        )
    compiled = numba_available() if compiled is None else compiled
    unit = weight_unit(events)
    keys, weights = _watched(events, stretches, unit, vocab_size - base, progress, compiled)
    note = f"{len(keys):,} merges learned: the vocabulary has the {vocab_size:,} tokens asked for"
    if len(keys) < vocab_size - base:
        note = (
            f"no pair is left to merge after {len(keys):,} merges: the vocabulary ends at "
            f"{base + len(keys):,} tokens instead of {vocab_size:,}"
        )
    array = np.asarray(keys, dtype=np.int64)
    parts = (array >> 40, (array >> 16) & 0xFFFFFF, (array & 0xFFFF) - 0x8000)
    return Learned(np.stack(parts, axis=1), tuple(weight / unit for weight in weights), note)


def weight_unit(events: TokenizedEvents) -> int:
    """What a weight of 1 is, so that weights are integers.

    The weights 2/M and 1/(M₁M₂) are whole multiples of 1/lcm(1 … largest M)², and their sums are
    exact. Where that number is too large for 64 bits (from about 18 tokens per event), a power of
    two takes its place: each weight is rounded once, to a relative 2⁻³⁰ or better, and sums
    remain independent of their order.

    Example:
        >>> import polars as pl
        >>> events = TokenizedEvents(
        ...     ids=np.array([1, 2, 3, 1], np.uint8), event_offsets=np.array([0, 3, 4]),
        ...     entity_offsets=np.array([0, 2]), entity_ids=pl.Series([7]), times=np.array([1, 2]),
        ...     roles=None, tokenizer_fingerprint="f00d", vocab_size=4)
        >>> weight_unit(events)
        36
    """
    largest = int(np.diff(events.event_offsets).max(initial=1))
    # All pairs of one set weigh less than its tokens, all pairs across two sets weigh 1 or 2.
    total = max(1, events.n_tokens + 2 * events.n_events)
    room = min(_LARGEST_UNIT, _LARGEST_SUM // total)
    exact = math.lcm(*range(1, min(largest, 40) + 1)) ** 2
    if largest <= 40 and exact <= room:
        return exact
    return int(1 << (room.bit_length() - 1))


def _watched(
    events: TokenizedEvents,
    stretches: Stretches,
    unit: int,
    most: int,
    progress: Callable[[int, int], None] | None,
    compiled: bool,
) -> tuple[list[int], list[int]]:
    """Run the loop in a thread, so that progress can be shown and Ctrl-C stops it.

    The compiled loop holds no lock of the interpreter and cannot be interrupted; it looks at a
    clock that both sides see.
    """
    loops = machine(compiled=compiled)
    clock: Any = np.zeros(2, dtype=np.int64) if compiled else [0, 0]
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(_run(loops, events, stretches, unit, most, clock))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            outcome.append(error)

    thread = threading.Thread(target=work, name="merges", daemon=True)
    thread.start()
    try:
        running = True
        while running:
            thread.join(_TICK_S)
            running = thread.is_alive()
            if progress is not None:
                progress(int(clock[0]), most)
    except BaseException:
        clock[1] = 1
        thread.join()
        raise
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _run(
    loops: Machine, events: TokenizedEvents, stretches: Stretches, unit: int, most: int, clock: Any
) -> tuple[list[int], list[int]]:
    chain = chain_of(events.ids, events.event_offsets, compiled=loops.compiled)
    starts = on_machine(stretches.starts, compiled=loops.compiled)
    stops = on_machine(stretches.stops, compiled=loops.compiled)
    keys, weights = loops.learn(chain, starts, stops, unit, events.vocab_size, most, clock)
    return [int(key) for key in keys], [int(weight) for weight in weights]
