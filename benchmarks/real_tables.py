"""The main job on real tables, and one table of what came out.

    DOMAINFORMER_DATA=… python benchmarks/real_tables.py [name …] [--runs runs/real] [--seed 0]

For each table: `domainformer quickstart --data …` in a process of its own, then the figures of its
`evaluation.json` as Markdown (the lines of docs/results.md) and JSON in `benchmarks/results/`.
With --collect nothing is run: finished run folders are read.
"""

# ruff: noqa: E402 - the import path is mended before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]

import argparse
import json
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DOMAINFORMER_DATA", ROOT.parent / "shared" / "data"))
TABLES = {
    "birmingham": "--data finance/birmingham_cards_2014_2018.parquet --entity card --time date "
    "--validation-from 2016-11-01 --test-from 2017-02-01",
    "online_retail": "--data commerce/online_retail.parquet --entity customer_id --time timestamp",
    "physionet": "--data health/physionet2012_a_events.parquet --entity record_id --time minute "
    "--label in_hospital_death --label-table health/physionet2012_a_stays.parquet "
    "--set training.max_tokens=1500000",
    "credit_default": "--data finance/credit_default_events.parquet --entity client_id "
    "--time month --label default_next_month "
    "--label-table finance/credit_default_clients.parquet --set training.max_tokens=1500000",
}


def command(name: str, folder: Path, seed: int) -> list[str]:
    words = [
        str(DATA / word) if word.endswith(".parquet") else word for word in TABLES[name].split()
    ]
    return [
        *(sys.executable, "-m", "domainformer", "quickstart", *words),
        *("--seed", str(seed), "--output", str(folder / name), "--overwrite"),
    ]


def run(name: str, folder: Path, seed: int) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run(command(name, folder, seed), check=True, stdout=log, stderr=log)
    return time.perf_counter() - started


def collect(name: str, folder: Path) -> dict:
    record = json.loads((folder / name / "run.json").read_text())
    evaluation = json.loads((folder / name / "evaluation.json").read_text())
    contest = evaluation["next_event"]
    return {
        "table": name,
        "split": record["split"],
        "training": {k: record["results"].get(k) for k in ("steps", "tokens", "seconds")},
        "parameters": evaluation["subject"]["parameters"],
        "events_scored": contest["events"],
        "samples": contest["samples"],
        "slots": contest["slots"],
        "probe": evaluation["probe"],
    }


def markdown(result: dict) -> str:
    lines = [
        "| field | view | accuracy: model | popular | repeat last | log-loss: model | popular "
        "| repeat last | ahead of both |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for slot in result["slots"]:
        accuracy, loss = slot["accuracy"], slot["log_loss"]
        others = ("most_popular", "repeat_last")
        wins = all(accuracy["model"] > accuracy[o] and loss["model"] < loss[o] for o in others)
        name = f"{slot['field']}.{slot['part']}" if slot["part"] else slot["field"]
        cells = [
            f"**{name}**" if slot["kind"].startswith("categorical") else name,
            slot["view"].replace("_", " "),
            *(f"{accuracy[who]:.4f}" for who in ("model", *others)),
            *(f"{loss[who]:.4f}" for who in ("model", *others)),
            "yes" if wins else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if result["probe"]:
        lines += ["", "| probe | " + " | ".join(result["probe"]["figures"]) + " |"]
        lines.append("|---|" + "---|" * len(result["probe"]["figures"]))
        for metric in next(iter(result["probe"]["figures"].values())):
            cells = [
                f"{row[metric]['value']:.4f} [{row[metric]['low']:.4f}, {row[metric]['high']:.4f}]"
                for row in result["probe"]["figures"].values()
            ]
            lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TABLES))
    parser.add_argument("--runs", type=Path, default=Path("runs/real"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--collect", action="store_true")
    options = parser.parse_args()
    output = ROOT / "benchmarks" / "results" / "real_tables.json"
    output.parent.mkdir(exist_ok=True)
    for name in options.names:
        seconds = None if options.collect else run(name, options.runs, options.seed)
        result = collect(name, options.runs)
        results = json.loads(output.read_text()) if output.is_file() else {}
        result["wall_seconds"] = seconds or results.get(name, {}).get("wall_seconds")
        results[name] = result
        output.write_text(json.dumps(results, indent=1) + "\n")
        shown = f"{result['wall_seconds']:.0f} s" if result["wall_seconds"] else "?"
        print(f"\n## {name} (seed {options.seed}, {shown} in all, {result['training']})\n")
        print(markdown(result), flush=True)


if __name__ == "__main__":
    main()
