"""What a run tells while it trains: ``metrics.jsonl``, trackers, and a bar or plain lines.

::

    step end ─▶ Watcher ─┬─▶ metrics.jsonl      {"step": 120, "tokens": 983040, "loss": 2.31, …}
    evaluation ▶         ├─▶ tensorboard, trackio
    log ───────▶         └─▶ stderr: a bar on a terminal, else a line now and then

The watcher reads tensors only at logging steps, so it costs nothing between them.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from domainformer.artifacts import write_text

METRICS_FILE = "metrics.jsonl"
_SECONDS_BETWEEN_LINES = 15.0


class Sink(Protocol):
    """Somewhere that takes one row of numbers at a time."""

    def write(self, row: dict[str, float]) -> None:
        """Take one row; ``step`` is always in it."""
        ...

    def close(self) -> None:
        """No more rows will come."""
        ...


class JsonLines:
    """One JSON object per line, flushed at once, so that a killed run keeps what it told.

    Args:
        path: The file, appended to.
        after: Rows beyond this step are dropped first: the run that wrote them was killed, and the
            resumed one tells them again.

    Example:
        >>> import tempfile
        >>> sink = JsonLines(Path(tempfile.mkdtemp()) / "metrics.jsonl")
        >>> sink.write({"step": 10, "loss": 2.5}); sink.close()
        >>> read_metrics(sink.path)
        [{'step': 10, 'loss': 2.5}]
    """

    def __init__(self, path: Path, *, after: int = 0) -> None:
        self.path = path
        kept = [row for row in read_metrics(path) if row["step"] <= after] if path.exists() else []
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._handle = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, float]) -> None:
        """Append one line."""
        self._handle.write(json.dumps(row) + "\n")
        self._handle.flush()

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def evaluation_at(path: Path, step: int) -> dict[str, float]:
    """The validation losses that a ``metrics.jsonl`` has of a step; none where none were told."""
    found: dict[str, float] = {}
    for row in read_metrics(path):
        if row["step"] == step:
            found |= {key: value for key, value in row.items() if key.startswith("eval_loss")}
    return found


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.jsonl``; a last line that was cut off by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Display(Protocol):
    """Something for a person to look at."""

    def start(self, total: int, done: int) -> None:
        """The training begins at step ``done`` of ``total``."""
        ...

    def advance(self, step: int) -> None:
        """A step is done."""
        ...

    def show(self, row: dict[str, float]) -> None:
        """Numbers became known."""
        ...

    def stop(self) -> None:
        """The training ended."""
        ...


class Bar:
    """A progress bar for terminals: step, tokens per second, losses, time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            refresh_per_second=2,  # drawing takes time from the training on a small machine
        )
        self._seen: dict[str, float] = {}

    def start(self, total: int, done: int) -> None:
        """Draw the bar."""
        self._task = self._progress.add_task("training", total=total, completed=done, note="")
        self._progress.start()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step)

    def show(self, row: dict[str, float]) -> None:
        """Change the numbers beside the bar."""
        self._seen |= row
        self._progress.update(self._task, note=describe(self._seen))

    def stop(self) -> None:
        """Leave the finished bar on the screen."""
        self._progress.stop()


class Lines:
    """Plain lines for logs: the first numbers, one line every 15 seconds, each evaluation."""

    def __init__(self, console: Console, *, seconds: float = _SECONDS_BETWEEN_LINES) -> None:
        self._console = console
        self._seconds = seconds

    def start(self, total: int, done: int) -> None:
        """Tell what is ahead."""
        self._total = total
        self._started, self._done = time.monotonic(), done
        self._last = float("-inf")
        self._seen: dict[str, float] = {}
        since = f" from step {done:,}" if done else ""
        self._print(f"training {total:,} steps{since}")

    def advance(self, step: int) -> None:
        """Nothing: lines follow the numbers."""

    def show(self, row: dict[str, float]) -> None:
        """Print a line, unless one was printed a moment ago."""
        now = time.monotonic()
        # An evaluation's line repeats the training's last numbers, but not the other way round.
        self._seen |= {key: value for key, value in row.items() if key != "eval_loss"}
        if "eval_loss" not in row and now - self._last < self._seconds:
            return
        self._last = now
        step = int(row["step"])
        done = step - self._done
        left = (now - self._started) / done * (self._total - step) if done else 0.0
        self._print(
            f"step {step:,}/{self._total:,}  {describe(self._seen | row)}  {clock(left)} left"
        )

    def stop(self) -> None:
        """Nothing is open."""

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def make_display(*, quiet: bool) -> Display | None:
    """A bar on a terminal, lines elsewhere, nothing where quiet; all of it on stderr."""
    if quiet:
        return None
    return Bar(stderr()) if stderr().is_terminal else Lines(stderr())


