"""The next item on Amazon Beauty from attribute tokens: as they are, and merged by ActionPiece.

    python benchmarks/merged_items.py [--vocab-size 40000] [--seeds 0] [key=value …]

An item is read as the set of its attribute tokens and one hash token (benchmarks/merges.py), never
as an id of its own. Unmerged, that is 4.8 tokens an item; merged, less than one. Equal in both
forms: the newest 50 items that are read, the blocks (rotary positions, so to the last weight), the
softmax over all 12,101 items and its item table (ids and attributes), what is learned (every item
after every prefix, once an epoch), the batches, the items drawn for the softmax, the steps. Not
equal: the table of input tokens (its rows are parameters), the tokens that are read, and the time.

Leave-last-out and strict: fitted without the last two items, merges included; all items are ranked
but those of the history; the epoch is chosen by validation items, the test looked at once per form
and seed. Validation is too hard on merges: they were learned from histories that end where it
begins, so a quarter of these end in a token that no prefix had (one in eighty at the test). So the
two forms are compared at the test alone. The settings are those of recipes/beauty-next-item.yaml,
for ids; ``key=value`` sets a value of ItemsConfig for both forms. Reads DOMAINFORMER_DATA, prints
one table and writes benchmarks/results/merged_items.json. One thread.
"""

# ruff: noqa: E402 - the import path and threads are set before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, so it comes after the standard library.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [one for one in sys.path if os.path.abspath(one or ".") != _HERE] + [_HERE]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml
from merged_rows import NEWEST, Network, Reader, Rows, fit
from merges import data_folder, item_sets

from domainformer.artifacts import write_json
from domainformer.config import build
from domainformer.evaluation.comparison import FoldPrediction, evaluate_predictions
from domainformer.evaluation.item_contestants import FittedItems
from domainformer.evaluation.item_data import ItemData, read_histories
from domainformer.evaluation.metrics import ndcg_at, recall_at
from domainformer.evaluation.public_tasks import public_task
from domainformer.models.item_transformer import ItemAttributes
from domainformer.tokenizers.merges import ActionPieceMerges
from domainformer.training.items_config import ItemsConfig

RECIPE = Path(_HERE).parent / "recipes" / "beauty-next-item.yaml"
FORMS = ("unmerged", "merged")


