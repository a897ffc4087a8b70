"""What a training borrows from its process, and gives back: generators, threads, signals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from domainformer.training.checkpoints import rng_state, set_rng_state


@contextlib.contextmanager
def reproducible(seed: int, *, threads: int | None = None) -> Iterator[None]:
    """Seed every global generator and set the threads, for the duration of a block.

    Args:
        seed: For Python, numpy and torch.
        threads: Processor threads of torch; None leaves them.

    Example:
        >>> before = torch.get_rng_state()
        >>> with reproducible(3):
        ...     first = torch.rand(1)
        >>> with reproducible(3):
        ...     second = torch.rand(1)
        >>> bool(first == second), bool((torch.get_rng_state() == before).all())
        (True, True)
    """
    generators, thread_count = rng_state(), torch.get_num_threads()
    set_seed(seed)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        set_rng_state(generators)
        torch.set_num_threads(thread_count)


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the current step.

    The trainer then writes a checkpoint, so nothing is lost; the second signal stops at once. Only
    the main thread may handle signals; elsewhere nothing is installed.

    Args:
        notify: Told once, when the first signal arrives.

    Example:
        >>> with StopRequest() as stop:
        ...     signal.raise_signal(signal.SIGINT)
        ...     stop.requested
        True
    """

    def __init__(self, notify: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._notify = notify
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that C code installed, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._notify is not None:
            self._notify()


class StopAfterStep(TrainerCallback):
    """Carries a :class:`StopRequest` into the loop: checkpoint, then stop."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop, where that was asked for."""
        if self._stop.requested:
            control.should_save = control.should_training_stop = True
