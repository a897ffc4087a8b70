"""What is told: one line per row, on stderr, at a bearable pace."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from domainformer.training import progress
from domainformer.training.progress import (
    Bar,
    JsonLines,
    Lines,
    Watcher,
    make_display,
    read_metrics,
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


class Collect:
    def __init__(self):
        self.rows, self.closed = [], False

    def write(self, row):
        self.rows.append(row)

    def close(self):
        self.closed = True


def state(step, tokens, total=100):
    return SimpleNamespace(global_step=step, num_input_tokens_seen=tokens, max_steps=total)


def test_throughput_leaves_out_evaluations_and_checkpoints(clock):
    sink = Collect()
    watcher = Watcher([sink])
    control = SimpleNamespace(should_log=False)
    logs = {"loss": 2.0, "learning_rate": 0.1}
    watcher.on_train_begin(None, state(0, 0), control)
    clock.now = 2.0
    watcher.on_step_end(None, state(10, 1000), control)
    watcher.on_log(None, state(10, 1000), control, logs=logs)
    clock.now = 50.0  # a long evaluation
    watcher.on_evaluate(None, state(10, 1000), control, metrics={"eval_loss": 1.5})
    clock.now = 60.0  # a long checkpoint
    watcher.on_save(None, state(10, 1000), control)
    clock.now = 64.0
    watcher.on_step_end(None, state(20, 2000), control)
    watcher.on_log(None, state(20, 2000), control, logs={**logs, "grad_norm": 0.5})
    watcher.close()
    assert [row.get("tokens_per_second") for row in sink.rows] == [500.0, None, 250.0]
    assert sink.rows[1] == {"step": 10, "tokens": 1000, "eval_loss": 1.5}
    assert sink.rows[2]["grad_norm"] == 0.5
    assert watcher.mean_rate == pytest.approx(2000 / 6)
    assert sink.closed


def test_the_last_step_is_logged():
    watcher = Watcher([])
    watcher.on_train_begin(None, state(0, 0), None)
    control = SimpleNamespace(should_log=False)
    watcher.on_step_end(None, state(99, 0), control)
    assert not control.should_log
    watcher.on_step_end(None, state(100, 0), control)
    assert control.should_log


def test_closing_summaries_are_not_rows():
    sink = Collect()
    Watcher([sink]).on_log(None, state(1, 1), None, logs={"train_runtime": 3.0})
    assert sink.rows == []


def test_rows_survive_at_once_and_resuming_drops_later_ones(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path)
    for step in (10, 20, 30):
        sink.write({"step": step, "loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30]  # before closing
    sink.close()
    with path.open("a") as handle:
        handle.write('{"step": 40, "lo')
    again = JsonLines(path, after=20)
    again.write({"step": 30, "loss": 0.5})
    again.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]
    assert read_metrics(path)[-1]["loss"] == 0.5


def test_plain_lines_keep_a_pace(clock):
    output = io.StringIO()
    lines = Lines(Console(file=output), seconds=15)
    lines.start(100, 0)
    for step in range(1, 41):
        clock.now = float(step)
        lines.show({"step": step, "loss": 2.0, "tokens_per_second": 10.0})
    clock.now = 41.0
    lines.show({"step": 40, "eval_loss": 1.0})
    lines.stop()
    shown = output.getvalue().splitlines()
    assert shown[0] == "training 100 steps"
    assert shown[1] == "step 1/100  loss 2.000  10 tokens/s  1m39s left"
    assert [line.split()[1] for line in shown[1:]] == ["1/100", "16/100", "31/100", "40/100"]
    assert shown[-1] == "step 40/100  loss 2.000  validation 1.000  10 tokens/s  1m01s left"
    assert not any("validation" in line for line in shown[:-1])


def test_a_resumed_run_says_where_it_starts():
    output = io.StringIO()
    lines = Lines(Console(file=output))
    lines.start(100, 40)
    lines.show({"step": 40, "loss": 1.0})
    assert output.getvalue().startswith("training 100 steps from step 40\n")


def test_the_bar_shows_numbers_on_a_terminal():
    output = io.StringIO()
    bar = Bar(Console(file=output, force_terminal=True, width=120))
    bar.start(10, 0)
    bar.show({"step": 5, "loss": 2.345678, "tokens_per_second": 1234.0})
    bar.show({"step": 5, "eval_loss": 2.5})
    bar.advance(10)
    bar.stop()
    shown = output.getvalue()
    assert "loss 2.346" in shown
    assert "validation 2.500" in shown
    assert "1,234 tokens/s" in shown
    assert "10/10" in shown


def test_display_is_chosen_by_the_terminal(monkeypatch):
    assert make_display(quiet=True) is None
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda self: False))
    assert isinstance(make_display(quiet=False), Lines)
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda self: True))
    assert isinstance(make_display(quiet=False), Bar)


def test_progress_goes_to_stderr(capsys):
    display = make_display(quiet=False)
    display.start(3, 0)
    display.show({"step": 1, "loss": 1.0})
    display.stop()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training" in captured.err
