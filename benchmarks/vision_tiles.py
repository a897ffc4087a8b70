"""Which image tokens can go: a compressor, its control and every baseline on mosaics of digits.

    python -P benchmarks/vision_tiles.py --out runs/tiles --seed 0
    python -P benchmarks/vision_tiles.py --out runs/tiles --seed 1 --seed 2
    python -P benchmarks/vision_tiles.py --out runs/tiles --summary --write

One seed is a base model (tower and language model), and for 64, 144 and 576 tokens a compressor
and the control that never sees the question, trained alike, judged on digits of the test part.
Every stage goes on where it was stopped, and what is finished is not run again.
"""

import argparse
import copy
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from domainformer.config import load_config
from domainformer.data.tile_questions import KINDS, LOOKUPS, TileQuestions
from domainformer.evaluation.vision import VisionResults, VisionSummary, evaluate_selectors
from domainformer.models.vision.baselines import BASELINES, baseline
from domainformer.training.vision import VisionCollator, VisionRunConfig, open_vision, train_vision
from domainformer.training.vision.base_model import train_base
from domainformer.training.vision.base_rounds import rounds_until

SIDES = (8, 12, 24)
SHARES = (1 / 4, 1 / 9, 1 / 16, 1 / 36)
QUESTIONS = {8: 1200, 12: 600, 24: 240}
RECIPES = Path(__file__).parent.parent / "recipes" / "vision"
RESULTS = Path(__file__).parent / "results" / "vision_tiles.json"
NOT_RIVALS = ("everything", "oracle")
FIXED = ("relevance, fixed", "by rank, fixed")
VARIANTS = {"relevance": {}, "no question": {"compressor.use_query": "false"}}


def base_model(out: Path, seed: int, side: int) -> Path:
    """The base model that knows a grid, trained as far as that where it is not there yet."""
    folder = out / f"seed-{seed}" / "base"
    return train_base(folder, seed=seed, rounds=rounds_until(side * side))[side]


def adapter(out: Path, seed: int, side: int, variant: str) -> Path:
    """The run of one compressor, trained where it is not there yet."""
    folder = out / f"seed-{seed}"
    name = f"{variant.replace(' ', '-')}-{side * side}"
    if (folder / name / "adapter").exists() and (folder / name / "done").exists():
        return folder / name
    settings = {
        "model.name": str(base_model(out, seed, side)),
        "output.root": str(folder),
        "output.name": name,
        "training.seed": str(seed),
        "training.threads": "1",
        "training.resume": str((folder / name).exists()).lower(),
        **VARIANTS[variant],
    }
    if side > SIDES[0]:
        smaller = SIDES[SIDES.index(side) - 1]
        settings["training.start_from"] = str(adapter(out, seed, smaller, variant) / "adapter")
    overrides = [f"{key}={value}" for key, value in settings.items()]
    recipe = RECIPES / f"tiles-{side * side}.yaml"
    train_vision(load_config(VisionRunConfig, recipe, overrides))
    (folder / name / "done").touch()
    return folder / name


def judge(out: Path, seed: int, side: int) -> VisionResults:
    """Every selector at every budget on the test part, written once."""
    path = out / f"seed-{seed}" / f"results-{side * side}.json"
    if path.exists():
        return VisionResults.from_json(path.read_text())
    opened = {name: open_vision(adapter(out, seed, side, name)) for name in VARIANTS}
    relevance = opened["relevance"]
    learned = {name: each.realizer.selector for name, each in opened.items()}
    collate = VisionCollator(relevance.processor, prompt=relevance.config.model.prompt)
    test = {
        kind: TileQuestions(
            QUESTIONS[side] // len(KINDS), rows=side, columns=side, kinds=[kind], part="test",
            seed=seed,
        )
        for kind in KINDS
    }  # fmt: skip
    questions = [question for kind in KINDS for question in test[kind]]
    untrained = {name: baseline(name) for name in BASELINES if name != "everything"}
    shared = {"collate": collate, "batch_size": 30, "seed": seed}
    results = evaluate_selectors(
        relevance.realizer, {**learned, **untrained}, questions, budgets=[*SHARES, None], **shared
    )
    # The fixed budget that spends what the dynamic one spent on average; and by rank alone, for
    # context serves lookups and takes from counts.
    equal = results.cell("relevance", "dynamic").mean_kept / side**2
    by_rank = copy.copy(learned["relevance"])
    by_rank.config = replace(by_rank.config, context=0.0)
    fixed = evaluate_selectors(
        relevance.realizer, dict(zip(FIXED, (learned["relevance"], by_rank), strict=True)),
        questions, budgets=[equal], **shared,
    )  # fmt: skip
    cells = [*results.cells, *(c for c in renamed(fixed, "as dynamic") if c.selector != "full")]
    together = VisionResults(tuple(cells), seed)
    path.write_text(together.to_json())
    return together


def renamed(results: VisionResults, budget: str) -> list:
    return [replace(cell, budget=budget) for cell in results.cells]


