"""How fast events become ids: domainformer against Hugging Face, the sketch, and lifestream.

    python benchmarks/tokenize.py                            # 2,000,000 events, 5 rounds
    python benchmarks/tokenize.py --events 200000 --rounds 2  # a quick look
    pip install --no-deps --target /tmp/lifestream pytorch-lifestream==0.6.0
    python benchmarks/tokenize.py --lifestream /tmp/lifestream

The table: sign, 21 magnitude bins, month, weekday, day and hour, a 300-way category, and a text
with 20,000 distinct strings, as plain string columns. All methods run on one thread in one
interleaved run (round by round, each method once), every repetition cold: tokenizers are loaded
anew, so no text or dictionary is remembered. Compilation by numba and imports happen before.

- ``domainformer, numpy``: no extra installed. ``+ tiktoken``, ``+ numba``: the extra ``fast``.
- ``encode_batch``: the rendered strings, built column-wise by polars, and Hugging Face's
  ``Tokenizer.encode_batch`` on them; building is part of the time.
- ``sketch``: the decision record's design: an object per event, whose fields make token strings,
  joined (without blanks, which favours it: each blank would be a token) and sent through
  ``PreTrainedTokenizerFast`` event by event.
- ``lifestream``: ``PandasDataPreprocessor.fit_transform`` on the table as it is (category and text
  as codes, the amount as a number); ``same fields``: on the eight fields that our tokens show.

Slow methods run on a slice of whole entities; their rate is that of the slice. Ids are checked bit
by bit: all events against the single-event path, the slices against what Hugging Face gave.
Peak memory is that of a process of its own that reads the Parquet file and encodes it.

A script called ``tokenize.py`` shadows the standard library's module of that name, so that one is
imported first of all, before this folder is on the import path.
"""

# ruff: noqa: E402 - threads are set before anything that starts some is imported

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_others = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
sys.path[:] = _others
import tokenize  # noqa: F401 - the standard library's

sys.path[:] = [*_others, _HERE]
for _name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from tokenize_baselines import Sketch, encode_batch, lifestream, lifestream_same_fields

from domainformer.data import EventTable
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

pa.set_cpu_count(1)
pa.set_io_thread_count(1)

SCHEMA = DomainSchema(
    "transactions",
    [
        FieldSpec("category", "categorical_fixed"),
        FieldSpec("direction", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=21),
        FieldSpec("timestamp", "temporal"),
        FieldSpec("description", "text"),
    ],
)
N_CATEGORIES, N_TEXTS, EVENTS_PER_CLIENT = 300, 20_000, 100
RESULTS = Path(_HERE) / "results" / "tokenize.json"


# ── the table ─────────────────────────────────────────────────────────────────────────────────


