"""What verbs show while they work: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from domainformer.cli import output
from domainformer.distributed.progress import Progress


@pytest.fixture
def screen(monkeypatch):
    def use(*, terminal):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        monkeypatch.setattr(output, "messages", console)
        monkeypatch.setattr(output, "SECONDS_BETWEEN_LINES", 0.0)
        return console.file

    return use


def test_lines_tell_what_is_left_by_the_last_pace(screen):
    shown = screen(terminal=False)
    with output.progress("embedding") as tell:
        for done in (1, 2, 3, 4):
            tell(done, 4)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "embedding: 1 of 4"
    assert lines[1].startswith("embedding: 2 of 4, about ")
    assert len(lines) == 3


def test_lines_of_stages(screen):
    shown = screen(terminal=False)
    with output.stages() as tell:
        tell(Progress("encode", 1, 2, 3_000, 1.0, 18.0))
        tell(Progress("encode", 2, 2, 6_000, 2.0, 0.0))
    assert shown.getvalue() == "encode 1/2 (3,000 events), 18 s left\n"


def test_a_terminal_has_bars_which_leave_nothing(screen):
    shown = screen(terminal=True)
    with output.progress("embedding") as tell:
        tell(1, 4)
    with output.stages() as tell:
        tell(Progress("encode", 1, 2, 3_000, 1.0, 18.0))
        tell(Progress("encode", 2, 2, 6_000, 2.0, None))
    with output.working("comparing") as tell:
        tell("amount [x]")
    text = shown.getvalue()
    assert "embedding" in text
    assert "3,000 events, 18 s left" in text or "6,000 events" in text
    assert "comparing" in text


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1 min 30 s"), (7300, "2 h 1 min")]
)
def test_times_as_people_wait_for_them(seconds, told):
    assert output._time(seconds) == told
