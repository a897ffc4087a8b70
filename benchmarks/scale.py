"""Tables larger than memory: time and peak memory of fitting and encoding at four sizes.

    python benchmarks/scale.py [--events 200000000] [--workers 1] [--folder /big/disk]

Simulated card payments are written to Parquet file by file, each a stretch of time in which all
clients are mixed, so that every client's events lie in every file. At a quarter of a quarter, an
eighth, … of ``--events``, and at ``--events`` themselves, three subprocesses fit a tokenizer (a
schema without elapsed time, which reads the files as they lie; and one with it, which groups them
by client) and encode the table into a store. Their memory, children included, is sampled: the sum
of the proportional set sizes, where pages that processes share count once. The exponent is the
slope of log seconds over log events. Prints one table and writes benchmarks/results/scale.json.
"""

# ruff: noqa: E402 - the import path and threads are set before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
for _name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import platform
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KEYS = {"entity": "client_id", "time": "timestamp"}
STEPS = ("fit", "fit_elapsed", "tokenize")
GOALS = {"peak_mib": 2048, "exponent": 1.05, "events_per_second": 1_500_000}
FILE_EVENTS, GROUP_EVENTS, EVENTS_PER_CLIENT = 2_000_000, 1 << 18, 60
N_CATEGORIES, N_MERCHANTS = 40, 20_000
START, SPAN = 1_640_995_200_000_000, 731 * 86_400_000_000
# Files, runs, shards and store together, in bytes an event, with some room.
DISK_PER_EVENT = 200


