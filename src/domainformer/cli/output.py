"""Where the command line prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from domainformer.distributed.progress import Progress as Stage

# A pipe or a file has no width of its own; tables need room.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 132

results = Console(highlight=False, soft_wrap=True, width=WIDTH)
# How often a job tells where it is when nobody watches a terminal.
SECONDS_BETWEEN_LINES = 15.0

messages = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A message for the person at the terminal (stderr)."""
    messages.print(text, markup=False)


def show(value: Any, *, as_json: bool = False) -> None:
    """A result (stdout): JSON for programs, otherwise rendered for people."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")
    elif isinstance(value, dict):
        for key, item in value.items():
            results.print(f"{key}: {item}", markup=False)
    else:
        results.print(value)


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a verb is, on stderr: a bar on a terminal, else a line now and then.

    Yields:
        What takes (done, in all), as the library's progress callbacks are called.
    """
    if not messages.is_terminal:
        yield _lines(label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    # Transient: what is left on the screen are results, not bars.
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def working(label: str) -> Iterator[Callable[[str], None]]:
    """Show what a verb is at, on a terminal alone.

    Yields:
        What takes the name of each step.
    """
    if not messages.is_terminal:
        yield lambda step: None
        return
    with messages.status(label) as status:
        yield lambda step: status.update(f"{label}: {escape(step)}")


@contextlib.contextmanager
def stages() -> Iterator[Callable[[Stage], None]]:
    """Show how far a job of several stages is: a bar for each, or a line now and then.

    Yields:
        What takes the reports of `domainformer.distributed`.
    """
    if not messages.is_terminal:
        yield _stage_lines()
        return
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(stage: Stage) -> None:
            if stage.stage not in tasks:
                tasks[stage.stage] = bar.add_task(stage.stage, total=stage.total, note="")
            left = "" if stage.seconds_left is None else f", {_time(stage.seconds_left)} left"
            note = f"{stage.events:,} events{left}"
            bar.update(tasks[stage.stage], completed=stage.done, total=stage.total, note=note)

        yield tell


def _stage_lines() -> Callable[[Stage], None]:
    told = time.monotonic()

    def tell(stage: Stage) -> None:
        nonlocal told
        if stage.done < stage.total and time.monotonic() - told >= SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            say(str(stage))

    return tell


def _lines(label: str) -> Callable[[int, int], None]:
    """A line every 15 seconds, so that a log tells that the job lives and when it will end."""
    told, before = time.monotonic(), 0

    def tell(done: int, total: int) -> None:
        nonlocal told, before
        now = time.monotonic()
        if done >= total or now - told < SECONDS_BETWEEN_LINES:
            return
        # The pace since the last line: a job that warms up would else be told to take days.
        pace = (done - before) / (now - told)
        left = f", about {_time((total - done) / pace)} left" if before and pace > 0 else ""
        say(f"{label}: {done:,} of {total:,}{left}")
        told, before = now, done

    return tell


def _time(seconds: float) -> str:
    """Seconds as people wait for them.

    Example:
        >>> _time(42), _time(90), _time(7300)
        ('42 s', '1 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def next_command(text: str) -> None:
    """The next useful command, as the last line of a verb."""
    say(f"next: {text}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else getattr(value, "tolist", lambda: str(value))()


# The options that several verbs share, so that they read and behave alike everywhere.
JSON = typer.Option(False, "--json", help="Print JSON for programs.")
OVERWRITE = typer.Option(False, "--overwrite", help="Replace the output if it exists.")


def quoted(part: object) -> str:
    """A folder as a YAML text: one that is called 2024 is no number."""
    return "'" + str(part).replace("'", "''") + "'"