def simulate(n_events, seed=0):
    """Transactions with 300 categories and exactly 20,000 distinct descriptions."""
    rng = np.random.default_rng(seed)
    n_clients = max(1, n_events // EVENTS_PER_CLIENT)
    n_events = n_clients * EVENTS_PER_CLIENT
    chains = ["TESCO STORES", "SHELL", "AMAZON MKTPLACE", "COSTA COFFEE", "TFL TRAVEL", "BOOTS"]
    towns = ["LONDON", "LEEDS", "YORK", "BATH", "CARDIFF", "OXFORD", "DERBY"]
    texts = pl.Series([f"{chains[i % 6]} {i:05d} {towns[i % 7]} GB" for i in range(N_TEXTS)])
    popularity = 1 / np.arange(1, N_TEXTS + 1) ** 0.7
    text = rng.choice(N_TEXTS, n_events, p=popularity / popularity.sum())
    text[: min(N_TEXTS, n_events)] = np.arange(min(N_TEXTS, n_events))
    category = pl.Series([f"category {i}" for i in range(N_CATEGORIES)])
    span = 3 * 365 * 86_400
    seconds = np.sort(rng.integers(0, span, (n_clients, EVENTS_PER_CLIENT)), axis=1).ravel()
    amount = np.round(rng.lognormal(3, 1.2, n_events), 2) * rng.choice([-1, -1, -1, 1], n_events)
    start = 1_609_459_200
    return pl.DataFrame(
        {
            "client": np.repeat(np.arange(n_clients), EVENTS_PER_CLIENT),
            "timestamp": pl.Series((start + seconds) * 1_000_000).cast(pl.Datetime("us")),
            "amount": amount,
            "category": category.gather(rng.integers(0, N_CATEGORIES, n_events)),
            "description": texts.gather(text),
        }
    )


def read(path):
    return EventTable.of(pl.read_parquet(path), entity="client", time="timestamp")


@contextmanager
def without(module):
    """Import errors for a module, as where it is not installed."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name == module}
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(kept)


def load(folder, *, tiktoken):
    if tiktoken:
        return DomainTokenizer.from_pretrained(folder)
    with without("tiktoken"):
        return DomainTokenizer.from_pretrained(folder)


# ── measuring ─────────────────────────────────────────────────────────────────────────────────


def methods(args, folder, table):
    """Name → (events in it, what to prepare cold, what to time)."""
    small, tiny = entities(table, args.batch_slice), entities(table, args.sketch_slice)
    found = {}

    def ours(name, *, tiktoken, compiled):
        found[name] = (
            table.n_events,
            lambda: load(folder, tiktoken=tiktoken),
            lambda tokenizer: tokenizer.encode(table, compiled=compiled),
        )

    ours("domainformer, numpy", tiktoken=False, compiled=False)
    if find_spec("tiktoken"):
        ours("domainformer, numpy + tiktoken", tiktoken=True, compiled=False)
    if find_spec("numba"):
        ours("domainformer, numba", tiktoken=False, compiled=True)
    if find_spec("tiktoken") and find_spec("numba"):
        ours("domainformer, numba + tiktoken", tiktoken=True, compiled=True)
    found["encode_batch"] = (
        small.n_events,
        lambda: load(folder, tiktoken=False),
        lambda tokenizer: encode_batch(tokenizer, small),
    )
    found["sketch"] = (
        tiny.n_events,
        lambda: Sketch(load(folder, tiktoken=False)),
        lambda sketch: sketch(tiny),
    )
    if args.lifestream is not None:
        sys.path.append(args.lifestream)
        part = entities(table, args.lifestream_slice)
        pandas = part.frame.to_pandas
        edges = next(f for f in load(folder, tiktoken=True).fields if f.kind == "magnitude").edges
        found["lifestream"] = (part.n_events, pandas, lifestream)
        found["lifestream, same fields"] = (
            part.n_events,
            pandas,
            lambda frame: lifestream_same_fields(frame, edges),
        )
    return found


def entities(table, n_events):
    """The first entities that have about so many events."""
    count = int(np.searchsorted(table.offsets, min(n_events, table.n_events), side="left"))
    return table.take_entities(np.arange(max(1, count)))


def measure(found, rounds):
    """Seconds of every method, round by round, and what each gave the last time."""
    seconds, results = {name: [] for name in found}, {}
    for index in range(rounds):
        for name, (_, prepare, run) in found.items():
            prepared = prepare()
            results.pop(name, None)
            start = time.perf_counter()
            results[name] = run(prepared)
            seconds[name].append(time.perf_counter() - start)
        print(f"round {index + 1} of {rounds} done", file=sys.stderr)
    return seconds, results


def check(tokenizer, table, results, n_checked):
    """Every path's ids against the single-event path; raises where a bit differs."""
    ours = {name: ids for name, ids in results.items() if name.startswith("domainformer")}
    first = next(iter(ours.values()))
    for name, encoded in ours.items():
        if encoded != first:
            raise SystemExit(f"{name} gives other ids")
    offsets = first.event_offsets
    ids = first.ids[: offsets[min(n_checked, table.n_events)]].tolist()
    reference = []
    for event in table.frame.head(n_checked).iter_rows(named=True):
        reference += tokenizer.encode_event(event)
    if reference != ids:
        raise SystemExit("the single-event path gives other ids")
    for name in ("encode_batch", "sketch"):
        rows = results[name]
        flat = [token for row in rows for token in row]
        if flat != first.ids[: offsets[len(rows)]].tolist():
            raise SystemExit(f"{name} gives other ids")
    return min(n_checked, table.n_events), first.n_tokens / first.n_events


def microseconds_per_event(tokenizer, table, n=20_000):
    """One event at a time: with a text that was seen before, and with no text at all."""
    events = table.frame.head(n).to_dicts()
    bare_schema = DomainSchema("bare", [f for f in SCHEMA.fields if f.name != "description"])
    bare = DomainTokenizer(bare_schema).fit(entities(table, n))
    found = {}
    for name, encode in (("with text", tokenizer.encode_event), ("without", bare.encode_event)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            for event in events:
                encode(event)
            times.append((time.perf_counter() - start) / len(events) * 1e6)
        found[name] = min(times)
    return found


def peak_memory(parquet, folder, compiled):
    """MiB of a fresh process that reads the table and encodes it."""
    command = [sys.executable, __file__, "--peak-memory-of", str(parquet), str(folder)]
    done = subprocess.run(
        command + (["--compiled"] if compiled else []), check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def report_peak_memory(args):
    parquet, folder = args.peak_memory_of
    encoded = DomainTokenizer.from_pretrained(folder).encode(read(parquet), compiled=args.compiled)
    assert encoded.n_tokens
    # Not getrusage: its peak includes that of the parent process before exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


# ── the report ────────────────────────────────────────────────────────────────────────────────


def summarise(found, seconds):
    rates = {name: found[name][0] / statistics.median(times) for name, times in seconds.items()}
    baselines = [name for name in rates if not name.startswith("domainformer")]
    rows = []
    for name, rate in rates.items():
        row = {"method": name, "events": found[name][0], "events_per_second": rate}
        row["seconds"] = seconds[name]
        row |= {f"times_{base}": rate / rates[base] for base in baselines}
        rows.append(row)
    return rows, baselines


def print_table(rows, baselines):
    print("method, events, events/s, seconds: median (min-max), then times each baseline")
    for index, base in enumerate(baselines, start=1):
        print(f"  ×{index} = {base}")
    header = f"{'method':32} {'events':>10} {'events/s':>12} {'seconds':>22}"
    print(header + "".join(f" {'×' + str(index + 1):>8}" for index in range(len(baselines))))
    for row in rows:
        times = row["seconds"]
        spread = f"{statistics.median(times):.3f} ({min(times):.3f}-{max(times):.3f})"
        print(
            f"{row['method']:32} {row['events']:>10,} {row['events_per_second']:>12,.0f} "
            f"{spread:>22}" + "".join(f" {row[f'times_{base}']:>8.1f}" for base in baselines)
        )


def environment():
    packages = ["numpy", "polars", "pyarrow", "tokenizers", "transformers", "numba", "tiktoken"]
    versions = {name: metadata.version(name) for name in packages if find_spec(name)}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-slice", type=int, default=100_000)
    parser.add_argument("--sketch-slice", type=int, default=20_000)
    parser.add_argument("--lifestream", help="folder that holds pytorch-lifestream 0.6.0")
    parser.add_argument("--lifestream-slice", type=int, default=2_000_000)
    parser.add_argument("--check-events", type=int, default=2_000_000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--peak-memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.peak_memory_of:
        report_peak_memory(args)
        return
    with tempfile.TemporaryDirectory() as workspace:
        run(args, Path(workspace))


def run(args, workspace):
    parquet, folder = workspace / "events.parquet", workspace / "tokenizer"
    simulate(args.events).write_parquet(parquet)
    table = read(parquet)
    start = time.perf_counter()
    tokenizer = DomainTokenizer(SCHEMA).fit(table)
    fit_seconds = time.perf_counter() - start
    tokenizer.save_pretrained(folder)
    found = methods(args, folder, table)
    warm = entities(table, 1_000)
    for compiled in (False, True) if find_spec("numba") else (False,):
        load(folder, tiktoken=True).encode(warm, compiled=compiled)
    seconds, results = measure(found, args.rounds)
    checked, tokens_per_event = check(tokenizer, table, results, args.check_events)
    results.clear()
    single = microseconds_per_event(tokenizer, table)
    memory = {"numpy": peak_memory(parquet, folder, compiled=False)}
    if find_spec("numba"):
        memory["numba"] = peak_memory(parquet, folder, compiled=True)
    rows, baselines = summarise(found, seconds)
    print_table(rows, baselines)
    print(
        f"\nids bit-identical to the single-event path on {checked:,} events, and to both Hugging "
        f"Face paths on their slices; {tokens_per_event:.2f} tokens per event\n"
        f"one event at a time: {single['without']:.1f} µs without text, "
        f"{single['with text']:.1f} µs with a known text; fit: {fit_seconds:.2f} s\n"
        "peak memory, table included: "
        + ", ".join(f"{mib:,.0f} MiB ({name})" for name, mib in memory.items())
    )
    facts = {
        "methods": rows,
        "checked_events": checked,
        "tokens_per_event": tokens_per_event,
        "microseconds_per_single_event": single,
        "fit_seconds": fit_seconds,
        "peak_memory_mib": memory,
        "vocab_size": tokenizer.vocab_size,
        "environment": environment(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"\n{args.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
