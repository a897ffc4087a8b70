"""The next item on Amazon Beauty: counts, the item Transformer, and both together.

    python benchmarks/beauty.py [--seeds 0 1] [--no-ease] [--save FOLDER] [key=value …]

Leave-last-out: the last item is the test, the one before it validation, all 12,101 items are ranked
but those of the history (nobody has an item twice). Every model is judged in two protocols:

    train           fitted without the last two items; the validation item is only read at the test
    train + valid   what was chosen by the validation item is fitted again with it

All is chosen by validation items; the test is looked at once per row. ``key=value`` sets a value of
ItemsConfig (see recipes/beauty-next-item.yaml, whose values are the defaults here). Reads
DOMAINFORMER_DATA and rewrites benchmarks/results/beauty.json after every row. One thread.
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
import platform
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
import yaml

from domainformer.artifacts import write_json
from domainformer.evaluation.comparison import FoldPrediction, evaluate_predictions
from domainformer.evaluation.contest.table import build_contestant
from domainformer.evaluation.item_baselines import Blend
from domainformer.evaluation.item_contestants import FittedItems, Learned
from domainformer.evaluation.item_data import ItemData
from domainformer.evaluation.item_network import NetworkScores, join
from domainformer.evaluation.item_search import tune_blend
from domainformer.evaluation.metrics import ndcg_at, recall_at
from domainformer.evaluation.public_tasks import public_task
from domainformer.inference.items import ItemRecommender

DATA = Path(os.environ.get("DOMAINFORMER_DATA", Path(_HERE).parents[1] / "shared" / "data"))
RECIPE = Path(_HERE).parent / "recipes" / "beauty-next-item.yaml"
PROTOCOLS = ("train", "train + valid")
PUBLISHED = {
    "TIGER": (0.0648, 0.0384),
    "ActionPiece": (0.0775, 0.0424),
    "SASRec, full cross-entropy, well tuned": (0.0859, 0.0503),
}


class Bench:
    """Learns models, judges them in both protocols, and writes what it has found."""

    def __init__(self, args):
        self.args = args
        self.task = public_task("beauty_next_item", DATA)
        split = next(self.task.splits())
        self.test, self.labels = split.test.drop("label"), self.task.labels(split.test)
        self.data = ItemData.of(self.task, split.train, split.valid, choose_by=6000)
        self.rows, self.lists = [], {protocol: {} for protocol in PROTOCOLS}
        self.comparisons, self.settings = {}, args.network["settings"]
        self.started = time.perf_counter()

    def timed(self, learn):
        wall, busy = time.perf_counter(), time.process_time()
        result = learn()
        return result, time.perf_counter() - wall, time.process_time() - busy

    def judge(self, name, seed, learned, **more):
        """Both protocols of one model; refitted models are returned."""
        models = {}
        for protocol in PROTOCOLS:

            def fit(protocol=protocol):
                return learned.model if protocol == "train" else learned.refit(self.data.whole)

            model, wall, busy = self.timed(fit)
            fitted = FittedItems(model, self.data.exclude_seen, 100)
            found = fitted.predict(self.task, self.test)
            self.lists[protocol].setdefault(name, []).append(FoldPrediction(0, found, seed, wall))
            figures = {}
            for k in (5, 10):
                figures[f"recall@{k}"] = float(recall_at(self.labels, found, k=k))
                figures[f"ndcg@{k}"] = float(ndcg_at(self.labels, found, k=k))
            row = {"model": name, "protocol": protocol, "seed": seed, **figures}
            if protocol == "train":
                row |= {"chosen": learned.chosen, **more}
            else:
                row["refit_seconds"], row["refit_processor_seconds"] = (
                    round(wall, 1),
                    round(busy, 1),
                )
            self.rows.append(row)
            models[protocol] = model
            print(
                f"{name:<28}{protocol:<15}seed {seed}  Recall@10 {figures['recall@10']:.4f}  "
                f"NDCG@10 {figures['ndcg@10']:.4f}  "
                f"after {time.perf_counter() - self.started:.0f} s",
                flush=True,
            )
            self.write()
        return models

    def learn(self, name, seed, contestant):
        learned, wall, busy = self.timed(lambda: contestant.learn(self.data, seed))
        spent = {"seconds": round(wall, 1), "processor_seconds": round(busy, 1)}
        models = self.judge(name, seed, learned, **spent)
        # Judged once: what is fitted again is kept for the mixtures.
        return Learned(learned.model, lambda _: models["train + valid"], learned.chosen)

    def compare(self):
        """Mean and bootstrap of all that was judged so far, against the best baseline."""
        for protocol, lists in self.lists.items():
            baselines = [name for name in lists if not name.startswith("ours")]
            found = evaluate_predictions(self.task, lists, baselines=baselines)
            self.comparisons[protocol] = found.to_json()
        self.write()

    def write(self):
        environment = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
        }
        result = {
            "task": "beauty_next_item",
            "users": len(self.labels),
            "items": self.task.n_classes,
            "exclude_seen": self.data.exclude_seen,
            "environment": environment,
            "settings": self.settings,
            "published": PUBLISHED,
            "seconds": round(time.perf_counter() - self.started, 1),
            "rows": self.rows,
            "comparisons": self.comparisons,
        }
        write_json(Path(self.args.output), result)


def with_ease(bench, ease, transitions):
    """EASE, and the blend of both counts."""
    seed = bench.args.seeds[0]
    found = bench.learn("EASE, decayed history", seed, build_contestant("ease", ease))
    blend, figure = tune_blend(bench.data, transitions.model, found.model)

    def refit(histories):
        return Blend(transitions.refit(histories), found.refit(histories), blend.weight)

    chosen = {"weight": blend.weight, "validation": figure}
    bench.judge("transitions + EASE", seed, Learned(blend, refit, chosen))
    return found


def averaged(networks):
    """The networks of several seeds as one: their probabilities are averaged."""

    def together(models):
        return NetworkScores(ItemRecommender([one for m in models for one in m.recommender.models]))

    return Learned(
        together([one.model for one in networks]),
        lambda histories: together([one.refit(histories) for one in networks]),
    )


def read_arguments():
    parser = argparse.ArgumentParser(description="The next item on Amazon Beauty.")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--no-ease", action="store_true")
    parser.add_argument("--save", help="write the averaged network of train + valid as a folder")
    parser.add_argument("--output", default=str(Path(_HERE) / "results" / "beauty.json"))
    args = parser.parse_args()
    recipe = yaml.safe_load(RECIPE.read_text())["models"]["items_and_counts"]
    args.network, args.ease = recipe["network"], recipe["ease"]
    changes = dict(one.split("=", 1) for one in args.settings)
    args.network["settings"] |= {key: yaml.safe_load(value) for key, value in changes.items()}
    args.network["attributes"]["path"] = str(DATA / args.network["attributes"]["path"])
    return args


def main():
    args = read_arguments()
    bench = Bench(args)
    bench.learn("popularity", args.seeds[0], build_contestant("popular_items"))
    counts = [bench.learn("transitions", args.seeds[0], build_contestant("transitions"))]
    weighing = replace(bench.data, choose_by=4000)
    networks = []
    for seed in args.seeds:
        network = bench.learn("ours alone", seed, build_contestant("items", args.network))
        networks.append(network)
        bench.judge("ours + transitions", seed, join(weighing, [network, counts[0]]))
        bench.compare()
    if not args.no_ease:
        counts.append(with_ease(bench, args.ease, counts[0]))
        bench.compare()
    mean = averaged(networks) if len(networks) > 1 else networks[0]
    if len(networks) > 1:
        bench.judge("ours alone, averaged", args.seeds[0], mean)
    name = "ours + transitions + EASE" if len(counts) > 1 else "ours + transitions"
    if len(networks) > 1 or len(counts) > 1:
        name += ", averaged" if len(networks) > 1 else ""
        bench.judge(name, args.seeds[0], join(weighing, [mean, *counts]))
    bench.compare()
    if args.save:
        catalogue = pl.Series("item_id", bench.task.classes, dtype=pl.Int32)
        models = mean.refit(None).recommender.models
        ItemRecommender(models, catalogue, True, bench.settings).save(args.save, overwrite=True)


if __name__ == "__main__":
    main()
