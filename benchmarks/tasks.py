"""The tabular tasks of docs/results.md: LightGBM, our networks and blends, on the same folds.

    python benchmarks/tasks.py [task …] [--folder runs/tasks] [--models lightgbm …] [--samples 2000]

Each task is a recipe (recipes/*.yaml), run as ``domainformer evaluate --task`` runs it: finished
(model, fold, seed) predictions in the folder are read, not made again. Reads DOMAINFORMER_DATA,
prints one line per model with its goal, and rewrites benchmarks/results/tabular_tasks.json after
every task. One thread. Times are those of a shared machine.
"""

# ruff: noqa: E402 - the import path and threads are set before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import argparse
import json
import platform
from pathlib import Path

import polars as pl

from domainformer.artifacts import write_json
from domainformer.config import load_config
from domainformer.evaluation.comparison import FoldPrediction, evaluate_predictions
from domainformer.evaluation.contest import ContestConfig, contest
from domainformer.evaluation.public_tasks import public_task

DATA = Path(os.environ.get("DOMAINFORMER_DATA", Path(_HERE).parents[1] / "shared" / "data"))
RECIPES = Path(_HERE).parent / "recipes"
# Task → its recipe, what LightGBM has to reach for the comparison to count, and our goal.
TASKS = {
    "physionet_death": ("physionet-death", 0.8666, 0.875),
    "credit_default": ("credit-default-label", 0.7893, 0.791),
    "online_retail_churn": ("online-retail-churn", 0.747, 0.760),
    "online_retail_churn_8_cuts": ("online-retail-churn", 0.747, 0.760),
    "birmingham_dormancy": ("birmingham-dormancy", 0.909, 0.909),
}
# Task → another that has the same training examples and a part of the same test examples: what the
# models said is judged there, too.
JUDGED_ALSO = {"birmingham_dormancy": ("birmingham_dormancy_without_artefact", 0.867, 0.867)}
BASELINE, METRIC = "lightgbm", "auroc"


def run(name, args):
    recipe, needed, goal = TASKS[name]
    folder = Path(args.folder) / name
    config = load_config(
        ContestConfig,
        RECIPES / f"{recipe}.yaml",
        [f"task.public={name}", f"output={folder}", f"samples={args.samples}"],
    )
    if args.models:
        models = {one: config.models[one] for one in args.models if one in config.models}
        config = config.model_copy(update={"models": models})
    done = contest(config, tell=lambda line: print(f"  {line}", file=sys.stderr, flush=True))
    rows = figures_of(name, done.comparison, config, needed, goal)
    if name in JUDGED_ALSO:
        other, needed, goal = JUDGED_ALSO[name]
        comparison = judge_part(done.task, public_task(other, DATA), config, folder, args.samples)
        rows += figures_of(other, comparison, config, needed, goal, command=name)
    return rows


def judge_part(task, part, config, folder, samples):
    """The predictions of one task for those of its test examples that are another's."""
    ours = task.examples.filter(pl.col("fold") >= 0)
    theirs = part.examples.filter(pl.col("fold") >= 0)
    same = ours.join(theirs.select("example"), on="example", how="semi", maintain_order="left")
    if not same.select("entity", "label").equals(theirs.select("entity", "label")):
        raise SystemExit(f"{part.name} is no part of {task.name}")
    predictions = {}
    for model in config.models:
        cells = []
        for seed in config.seeds:
            path = folder / "predictions" / model / f"fold-0-seed-{seed}" / "test.parquet"
            said = theirs.join(pl.read_parquet(path), on="example", maintain_order="left")
            cells.append(FoldPrediction(0, said["prediction"].to_numpy(), seed))
        predictions[model] = cells
    return evaluate_predictions(part, predictions, baselines=[BASELINE], samples=samples)


def figures_of(name, comparison, config, needed, goal, command=None):
    rows = []
    for model, figures in comparison.figures.items():
        cells = comparison.cells[model]
        against = comparison.differences.get(model, {}).get(METRIC)
        rows.append(
            {
                "task": name,
                "model": model,
                "metric": METRIC,
                "mean": figures[METRIC].mean,
                "standard_error": figures[METRIC].error,
                "folds": [cell[METRIC] for cell in cells],
                "goal": needed if model.startswith(BASELINE) else goal,
                "difference": None if against is None else vars(against),
                "others": {other: vars(one) for other, one in figures.items() if other != METRIC},
                "seeds": sorted({cell["seed"] for cell in cells}),
                "seconds": round(sum(cell["seconds"] for cell in cells), 1),
                "settings": config.models[model],
                "command": f"python benchmarks/tasks.py {command or name}",
            }
        )
    return rows


def show(one):
    reached = "reached" if one["mean"] >= one["goal"] - 5e-5 else "BELOW"
    error = "" if one["standard_error"] is None else f" ± {one['standard_error']:.4f}"
    against = one["difference"]
    p = "" if against is None else f"  {against['value']:+.4f} p {against['p_value']:.3f}"
    print(
        f"{one['task']:<38}{one['model']:<15}{one['mean']:.4f}{error:<10} goal {one['goal']:.4f}"
        f"  {reached}{p}  {one['seconds']:.0f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description="The tabular tasks of docs/results.md.")
    parser.add_argument("tasks", nargs="*", metavar="task", help=", ".join(TASKS))
    parser.add_argument("--folder", default="runs/tasks", help="where predictions are kept")
    parser.add_argument("--models", nargs="*", help="only these models of the recipes")
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap draws")
    parser.add_argument("--output", default=str(Path(_HERE) / "results" / "tabular_tasks.json"))
    args = parser.parse_args()
    if unknown := set(args.tasks) - set(TASKS):
        parser.error(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    os.environ.setdefault("DOMAINFORMER_DATA", str(DATA))
    output = Path(args.output)
    kept = json.loads(output.read_text())["rows"] if output.is_file() else []
    for name in args.tasks or TASKS:
        rows = run(name, args)
        for one in rows:
            show(one)
        done = {one["task"] for one in rows}
        kept = [one for one in kept if one["task"] not in done] + rows
        environment = {"python": platform.python_version(), "machine": platform.machine()}
        write_json(output, {"environment": environment, "rows": kept})


if __name__ == "__main__":
    main()