def lookups(results: VisionResults, selector: str, budget: str) -> float:
    """Mean accuracy over the four kinds of lookup."""
    return sum(results.cell(selector, budget, kind).accuracy for kind in LOOKUPS) / len(LOOKUPS)


def table(runs: list[VisionResults]) -> str:
    """Markdown: lookups at every share, with each seed at 1/9; the other kinds at 1/9."""
    seeds = " | ".join(f"seed {run.seed}" for run in runs)
    lines = [
        f"| selector | 1/4 | 1/9 | {seeds} | 1/16 | 1/36 | count, 1/9 | global, 1/9 |",
        "|---" * (7 + len(runs)) + "|",
    ]
    for name in ("full", "oracle", *VARIANTS, *(n for n in BASELINES if n not in NOT_RIVALS)):
        budgets = ["all"] * 4 if name == "full" else ["1/4", "1/9", "1/16", "1/36"]
        shares = [spread([lookups(run, name, budget) for run in runs]) for budget in budgets]
        each = [f"{100 * lookups(run, name, budgets[1]):.1f}" for run in runs]
        others = [
            spread([run.cell(name, budgets[1], kind).accuracy for run in runs])
            for kind in ("count", "global")
        ]
        lines.append(f"| {' | '.join([name, *shares[:2], *each, *shares[2:], *others])} |")
    return "\n".join(lines)


def dynamic_table(runs: list[VisionResults]) -> str:
    """Markdown: what dynamic budgets spend and answer, beside a fixed budget of the same mean."""
    lines = [
        "| kind | full | dynamic | tokens kept | fixed at their mean | the same by rank alone |",
        "|---" * 6 + "|",
    ]
    for kind in (*KINDS, "all"):
        cells = [
            [run.cell(name, budget, kind) for run in runs]
            for name, budget in (
                ("full", "all"), ("relevance", "dynamic"), *((each, "as dynamic") for each in FIXED)
            )
        ]  # fmt: skip
        full, dynamic, *fixed = (spread([cell.accuracy for cell in each]) for each in cells)
        kept = [cell.mean_kept for cell in cells[1]]
        lines.append(f"| {' | '.join([kind, full, dynamic, spread(kept, 1), *fixed])} |")
    return "\n".join(lines)


def spread(values: list[float], unit: float = 100) -> str:
    """Mean ± standard error, in percent or in another unit."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{unit * mean:.1f}"
    return f"{unit * mean:.1f} ± {unit * statistics.stdev(values) / len(values) ** 0.5:.1f}"


def verdict(runs: list[VisionResults]) -> dict:
    """The figures of the goals, as means over the seeds."""
    untrained = [name for name in BASELINES if name not in NOT_RIVALS]
    full = statistics.fmean([lookups(run, "full", "all") for run in runs])
    ninth = {
        name: statistics.fmean([lookups(run, name, "1/9") for run in runs])
        for name in ("relevance", "no question", "oracle", *untrained)
    }
    best = max(untrained, key=lambda name: ninth[name])
    found = {
        "seeds": [run.seed for run in runs],
        "lookups, full": full,
        "lookups, 1/9": ninth,
        "share of full": ninth["relevance"] / full,
        "share of full, each seed": [
            lookups(run, "relevance", "1/9") / lookups(run, "full", "all") for run in runs
        ],
        "best training-free": best,
        "points above it": 100 * (ninth["relevance"] - ninth[best]),
        "points above the control": 100 * (ninth["relevance"] - ninth["no question"]),
    }
    for kind in (*KINDS, "all"):
        dynamic = [run.cell("relevance", "dynamic", kind) for run in runs]
        found[kind] = {
            "full": statistics.fmean([run.cell("full", "all", kind).accuracy for run in runs]),
            "dynamic": statistics.fmean(cell.accuracy for cell in dynamic),
            "kept": statistics.fmean(cell.mean_kept for cell in dynamic),
            **{
                f"{each} at the same mean": statistics.fmean(
                    [run.cell(each, "as dynamic", kind).accuracy for run in runs]
                )
                for each in FIXED
            },
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--side", type=int, action="append", default=[])
    parser.add_argument("--summary", action="store_true", help="put finished seeds together")
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seed:
        for side in options.side or SIDES:
            print(
                f"## seed {seed}, {side * side} tokens\n\n{judge(options.out, seed, side).render()}"
            )
    if not options.summary:
        return
    written = {}
    for side in options.side or SIDES:
        paths = sorted(options.out.glob(f"seed-*/results-{side * side}.json"))
        runs = [VisionResults.from_json(path.read_text()) for path in paths]
        found, summary = verdict(runs), VisionSummary.of(runs)
        print(f"## {side * side} tokens\n\n{table(runs)}\n\n{dynamic_table(runs)}\n")
        print(f"{json.dumps(found, indent=2)}\n")
        written[str(side * side)] = {"verdict": found, "cells": json.loads(summary.to_json())}
    if options.write:
        RESULTS.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
