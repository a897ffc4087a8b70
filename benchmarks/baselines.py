"""The strong simple baselines on the public tables: what a sequence model has to beat.

    python benchmarks/baselines.py [task …] [--seed 0] [--budget 8] [--bag 5] [--quick]

Tabular tasks: aggregates at the cut into LightGBM, tuned inside each training part. Next expense:
repeat last, Markov, Markov with the card's own history. Next item: popularity, transition counts,
EASE with and without decayed histories, a blend; all items are ranked, and hyper-parameters are
chosen by the validation item of 6,000 users. Reads DOMAINFORMER_DATA, prints one line per figure
with its goal, and rewrites benchmarks/results/baselines.json after every task. One thread.
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
import time
from pathlib import Path

import numpy as np
import polars as pl

from domainformer.artifacts import write_json
from domainformer.evaluation import metrics
from domainformer.evaluation.gbdt import GradientBoosting
from domainformer.evaluation.item_baselines import ItemHistories, Popularity, Transitions
from domainformer.evaluation.item_search import (
    LeaveLastOut,
    tune_blend,
    tune_ease,
    tune_transitions,
)
from domainformer.evaluation.public_tasks import public_task
from domainformer.evaluation.sequence_counts import (
    MARKOV_ONLY,
    CategorySequences,
    SequenceCounts,
    repeat_last,
    tune_counts,
)
from domainformer.evaluation.tabular_baseline import TabularBaseline, public_plan

DATA = Path(os.environ.get("DOMAINFORMER_DATA", Path(_HERE).parents[1] / "shared" / "data"))
AUROC_GOALS = {
    "online_retail_churn": 0.747,
    "birmingham_dormancy": 0.909,
    "birmingham_dormancy_without_artefact": 0.867,
    "credit_default": 0.7893,
    "physionet_death": 0.8666,
}
EXPENSE_GOALS = {"repeat last": 0.546, "Markov 2": 0.554, "Markov 2 + card history": 0.584}
ITEM_GOALS = {
    "popularity": (0.012, 0.006),
    "transitions": (0.0849, 0.0537),
    "EASE": (0.0695, 0.0374),
    "EASE, decayed history": (0.0773, 0.0455),
    "blend": (0.0856, 0.0545),
}
EXPENSE, BEAUTY = "birmingham_next_expense", "beauty_next_item"


def row(task, model, metric, figure, goal, **more):
    return {"task": task, "model": model, "metric": metric, "figure": figure, "goal": goal, **more}


def tabular(name, args):
    """AUROC per fold; dormancy is fitted once and judged with and without the artefact."""
    task = public_task(name, DATA)
    boosting = GradientBoosting(
        budget=args.budget,
        bag=args.bag,
        finalists=min(args.budget, 3),
        learning_rate=args.learning_rate,
    )
    judged = [name] if name != "birmingham_dormancy" else [name, f"{name}_without_artefact"]
    tasks = {one: task if one == name else public_task(one, DATA) for one in judged}
    figures = {one: [] for one in judged}
    precision = {one: [] for one in judged}
    for split in task.splits():
        valid = split.valid if split.valid is not None else split.train.head(0)
        model = TabularBaseline(public_plan(name), boosting)
        fitted = model.fit(task, split.train, valid, args.seed + split.fold)
        for one, other in tasks.items():
            test = other.examples.filter(pl.col("fold") == split.fold)
            labels, found = other.labels(test), fitted.predict(other, test)
            figures[one].append(metrics.auroc(labels, found))
            precision[one].append(metrics.auprc(labels, found))
        columns = len(fitted.boosting.columns.names)
        print(f"  fold {split.fold}: {figures[name][-1]:.4f} ({columns} columns)", flush=True)
    return [
        row(
            one,
            "LightGBM on aggregates",
            "AUROC",
            float(np.mean(figures[one])),
            AUROC_GOALS[one],
            folds=figures[one],
            auprc=float(np.mean(precision[one])),
            columns=columns,
            settings=fitted.boosting.settings,
        )
        for one in judged
    ]


def next_expense(args):
    task = public_task(EXPENSE, DATA)
    table = task.table
    kept = table.frame["expense"].is_not_null()
    table = table.filter(kept)
    values = table.frame["expense"].replace_strict(task.classes, range(task.n_classes))
    days = table.frame["date"]
    train = (days < pl.Series([task.record["test_from"]]).str.to_date()[0]).to_numpy()
    late = (days >= pl.Series(["2016-11-01"]).str.to_date()[0]).to_numpy()
    sequences = CategorySequences(
        values.to_numpy().astype(np.int64), table.offsets, task.n_classes, train
    )
    test = np.flatnonzero(~train)
    truth = sequences.values[test]
    settings, validation = tune_counts(sequences, validation=train & late)

    def guess(one):
        return SequenceCounts(sequences, one).probabilities(test).argmax(axis=1)

    guesses = {
        "repeat last": repeat_last(sequences, test),
        "Markov 2": guess(MARKOV_ONLY),
        "Markov 2 + card history": guess(settings),
    }
    more = {"settings": vars(settings), "validation": validation, "events": len(test)}
    return [
        row(EXPENSE, name, "accuracy", metrics.accuracy(truth, one), EXPENSE_GOALS[name], **more)
        for name, one in guesses.items()
    ]


def next_item(args):
    task = public_task(BEAUTY, DATA)
    histories = ItemHistories.of(task.table, "item_id", task.classes)
    # Nobody reviews an item twice here, so items of the history need not be ranked.
    split = LeaveLastOut(histories, choose_by=6000, exclude_seen=True, seed=args.seed)
    settings, _ = tune_transitions(split)
    transitions = Transitions.fit(split.train, settings)
    models = {"popularity": Popularity.fit(split.train), "transitions": transitions}
    chosen = {"transitions": vars(settings)}
    if not args.quick:
        plain, decayed, chosen["EASE"] = tune_ease(split, (100.0, 250.0, 600.0))
        blend, _ = tune_blend(split, transitions, decayed)
        chosen["blend"] = {"weight": blend.weight}
        models |= {"EASE": plain, "EASE, decayed history": decayed, "blend": blend}
    rows = []
    for name, model in models.items():
        figures = split.judge(model)
        for place, metric in enumerate(("recall@10", "ndcg@10")):
            goal = ITEM_GOALS[name][place]
            more = {"all": figures, "settings": chosen.get(name)}
            rows.append(row(BEAUTY, name, metric, figures[metric], goal, **more))
    return rows


def run(name, args):
    started, busy = time.perf_counter(), time.process_time()
    if name == EXPENSE:
        rows = next_expense(args)
    elif name == BEAUTY:
        rows = next_item(args)
    else:
        rows = tabular(name, args)
    spent = {
        "seed": args.seed,
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
    }
    return [one | spent for one in rows]


def show(one):
    reached = "reached" if one["figure"] >= one["goal"] - 5e-5 else "BELOW"
    folds = len(one.get("folds", [0]))
    print(
        f"{one['task']:<38}{one['model']:<26}{one['metric']:<11}{folds} fold(s)  seed {one['seed']}"
        f"  {one['figure']:.4f}  goal {one['goal']:.4f}  {reached}"
        f"  {one['processor_seconds']:.0f} s",
        flush=True,
    )


def main():
    names = [name for name in AUROC_GOALS if not name.endswith("artefact")] + [EXPENSE, BEAUTY]
    parser = argparse.ArgumentParser(description="Strong simple baselines on the public tables.")
    parser.add_argument("tasks", nargs="*", metavar="task", help=", ".join(names))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=8, help="settings of LightGBM tried")
    parser.add_argument("--bag", type=int, default=5, help="models that are averaged")
    parser.add_argument("--learning-rate", type=float, default=0.04)
    parser.add_argument("--quick", action="store_true", help="Beauty without EASE")
    parser.add_argument("--output", default=str(Path(_HERE) / "results" / "baselines.json"))
    args = parser.parse_args()
    if unknown := set(args.tasks) - set(names):
        parser.error(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    output = Path(args.output)
    kept = json.loads(output.read_text())["rows"] if output.is_file() else []
    for name in args.tasks or names:
        rows = run(name, args)
        for one in rows:
            show(one)
        done = {one["task"] for one in rows}
        kept = [one for one in kept if one["task"] not in done] + rows
        environment = {"python": platform.python_version(), "machine": platform.machine()}
        write_json(output, {"environment": environment, "rows": kept})


if __name__ == "__main__":
    main()
