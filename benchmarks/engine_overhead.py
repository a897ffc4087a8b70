"""What the engine costs per step over a bare PyTorch loop, beside the Trainer as it comes.

    python benchmarks/engine_overhead.py

The same model, rows and optimizer in three loops, in blocks that take turns in random order, so
that a busy machine slows all of them alike:

- bare: rows, collator, forward, backward, clipping, fused AdamW, schedule; nothing else
- engine: ``EventTrainer`` with ``metrics.jsonl``
- Trainer: ``transformers.Trainer`` with its defaults, logging as often

A block's cost is its median step against the bare block of the same round. Time is the process's
own processor time by default (``--clock wall`` on a quiet machine).
"""

# ruff: noqa: E402 - the import path is mended before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]

import argparse
import contextlib
import io
import json
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from transformers import Trainer, TrainerCallback, TrainingArguments

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.tokens import TokenizedEvents
from domainformer.models import Collator, DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training import EventTrainer, TrainPlan
from domainformer.training.optimizer import adamw, make_schedule
from domainformer.training.progress import JsonLines, Watcher

RESULTS = Path(__file__).with_name("results") / "engine_overhead.json"
VOCAB = 600
LOG_EVERY = 10
WARM_UP = 5


def make_rows(context: int) -> DomainSequenceDataset:
    """Histories of log-normal length, twelve tokens an event."""
    dice = np.random.default_rng(0)
    lengths = np.clip(dice.lognormal(2.0, 0.8, 3000).astype(int), 1, context // 12 - 1)
    events = int(lengths.sum())
    tokens = TokenizedEvents(
        ids=dice.integers(4, VOCAB, events * 12).astype(np.uint16),
        event_offsets=np.arange(events + 1) * 12,
        entity_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        entity_ids=pl.Series(range(3000)),
        times=np.zeros(events, np.int64),
        roles=None,
        tokenizer_fingerprint="benchmark",
        vocab_size=VOCAB,
    )
    return DomainSequenceDataset(tokens, context=context)


class Stopwatch(TrainerCallback):
    """Reads the clock at the end of each step."""

    def __init__(self, clock) -> None:
        self.clock, self.times = clock, []

    def on_step_end(self, *_, **__) -> None:
        self.times.append(self.clock())


class Bench:
    def __init__(self, options) -> None:
        torch.manual_seed(0)
        self.steps, self.row_count = options.steps, options.rows
        self.clock = time.perf_counter if options.clock == "wall" else time.process_time
        config = DomainTransformerConfig.preset(
            "tiny",
            vocab_size=VOCAB,
            hidden_size=options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=4,
        )
        self.model = DomainTransformerForCausalLM(config)
        self.rows = make_rows(options.context)
        self.collate = Collator(0, packed=True, pad_to=options.context)

    def bare(self, folder: Path) -> list[float]:
        model, parameters, times = self.model.train(), list(self.model.parameters()), []
        optimizer = adamw(model, learning_rate=1e-3, weight_decay=0.1)
        schedule = make_schedule(optimizer, steps=self.steps, warmup_ratio=0.05)
        total = torch.tensor(0.0)
        for step in range(self.steps):
            first = step * self.row_count
            batch = self.collate([self.rows[first + i] for i in range(self.row_count)])
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.detach()
            if step % LOG_EVERY == 0:
                total.item()
                total.zero_()
            times.append(self.clock())
        return times

    def engine(self, folder: Path) -> list[float]:
        plan = TrainPlan(
            steps=self.steps,
            rows=self.row_count,
            save_every=self.steps + 1,
            eval_every=self.steps + 1,
            log_every=LOG_EVERY,
        )
        watch = Stopwatch(self.clock)
        watcher = Watcher([JsonLines(folder / "metrics.jsonl")])
        trainer = EventTrainer(
            self.model,
            plan,
            train_rows=self.rows,
            eval_rows=None,
            collate=self.collate,
            checkpoint_root=folder,
            callbacks=[watcher, watch],
        )
        trainer.fit()
        watcher.close()
        return watch.times

    def trainer(self, folder: Path) -> list[float]:
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=self.steps,
            per_device_train_batch_size=self.row_count,
            learning_rate=1e-3,
            logging_steps=LOG_EVERY,
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        watch = Stopwatch(self.clock)
        with contextlib.redirect_stdout(io.StringIO()):
            Trainer(
                self.model,
                arguments,
                data_collator=self.collate,
                train_dataset=self.rows,
                callbacks=[watch],
            ).train()
        return watch.times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--rows", type=int, default=1)
    arguments.add_argument("--context", type=int, default=256)
    arguments.add_argument("--layers", type=int, default=8)
    arguments.add_argument("--width", type=int, default=128)
    arguments.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    arguments.add_argument("--no-write", action="store_true", help="leave benchmarks/results alone")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options)
    loops = {"bare loop": bench.bare, "engine": bench.engine, "Trainer": bench.trainer}
    dice, rounds = random.Random(0), []
    for number in range(options.rounds + 1):
        measured = {}
        for name in dice.sample(list(loops), len(loops)):
            with tempfile.TemporaryDirectory() as folder:
                times = np.array(loops[name](Path(folder)))
            measured[name] = float(np.median(np.diff(times)[WARM_UP:]))
        if number:  # the first round warms up
            rounds.append(measured)

    table = Table("loop", "ms per step", "over bare, ms", "over bare, %", "range over rounds, %")
    report = {}
    for name in loops:
        shares = [100 * (one[name] / one["bare loop"] - 1) for one in rounds]
        extra = [1e3 * (one[name] - one["bare loop"]) for one in rounds]
        report[name] = {
            "ms": round(1e3 * statistics.median(one[name] for one in rounds), 2),
            "over_ms": round(statistics.median(extra), 2),
            "over_percent": round(statistics.median(shares), 2),
            "range_percent": [round(min(shares), 2), round(max(shares), 2)],
        }
        row = report[name]
        low, high = row["range_percent"]
        table.add_row(
            name,
            f"{row['ms']:.1f}",
            f"{row['over_ms']:+.2f}",
            f"{row['over_percent']:+.1f}",
            f"{low:+.1f} … {high:+.1f}",
        )
    Console().print(table)
    if not options.no_write:
        RESULTS.parent.mkdir(exist_ok=True)
        facts = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        result = {"loops": report, "options": vars(options), **facts}
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
