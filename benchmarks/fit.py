"""How fast a tokenizer's statistics are collected, whole and in parts, and what they weigh.

    python benchmarks/fit.py                             # 2,000,000 events, 3 rounds
    python benchmarks/fit.py --events 200000 --rounds 1   # a quick look

The table: simulated card payments with sign, 21 magnitude bins, calendar and elapsed time, a
category, and a text, as plain string columns, on one thread.

- ``sort and count``: what a fit in memory does at least: sort magnitudes and gaps, count the
  distinct categories and texts in whole columns.
- ``one part``, ``40 parts``: `FitStatistics.update`, and `merge` of all parts through bytes.
- ``many values``: the same with a merchant field of about 1.6 million distinct names, which takes
  a second pass; both passes are counted.

Methods take turns, round by round; times are medians of processor time. The statistics of all ways
but the first are compared byte by byte.
"""

# ruff: noqa: E402 - threads are set before anything that starts some is imported

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
for _name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
import polars as pl

from domainformer.data import EventTable, simulate
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import FitStatistics
from domainformer.tokenizers.fields.columns import as_float64, dictionary

PARTS = 40
FIELDS = [
    FieldSpec("sign", "sign", column="amount"),
    FieldSpec("amount", "numerical_continuous"),
    FieldSpec("timestamp", "temporal", elapsed_bins=16),
    FieldSpec("category", "categorical_fixed"),
    FieldSpec("description", "text"),
]
SCHEMA = DomainSchema("payments", FIELDS)
MANY = DomainSchema("merchants", [*FIELDS, FieldSpec("merchant", "categorical_entity")])


def made_table(events: int, seed: int) -> EventTable:
    table = simulate("finance", entities=max(events // 60, 20), events_per_entity=60, seed=seed)
    rng = np.random.default_rng(seed)
    # One half of the payments go to merchants that are met about once.
    rare = rng.integers(0, 4 * table.n_events, table.n_events)
    often = rng.zipf(1.3, table.n_events).clip(max=4 * table.n_events)
    numbers = np.where(rng.random(table.n_events) < 0.6, rare, often)
    names = pl.Series("merchant", numbers).cast(pl.String)
    frame = table.frame.with_columns(("merchant no. " + names).alias("merchant"))
    return EventTable.of(frame, entity=table.entity, time=table.time)


def sort_and_count(table: EventTable) -> None:
    for numbers in (table.frame["amount"], table.elapsed()):
        values = np.abs(as_float64(numbers, field="x"))
        np.sort(values[(values > 0) & (values < np.inf)])
    table.frame["timestamp"].dt.year().min()
    for name in ("category", "description"):
        codes, values = dictionary(table.frame[name], field=name)
        np.bincount(codes, minlength=len(values))


def one_part(schema: DomainSchema, table: EventTable) -> FitStatistics:
    found = FitStatistics(schema).update(table)
    if found.needs_recount:
        found.adopt(found.recounting().update(table))
    return found


def in_parts(schema: DomainSchema, parts: list[EventTable]) -> FitStatistics:
    whole = FitStatistics(schema)
    for part in parts:
        whole.merge(FitStatistics.from_bytes(FitStatistics(schema).update(part).to_bytes()))
    return whole


def measure(events: int, rounds: int, seed: int) -> dict[str, object]:
    table = made_table(events, seed)
    cuts = np.linspace(0, table.n_entities, PARTS + 1).astype(int)
    parts = [
        table.take_entities(np.arange(first, last))
        for first, last in itertools.pairwise(cuts)
        if last > first
    ]
    ways = {
        "sort and count": lambda: sort_and_count(table),
        "one part": lambda: one_part(SCHEMA, table),
        f"{len(parts)} parts": lambda: in_parts(SCHEMA, parts),
        "many values, two passes": lambda: one_part(MANY, table),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    made: dict[str, FitStatistics] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            result = way()
            seconds[name].append(time.process_time() - start)
            if isinstance(result, FitStatistics):
                made[name] = result
    whole, parted, many = made.values()
    sizes = [len(FitStatistics(SCHEMA).update(part).to_bytes()) for part in parts[:1]]
    return {
        "events": table.n_events,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "equal": whole == parted,
        "bytes": {"1 part": sizes[0], "all": len(whole.to_bytes()), "many": len(many.to_bytes())},
        "distinct merchants": table.frame["merchant"].n_unique(),
        "thresholds": many.thresholds,
    }


def show(result: dict[str, object]) -> None:
    events, seconds = result["events"], result["seconds"]
    print(f"{events:,} events, one thread, processor time")
    for name, spent in seconds.items():
        print(f"  {name:<26}{spent:8.2f} s {events / spent / 1e6:8.2f} M events/s")
    print(f"  whole and in parts equal: {result['equal']}")
    print(f"  bytes: {result['bytes']}")
    print(f"  {result['distinct merchants']:,} merchants, thresholds {result['thresholds']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    result = measure(args.events, args.rounds, args.seed)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
