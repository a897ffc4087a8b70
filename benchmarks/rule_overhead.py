"""What the layer of learning rules costs per step: with none attached, and with five cheap ones.

    python benchmarks/rule_overhead.py

The model, batch and optimizer of ``recipes/shakespeare_char.yaml`` in loops that take turns in
random order, so that a busy machine slows all of them alike:

- bare: forward, backward, clipping, fused AdamW; nothing of rules
- none: the same with an empty chain attached
- each of five rules alone, and all five together

A block's cost is its median step against the bare block of the same round, in processor time. The
weights of ``none`` must end bit-identical to those of ``bare``.
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
import json
import platform
import random
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.optimizer import adamw
from domainformer.training.rules import attach, make_rules

FIVE = [
    {"activation_clamp": {"limit": 100.0}},
    {"residual_scaling": {"scale": 0.99}},
    {"gradient_clipping_at_site": {"sites": ["blocks.*"]}},
    "centralise_gradient",
    "z_loss",
]
GOALS = {"none": 0.03, "all five": 0.10}


class Loop:
    """One model in training; ``rules`` of None is no layer at all."""

    def __init__(self, rules):
        torch.manual_seed(0)
        self.model = DomainTransformerForCausalLM(
            DomainTransformerConfig.preset(
                "tiny", vocab_size=66, max_position_embeddings=64, position_encoding="learned"
            )
        ).train()
        self.optimizer = adamw(self.model, learning_rate=1e-3, weight_decay=0.1)
        self.attached = None
        self.stack = contextlib.ExitStack()
        if rules is not None:
            self.attached = self.stack.enter_context(attach(make_rules(rules), self.model))
            self.attached.bind(self.optimizer)
        self.weights = list(self.model.parameters())
        self.dice = torch.Generator().manual_seed(0)

    def step(self):
        ids = torch.randint(0, 66, (12, 65), generator=self.dice)
        x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        with torch.autocast("cpu", torch.bfloat16):
            output = self.model(x, labels=y, shift_labels=y, num_items_in_batch=y.numel())
            loss = output.loss
            if self.attached is not None:
                loss = self.attached.add_auxiliary(loss, output.logits, y, {"input_ids": x})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def block(self, steps):
        times = []
        for _ in range(steps):
            started = time.process_time()
            self.step()
            times.append(time.process_time() - started)
        return statistics.median(times)


def name_of(rule):
    return rule if isinstance(rule, str) else next(iter(rule))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument(
        "--output", type=Path, default=Path(_HERE) / "results" / "rule_overhead.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    loops = {"bare": Loop(None), "none": Loop([])}
    loops |= {name_of(rule): Loop([rule]) for rule in FIVE}
    loops["all five"] = Loop(FIVE)
    for loop in loops.values():
        loop.block(3)
    dice, costs, steps = random.Random(0), {name: [] for name in loops}, []
    for _ in range(options.rounds):
        order = list(loops)
        dice.shuffle(order)
        seconds = {name: loops[name].block(options.steps) for name in order}
        steps.append(seconds["bare"])
        for name in loops:
            costs[name].append(seconds[name] / seconds["bare"] - 1)
    same = all(
        torch.equal(one, other)
        for one, other in zip(loops["bare"].weights, loops["none"].weights, strict=True)
    )
    table = Table(title=f"bare step: {statistics.median(steps) * 1e3:.1f} ms of processor time")
    for heading in ("rules", "cost of a step (median)", "quartiles", "goal"):
        table.add_column(heading)
    summary = {}
    for name, values in costs.items():
        low, middle, high = statistics.quantiles(values, n=4)
        summary[name] = {"median": middle, "quartiles": [low, high]}
        goal = f"≤ {GOALS[name]:.0%}" if name in GOALS else ""
        table.add_row(name, f"{middle:+.1%}", f"{low:+.1%} to {high:+.1%}", goal)
    console = Console()
    console.print(table)
    console.print(f"weights of bare and none: {'identical' if same else 'DIFFER'}")
    report = {
        "step_ms": statistics.median(steps) * 1e3,
        "rounds": options.rounds,
        "identical": same,
        "costs": summary,
        "goals": GOALS,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