def simulate_files(folder, events):
    """Write payments of events / 60 clients, file after file; memory does not grow."""
    folder.mkdir(parents=True)
    count = max(1, round(events / FILE_EVENTS))
    bounds = np.linspace(0, events, count + 1).astype(np.int64)
    categories = pa.array([f"category {i}" for i in range(N_CATEGORIES)])
    merchants = pa.array(
        [
            f"merchant {i:05d} of {('north', 'south', 'east')[i % 3]} street"
            for i in range(N_MERCHANTS)
        ]
    )
    for index in range(count):
        rng = np.random.default_rng([7, index])
        path = folder / f"part-{index:04d}.parquet"
        writer = None
        span = (START + SPAN * index // count, START + SPAN * (index + 1) // count)
        size = int(bounds[index + 1] - bounds[index])
        times = np.sort(rng.integers(*span, size))
        for begin in range(0, size, GROUP_EVENTS):
            stamps = times[begin : begin + GROUP_EVENTS]
            table = payments(rng, stamps, events // EVENTS_PER_CLIENT, categories, merchants)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
        writer.close()


def payments(rng, stamps, clients, categories, merchants):
    n = len(stamps)
    # Some clients pay much more often than others, and some merchants are paid more often.
    who = (clients * rng.random(n) ** 1.3).astype(np.int64)
    ids = pc.binary_join_element_wise("C", pc.utf8_lpad(pa.array(who).cast("string"), 9, "0"), "")
    amounts = np.round(rng.lognormal(3, 1.2, n), 2) * np.where(rng.random(n) < 0.9, -1, 1)
    category = (N_CATEGORIES * rng.random(n) ** 2).astype(np.int32)
    merchant = (N_MERCHANTS * rng.random(n) ** 2.5).astype(np.int32)
    return pa.table(
        {
            "client_id": ids,
            "timestamp": pa.array(stamps, pa.timestamp("us")),
            "amount": pa.array(amounts, mask=rng.random(n) < 0.003),
            "category": pa.DictionaryArray.from_arrays(pa.array(category), categories),
            "description": pa.DictionaryArray.from_arrays(pa.array(merchant), merchants),
        }
    )


def schema_of(*, elapsed):
    from domainformer.schema import DomainSchema, FieldSpec

    return DomainSchema(
        "payments",
        [
            FieldSpec("amount_sign", "sign", column="amount"),
            FieldSpec("amount", "numerical_continuous"),
            FieldSpec("timestamp", "temporal", elapsed_bins=16 if elapsed else 0),
            FieldSpec("category", "categorical_fixed"),
            FieldSpec("description", "text"),
        ],
    )


def step(name, source, folder, workers, memory):
    """One measured step, in a process of its own; prints what its stages took."""
    from domainformer.distributed import fit_files, tokenize_files
    from domainformer.tokenizers import DomainTokenizer

    started, stages = time.perf_counter(), {}

    def note(report):
        stages[report.stage] = round(report.seconds, 2)

    options = {**KEYS, "workers": workers, "memory": memory, "progress": note}
    if name == "tokenize":
        tokenizer = DomainTokenizer.from_pretrained(folder / "fit")
        store = tokenize_files(source, tokenizer, folder / "store", **options)
        found = {"events": store.n_events, "tokens": store.n_tokens, "shards": len(store.shards)}
    else:
        schema = schema_of(elapsed=name == "fit_elapsed")
        work = {"work": folder / "work"} if name == "fit_elapsed" else {}
        tokenizer = fit_files(source, schema, **options, **work)
        tokenizer.save_pretrained(folder / name)
        found = {"vocabulary": tokenizer.vocab_size}
    seconds = time.perf_counter() - started
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(each.ru_utime + each.ru_stime for each in usage)
    times = {"seconds": round(seconds, 2), "processor_seconds": round(processor, 2)}
    print(json.dumps({**found, **times, "stages": stages}), flush=True)


class PeakMemory(threading.Thread):
    """Samples the memory of a process and its descendants, and keeps the greatest sum."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            self.peak = max(self.peak, sum(map(proportional_size, family(self.pid))))


def family(pid):
    pids = [pid]
    for each in pids:
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return pids


def proportional_size(pid):
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def measure(name, source, folder, options):
    command = [sys.executable, __file__, "--step", name, "--source", str(source)]
    command += ["--folder", str(folder), "--workers", str(options.workers)]
    command += ["--memory", options.memory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        sampler = PeakMemory(process.pid)
        sampler.start()
        output = process.stdout.read()
        code = process.wait()
        sampler.ended.set()
    if code:
        raise SystemExit(f"{name} failed")
    return {**json.loads(output), "peak_mib": round(sampler.peak / 1024)}


def exponent(sizes, seconds):
    """The slope of log seconds over log events."""
    return round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 3)


def run(options):
    sizes = [options.events // 8, options.events // 4, options.events // 2, options.events]
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="scale-") as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        if free < options.events * DISK_PER_EVENT:
            raise SystemExit(f"{free / 1e9:.0f} GB are free: take fewer events")
        for size in sizes:
            place = folder / str(size)
            started = time.perf_counter()
            simulate_files(place / "in", size)
            row = {"events": size, "generated_seconds": round(time.perf_counter() - started, 1)}
            row["input_bytes"] = sum(f.stat().st_size for f in (place / "in").iterdir())
            for name in STEPS:
                row[name] = measure(name, place / "in", place, options)
                shutil.rmtree(place / "work", ignore_errors=True)
            rows.append(row)
            show(row)
            shutil.rmtree(place)
    return rows


def show(row):
    cells = [f"{row['events']:>12,}"]
    for name in STEPS:
        found = row[name]
        rate = row["events"] / found["seconds"] / 1e6
        cells.append(f"{name} {found['seconds']:8.1f} s {rate:5.2f} M/s {found['peak_mib']:5} MiB")
    print("  ".join(cells), flush=True)


def summary(rows):
    sizes = [row["events"] for row in rows]
    marginal = {}
    for name in STEPS:
        seconds = [row[name]["seconds"] for row in rows]
        # Between the two largest sizes: imports and training of merges, which are fixed, cancel.
        marginal[name] = round((sizes[-1] - sizes[-2]) / max(seconds[-1] - seconds[-2], 1e-9))
    # Processor time says what the code costs where other jobs share the machine.
    spent = {name: [row[name]["processor_seconds"] for row in rows] for name in STEPS}
    return {
        "exponent": {name: exponent(sizes, [r[name]["seconds"] for r in rows]) for name in STEPS},
        "processor_exponent": {name: exponent(sizes, spent[name]) for name in STEPS},
        "peak_mib": {name: max(row[name]["peak_mib"] for row in rows) for name in STEPS},
        "marginal_events_per_second": marginal,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--output", type=Path, default=Path(_HERE) / "results" / "scale.json")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step, options.source, options.folder, options.workers, options.memory)
        return
    rows = run(options)
    found = summary(rows)
    print(json.dumps(found, indent=2))
    from domainformer.artifacts import write_json

    options.output.parent.mkdir(exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    settings = {"workers": options.workers, "memory": options.memory}
    write_json(
        options.output,
        {"goals": GOALS, "machine": machine, **settings, "rows": rows, "summary": found},
    )


if __name__ == "__main__":
    main()