class Bench:
    """The same contest for both forms."""

    def __init__(self, args):
        self.args, folder = args, data_folder()
        self.task = public_task("beauty_next_item", folder)
        split = next(self.task.splits())
        self.test, self.labels = split.test.drop("label"), self.task.labels(split.test)
        self.data = ItemData.of(self.task, split.train, split.valid)
        items = pl.read_parquet(folder / "commerce" / "beauty_items.parquet").sort("item_id")
        if items["item_id"].to_list() != list(self.data.catalogue):
            sys.exit("the table of items is not the catalogue")
        self.attributes = ItemAttributes.of(items["attribute_ids"].to_list())
        self.sets, self.base, _ = item_sets(items, seed=0)
        self.rows, self.lists = [], {}

    def reader(self, form):
        """How items become tokens, and the processor seconds that learning it took."""
        reader, busy = Reader(self.sets, self.base), time.process_time()
        if form == "merged":
            events = reader.events(self.data.train.items, self.data.train.offsets)
            reader.merges = ActionPieceMerges.fit(events, vocab_size=self.args.vocab_size)
        return reader, time.process_time() - busy

    def judge(self, form):
        """One row of the table per seed."""
        reader, learning = self.reader(form)
        begun = time.process_time()
        rows = Rows(reader, self.data.train)
        preparing = time.process_time() - begun
        shown = np.diff(reader.newest(read_histories(self.task, self.test))[1])
        for seed in self.args.seeds:
            longest = NEWEST * max(map(len, self.sets))
            settings = {**self.args.settings, "context": longest, "seed": seed}
            config = build(ItemsConfig, settings)
            torch.manual_seed(seed)
            network = Network(reader, self.data.train.n_items, self.attributes, config)
            wall, busy = time.perf_counter(), time.process_time()
            found = fit(network, rows, self.data, config)
            row = {
                "form": form,
                "seed": seed,
                "parameters": network.parameters_by_part(),
                "tokens_per_history": float(shown.mean()),
                "rows": int(sum(map(len, rows.of_user))),
                "tokens_per_epoch": rows.tokens,
                "positions_per_epoch": len(rows.item),
                "merging_processor_seconds": round(learning, 1),
                "preparing_processor_seconds": round(preparing, 1),
                "processor_seconds": round(time.process_time() - busy, 1),
                "seconds": round(time.perf_counter() - wall, 1),
                **found,
            }
            if not self.args.validation_only:
                row["test"] = self.look(form, seed, network.eval())
            self.rows.append(row)
            self.write()

    def look(self, form, seed, network):
        """The one look at the test items."""
        busy = time.process_time()
        found = FittedItems(network, self.data.exclude_seen, 100).predict(self.task, self.test)
        busy = time.process_time() - busy
        self.lists.setdefault(form, []).append(FoldPrediction(0, found, seed))
        figures = {"processor_seconds": round(busy, 1)}
        for k in (5, 10):
            figures[f"recall@{k}"] = float(recall_at(self.labels, found, k=k))
            figures[f"ndcg@{k}"] = float(ndcg_at(self.labels, found, k=k))
        return figures

    def write(self):
        """What there is so far; the difference by paired bootstrap once both forms are there."""
        comparison = None
        if len(self.lists) == len(FORMS) and len({len(one) for one in self.lists.values()}) == 1:
            comparison = evaluate_predictions(self.task, self.lists, baselines=[FORMS[0]]).to_json()
        environment = {"python": platform.python_version(), "torch": torch.__version__}
        result = {
            "what": "the next item on Beauty from attribute tokens, unmerged and merged",
            "protocol": "leave-last-out, strict; all items but seen ones; epoch by validation",
            "environment": {**environment, "threads": torch.get_num_threads()},
            "vocab_size": self.args.vocab_size,
            "newest_items": NEWEST,
            "settings": self.args.settings,
            "rows": self.rows,
            "comparison": comparison,
        }
        if not self.args.validation_only:
            write_json(Path(self.args.output), result)
        self.comparison = comparison

    def show(self):
        print(
            f"{'form':<10}{'seed':>4}{'tokens':>9}{'parameters':>12}{'blocks':>9}"
            f"{'tokens read':>13}{'epoch':>6}{'valid NDCG@10':>14}"
            f"{'Recall@10':>11}{'NDCG@10':>9}{'seconds':>9}"
        )
        for row in self.rows:
            best = max(one["ndcg@10"] for one in row["curve"])
            test = row.get("test", {})
            print(
                f"{row['form']:<10}{row['seed']:>4}{row['tokens_per_history']:>9.1f}"
                f"{row['parameters']['total']:>12,}{row['parameters']['blocks']:>9,}"
                f"{row['tokens_per_epoch']:>13,}{row['epoch']:>6}{best:>14.4f}"
                f"{test.get('recall@10', np.nan):>11.4f}{test.get('ndcg@10', np.nan):>9.4f}"
                f"{row['processor_seconds']:>9.0f}"
            )
        if self.comparison is not None:
            for name, one in self.comparison["differences"][FORMS[1]].items():
                print(f"merged minus unmerged, {name}: {one}")


def read_arguments():
    parser = argparse.ArgumentParser(description="The next item from merged attribute tokens.")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--vocab-size", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--validation-only", action="store_true", help="no test, no file")
    parser.add_argument("--output", default=str(Path(_HERE) / "results" / "merged_items.json"))
    args = parser.parse_args()
    recipe = yaml.safe_load(RECIPE.read_text())["models"]["items_and_counts"]["network"]
    changes = dict(one.split("=", 1) for one in args.settings)
    args.settings = {**recipe["settings"], "position_encoding": "rope"}
    args.settings |= {key: yaml.safe_load(value) for key, value in changes.items()}
    return args


def main():
    bench = Bench(args := read_arguments())
    for form in args.forms:
        bench.judge(form)
    bench.show()


if __name__ == "__main__":
    main()
