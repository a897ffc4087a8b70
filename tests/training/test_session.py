"""Borrowed state is given back; the first signal asks, the second stops."""

from __future__ import annotations

import random
import signal
import threading

import numpy as np
import pytest
import torch
from transformers import TrainerControl

from domainformer.training.session import StopAfterStep, StopRequest, reproducible


def draw():
    return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002


def test_seeded_inside_untouched_outside():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = [draw(), draw()]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    outside = [draw()]
    with reproducible(7):
        first = draw()
    outside.append(draw())
    with reproducible(7):
        assert draw() == first
    assert outside == expected


def test_threads_are_given_back_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), reproducible(0, threads=2):
        assert torch.get_num_threads() == 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops(number):
    before = signal.getsignal(number)
    told = []
    with StopRequest(lambda: told.append(1)) as stop:
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert told == [1]
    assert signal.getsignal(number) is before


def test_other_threads_leave_the_handlers_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_loop_saves_and_stops_when_asked():
    stop = StopRequest()
    control = TrainerControl()
    StopAfterStep(stop).on_step_end(None, None, control)
    assert not control.should_training_stop
    stop.requested = True
    StopAfterStep(stop).on_step_end(None, None, control)
    assert control.should_training_stop
    assert control.should_save