@functools.cache
def stderr() -> Console:
    """The one console for messages: rich prints them above a bar that is open on the same one."""
    return Console(stderr=True)


def say_nothing(text: str) -> None:
    """For quiet runs."""


def say(text: str) -> None:
    """Print a line for the user to stderr."""
    stderr().print(text, highlight=False, markup=False, soft_wrap=True)


def describe(row: dict[str, float]) -> str:
    """The numbers that a person wants to see.

    Example:
        >>> describe({"loss": 2.3456, "eval_loss": 2.5, "tokens_per_second": 12345.6})
        'loss 2.346  validation 2.500  12,346 tokens/s'
    """
    parts = []
    if "loss" in row:
        parts.append(f"loss {row['loss']:.3f}")
    if "eval_loss" in row:
        parts.append(f"validation {row['eval_loss']:.3f}")
    if "eval_accuracy" in row:
        parts.append(f"accuracy {row['eval_accuracy']:.1%}")
    if row.get("tokens_per_second"):
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """A duration as a person writes it.

    Example:
        >>> clock(59), clock(75), clock(3700)
        ('59s', '1m15s', '1h01m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Watcher(TrainerCallback):
    """Feeds sinks and display from the trainer's events.

    Args:
        sinks: Where rows of numbers go.
        display: What a person sees, if anything.
    """

    def __init__(self, sinks: Sequence[Sink], display: Display | None = None) -> None:
        self._sinks = sinks
        self._display = display
        self._tokens, self._seconds = 0, 0.0

    @property
    def mean_rate(self) -> float:
        """Tokens per second over all steps of this process, without evaluations and checkpoints."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._window_tokens = state.num_input_tokens_seen
        self._window_start = self._last = time.perf_counter()
        if self._display:
            self._display.start(state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar; the last step is always logged."""
        self._last = time.perf_counter()
        if self._display:
            self._display.advance(state.global_step)
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write a row of the training."""
        if "loss" not in logs:
            return  # the Trainer's closing summary
        now = time.perf_counter()
        tokens = state.num_input_tokens_seen
        trained, seconds = tokens - self._window_tokens, max(now - self._window_start, 1e-9)
        self._tokens, self._seconds = self._tokens + trained, self._seconds + seconds
        self._window_tokens, self._window_start, self._last = tokens, now, now
        row = {
            "step": state.global_step,
            "tokens": tokens,
            "loss": logs["loss"],
            "lr": logs["learning_rate"],
            "tokens_per_second": round(trained / seconds, 1),
        }
        if logs.get("grad_norm") is not None:
            row["grad_norm"] = logs["grad_norm"]
        # One loss for each objective, where there are several; numbers of learning rules and gates.
        also = ("loss_", "rule_", "gate_")
        self._tell(row | {key: logs[key] for key in logs if key.startswith(also)})

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        """Write a row of the validation."""
        self._skip_clock()
        row = {"step": state.global_step, "tokens": state.num_input_tokens_seen}
        told = ("eval_loss", "eval_accuracy", "eval_kept")
        self._tell(row | {key: metrics[key] for key in metrics if key.startswith(told)})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Checkpoints take no time from the throughput."""
        self._skip_clock()

    def close(self) -> None:
        """Close sinks and display."""
        if self._display:
            self._display.stop()
        for sink in self._sinks:
            sink.close()

    def _skip_clock(self) -> None:
        # Evaluations and checkpoints come after a step's end: their time is no training time.
        now = time.perf_counter()
        self._window_start += now - self._last
        self._last = now

    def _tell(self, row: dict[str, float]) -> None:
        for sink in self._sinks:
            sink.write(row)
        if self._display:
            self._display.show(row)
