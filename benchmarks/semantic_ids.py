"""Semantic ids of Amazon Beauty: usage of the codes per level, and collisions before the number.

    python benchmarks/semantic_ids.py [--levels 3] [--codes 256] [--seeds 1] [--epochs 250]

12,101 items with sets of attributes, and co-occurrence in 22,363 histories without each user's
last two items, which are the validation and test items of the usual protocol. RQ-VAE and residual
k-means read the same features. Also checked: every item's id decodes to that item. One thread;
prints one table and writes benchmarks/results/semantic_ids.json. The data are in the folder that
DOMAINFORMER_DATA names, else in ../shared/data beside the checkout.
"""

# ruff: noqa: E402 - the import path and threads are set before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import time
from pathlib import Path

import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from domainformer import EventTable, FieldSpec, fit_semantic_ids
from domainformer.artifacts import write_json
from domainformer.tokenizers.semantic import RQVAESettings

GOALS = {"usage": 0.9, "collision_rate": 0.1}
FACTS = ("usage", "perplexity", "collision_rate", "largest_group", "unexplained")


def beauty():
    """Training events (each history without its last two items) and items."""
    beside = Path(_HERE).resolve().parents[1] / "shared" / "data"
    folder = Path(os.environ.get("DOMAINFORMER_DATA", beside)) / "commerce"
    if not (folder / "beauty_events.parquet").is_file():
        sys.exit(f"there is no {folder / 'beauty_events.parquet'}: set DOMAINFORMER_DATA")
    events = pl.read_parquet(folder / "beauty_events.parquet")
    last = pl.col("position").max().over("user_id")
    events = events.filter(pl.col("position") < last - 1)
    items = pl.read_parquet(folder / "beauty_items.parquet")
    return EventTable.of(events, entity="user_id", time="position"), items


def measure(method, seed, options, events, items):
    spec = FieldSpec(
        "item_id",
        "categorical_entity",
        semantic_levels=options.levels,
        semantic_codes=options.codes,
    )
    started = time.perf_counter()
    found = fit_semantic_ids(
        events,
        spec,
        items=items,
        method=method,
        settings=RQVAESettings(epochs=options.epochs),
        seed=seed,
        least_usage=0.0,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    again = found.tokenizer.encode(items["item_id"])
    exact = found.tokenizer.decode(again).to_list() == items["item_id"].cast(pl.String).to_list()
    report = found.to_json()
    return {
        "method": method,
        "seed": seed,
        "seconds": round(seconds, 1),
        "exact_decode": exact,
        "tokens": len(found.tokenizer.vocab),
        "reached": min(report["usage"]) >= GOALS["usage"]
        and report["collision_rate"] < GOALS["collision_rate"],
        "share_first_with_nearest": report["neighbours_share_first"],
        **{name: report[name] for name in FACTS},
    }


def progress(done, total, what):
    if sys.stderr.isatty():
        print(f"\r{done}/{total} {what:<50}", end="", file=sys.stderr)


def table_of(rows):
    table = Table(title="Beauty: semantic ids of 12,101 items")
    heads = ("method", "seed", "usage per level", "collisions", "largest group", "unexplained")
    for head in (*heads, "near share 1st", "tokens", "decode", "seconds", "goal"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            row["method"],
            str(row["seed"]),
            " ".join(f"{share:.1%}" for share in row["usage"]),
            f"{row['collision_rate']:.2%}",
            str(row["largest_group"]),
            f"{row['unexplained']:.1%}",
            f"{row['share_first_with_nearest']:.0%}",
            str(row["tokens"]),
            "exact" if row["exact_decode"] else "WRONG",
            f"{row['seconds']:.0f}",
            "reached" if row["reached"] else "missed",
        )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=RQVAESettings().epochs)
    options = parser.parse_args()
    torch.set_num_threads(1)
    events, items = beauty()
    rows = [
        measure(method, seed, options, events, items)
        for seed in range(options.seeds)
        for method in ("rqvae", "kmeans")
    ]
    Console(width=130).print(table_of(rows))
    print(
        f"goal: usage of every level ≥ {GOALS['usage']:.0%}, "
        f"collisions before the number < {GOALS['collision_rate']:.0%}"
    )
    write_json(
        Path(_HERE) / "results" / "semantic_ids.json",
        {
            "goals": GOALS,
            "options": vars(options),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
