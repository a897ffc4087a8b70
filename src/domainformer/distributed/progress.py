"""How far a long job has come, told to whoever asked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from domainformer.errors import DataError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)
SMALLEST_MEMORY = 32 << 20


@dataclass(frozen=True)
class Progress:
    """One report of a stage.

    Args:
        stage: ``"group"``, ``"fit"``, ``"recount"``, ``"encode"`` or ``"assemble"``.
        done: Units of work that are finished, those of an earlier attempt included.
        total: Units in all.
        events: Events of the finished units.
        seconds: Time since this attempt began the stage.
        seconds_left: What is left at the pace so far; None before the first unit.

    Example:
        >>> print(Progress("encode", 3, 12, 3_000_000, 6.0, 18.0))
        encode 3/12 (3,000,000 events), 18 s left
    """

    stage: str
    done: int
    total: int
    events: int
    seconds: float
    seconds_left: float | None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        return f"{self.stage} {self.done}/{self.total} ({self.events:,} events){left}"


ProgressCallback = Callable[[Progress], None]


class Meter:
    """Counts the units of one stage and reports each.

    Args:
        stage: Its name.
        total: Units in all.
        finished: Units that an earlier attempt has finished.
        callback: Who wants to know; None: nobody.
    """

    def __init__(
        self, stage: str, total: int, finished: int, callback: ProgressCallback | None
    ) -> None:
        self._stage, self._total, self._callback = stage, total, callback
        self._before = self._done = finished
        self._events = 0
        self._start = time.monotonic()
        self._report()

    def add(self, events: int, *, units: int = 1) -> None:
        """Count finished units."""
        self._done += units
        self._events += events
        self._report()

    def count_events(self, events: int) -> None:
        """Count events of an earlier attempt, whose units are counted already."""
        self._events += events

    def _report(self) -> None:
        if self._callback is None:
            return
        seconds = time.monotonic() - self._start
        new = self._done - self._before
        left = seconds / new * (self._total - self._done) if new else None
        self._callback(Progress(self._stage, self._done, self._total, self._events, seconds, left))


def memory_bytes(memory: int | str) -> int:
    """A memory budget in bytes.

    Args:
        memory: Bytes, or text such as ``"512MB"`` or ``"2 GiB"`` (units of 1,024).

    Raises:
        DataError: It cannot be read, or is below 32 MiB, which holds no buffers.

    Example:
        >>> memory_bytes("512MB")
        536870912
    """
    size = 0
    if isinstance(memory, str) and (match := _SIZE.fullmatch(memory)):
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    elif isinstance(memory, int) and not isinstance(memory, bool):
        size = memory
    if size < SMALLEST_MEMORY:
        raise DataError(
            f"{memory!r} is no usable memory budget",
            why="the smallest is 32 MB",
            next_step="write it as '512MB', '2GB', or in bytes",
        )
    return size
