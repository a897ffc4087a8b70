"""Domain tokens against events as text: the same Transformer, the same context in tokens.

    python benchmarks/text_serialisation.py [task] [--context 96] [--train 4000] [--seeds 1] …

Both are trained alike on the labels of one fold (``sequence`` and ``text`` of the contest, without
pretraining), read the same columns, and have vocabularies of the same size where that leaves the
text room for its bytes (512 entries). Reads DOMAINFORMER_DATA; without it, or for another task name
than a public one, the simulated task whose label order tells. Prints one table and writes
benchmarks/results/text_serialisation.json. One thread.
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
import time
from dataclasses import replace
from pathlib import Path

import polars as pl

from domainformer.artifacts import write_json
from domainformer.evaluation.comparison import FoldPrediction, evaluate_predictions
from domainformer.evaluation.contest.neural import SequenceModel
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.public_tasks import public_task
from domainformer.evaluation.sequence_baselines import TextSerialisation
from domainformer.training import FusionConfig

DATA = Path(os.environ.get("DOMAINFORMER_DATA", Path(_HERE).parents[1] / "shared" / "data"))


def the_task(args):
    """The task with one fold to be tested, and fewer examples to train on."""
    name = args.task if DATA.is_dir() else "simulated_order"
    task = public_task(name, DATA if DATA.is_dir() else None)
    rows = task.examples
    test = rows.filter(pl.col("fold") == task.folds[0])
    rest = rows.filter(pl.col("fold") != task.folds[0])
    if rest.height > args.train:
        rest = rest.sample(args.train, seed=0)
    kept = pl.concat([test, rest.with_columns(fold=pl.lit(-1, pl.Int64))]).sort("example")
    return replace(task, examples=kept)


def the_model(args):
    return SequenceModel(
        finetuning=FusionConfig(
            epochs=args.epochs,
            patience=2,
            context=args.context,
            batch_rows=32,
            threads=1,
            backbone={
                "overrides": {
                    "hidden_size": args.width,
                    "num_hidden_layers": args.layers,
                    "num_attention_heads": max(1, args.width // 32),
                    "position_encoding": "rope",
                    "dropout": 0.1,
                }
            },
            rates={"backbone": 1e-3, "tabular": 1e-3, "head": 1e-3},
        )
    )


def main():
    parser = argparse.ArgumentParser(description="Domain tokens against events as text.")
    parser.add_argument("task", nargs="?", default="credit_default")
    parser.add_argument("--context", type=int, default=96)
    parser.add_argument("--train", type=int, default=4000, help="most training examples")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--output", default=str(Path(_HERE) / "results" / "text_serialisation.json")
    )
    args = parser.parse_args()
    task, model = the_task(args), the_model(args)
    split = next(task.splits())
    predictions, facts = {"domain tokens": [], "text": []}, {}
    for seed in range(args.seeds):
        train, valid = inner_split(task, split, seed=seed)
        for name, one in (("domain tokens", model), ("text", TextSerialisation(model))):
            started, busy = time.perf_counter(), time.process_time()
            fitted = one.fit(task, train, valid, seed)
            values = fitted.predict(task, split.test.drop("label"))
            spent = time.perf_counter() - started
            predictions[name].append(FoldPrediction(split.fold, values, seed, spent))
            network = (fitted if name != "text" else fitted.fitted).predictors[0]
            facts[name] = {
                "parameters": network.model.num_parameters(),
                "epochs": len(network.record["losses"]),
                "processor_seconds": round(time.process_time() - busy, 1),
            }
            if name == "text":
                tokens = fitted.record
            print(f"seed {seed}, {name}: {spent:.0f} s", flush=True)
    found = evaluate_predictions(task, predictions, baselines=["text"])
    for name, key in (("domain tokens", "domain"), ("text", "text")):
        facts[name] |= tokens[key]
        facts[name]["events_in_context"] = args.context / tokens[key]["tokens_per_event"]
        facts[name]["figures"] = {k: v.mean for k, v in found.figures[name].items()}
        line = facts[name]
        shown = "  ".join(f"{k} {v:.4f}" for k, v in line["figures"].items() if k != "lift")
        print(
            f"{task.name:<22}{name:<15}{line['tokens_per_event']:6.1f} tokens/event "
            f"{line['vocabulary']:6d} entries {line['parameters']:9,d} parameters  {shown}"
        )
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    keep = {"settings": settings, "train": train.height, "test": split.test.height}
    result = keep | {"facts": facts, "comparison": found.to_json()}
    path = Path(args.output)
    everything = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, everything | {task.name: result})


if __name__ == "__main__":
    main()
