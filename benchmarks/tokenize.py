"""How fast events become ids: domainformer against Hugging Face, the sketch, and lifestream.

    python benchmarks/tokenize.py                            # 2,000,000 events, 5 rounds
    python benchmarks/tokenize.py --events 200000 --rounds 2  # a quick look
    pip install --no-deps --target /tmp/lifestream pytorch-lifestream==0.6.0
    python benchmarks/tokenize.py --lifestream /tmp/lifestream

The table: sign, 21 magnitude bins, month, weekday, day and hour, a 300-way category, and a text
with 20,000 distinct strings, as plain string columns. All methods run on one thread in one
interleaved run (round by round, each method once), and every repetition is cold unless said:
tokenizers are loaded anew, so no text or dictionary is remembered. Compilation by numba and
imports happen before.

- ``domainformer, numpy``: no extra installed. ``+ tiktoken``: distinct texts by tiktoken. ``fast``:
  the whole extra (numba and tiktoken). ``warm``: the tokenizer has seen the table. ``dictionary``:
  the two string columns are dictionary columns (Categorical), as Parquet and Arrow keep them.
- ``encode_batch``: the rendered strings, built column-wise by polars, and Hugging Face's
  ``Tokenizer.encode_batch`` on them; building is part of the time.
- ``tiktoken, text rows``: each event as a line of text, encoded by a tiktoken vocabulary of 32,768
  that was trained on such lines; building them (by polars) is part of the time.
- ``sketch``: the decision record's design: an object per event, whose fields make token strings,
  joined (without blanks, which favours it: each blank would be a token) and sent through
  ``PreTrainedTokenizerFast`` event by event.
- ``lifestream``: ``PandasDataPreprocessor.fit_transform`` on the table as it is (category and text
  as codes, the amount as a number); ``same fields``: on the eight fields that our tokens show.
- ``… all-unique text``: the same table, but no string occurs twice, so nothing can be shared.

Slow methods run on a slice of whole entities; their rate is that of the slice. Ids are checked bit
by bit: all events against the single-event path, the slices against what Hugging Face gave. The
cases beside the table of methods (one event, the kernel and a memory copy, peak memory) are in
``tokenize_cases.py``; the goals that all this is measured against are printed last
(``tokenize_report.py``).

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
import tempfile
import time
import warnings
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from tokenize_baselines import (
    Sketch,
    TextRows,
    encode_batch,
    lifestream,
    lifestream_same_fields,
)
from tokenize_cases import kernel_and_memcpy, peak_memory, report_peak_memory, single_events
from tokenize_report import environment, goals, print_facts, print_table, summarise

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
FAST = bool(find_spec("numba") and find_spec("tiktoken"))
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


def as_table(frame):
    return EventTable.of(frame, entity="client", time="timestamp")


def read(path):
    return as_table(pl.read_parquet(path))


def all_unique(table):
    """The same events, each with a description of its own."""
    numbered = pl.concat_str("description", pl.lit(" "), pl.int_range(pl.len()))
    return as_table(table.frame.with_columns(numbered.alias("description")))


def dictionaries(table):
    """The same events with dictionary columns instead of strings."""
    return as_table(
        table.frame.with_columns(pl.col("category", "description").cast(pl.Categorical))
    )


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
    """Name → (events in it, what to prepare, what to time)."""
    found = ours(folder, table)
    small, tiny = entities(table, args.batch_slice), entities(table, args.sketch_slice)
    found["encode_batch"] = (
        small.n_events,
        lambda: load(folder, tiktoken=False),
        lambda tokenizer: encode_batch(tokenizer, small),
    )
    if find_spec("tiktoken"):
        rows = TextRows(small.frame)
        found["tiktoken, text rows"] = (small.n_events, lambda: small.frame, rows)
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
    return found | unique_methods(args, folder, table)


def ours(folder, table):
    """Our own ways, from the default install to everything warm."""

    def cold(table, *, tiktoken, compiled):
        return (
            table.n_events,
            lambda: load(folder, tiktoken=tiktoken),
            lambda tokenizer: tokenizer.encode(table, compiled=compiled),
        )

    found = {"domainformer, numpy": cold(table, tiktoken=False, compiled=False)}
    if find_spec("tiktoken"):
        found["domainformer, numpy + tiktoken"] = cold(table, tiktoken=True, compiled=False)
    if FAST:
        coded = dictionaries(table)
        warm = load(folder, tiktoken=True)
        warm.encode(table, compiled=True)
        found["domainformer, fast"] = cold(table, tiktoken=True, compiled=True)
        found["domainformer, fast, dictionary"] = cold(coded, tiktoken=True, compiled=True)
        for name, given in (("warm", table), ("dictionary, warm", coded)):
            encode = partial(warm.encode, given, compiled=True)
            found[f"domainformer, fast, {name}"] = (
                table.n_events,
                lambda: None,
                lambda _, encode=encode: encode(),
            )
    return found


def unique_methods(args, folder, table):
    """All-unique text: whole for the compiled path, slices for the others."""
    unique = all_unique(table)
    small = entities(unique, args.batch_slice)
    suffix = ", all-unique text"
    found = {}
    for name, (_, prepare, _) in ours(folder, small).items():
        if "warm" in name or "dictionary" in name:
            continue
        given, compiled = (unique, True) if name.endswith("fast") else (small, False)
        run = partial(encode, table=given, compiled=compiled)
        found[name + suffix] = (given.n_events, prepare, run)
    found["encode_batch" + suffix] = (
        small.n_events,
        lambda: load(folder, tiktoken=False),
        lambda tokenizer: encode_batch(tokenizer, small),
    )
    return found


def encode(tokenizer, table, compiled):
    return tokenizer.encode(table, compiled=compiled)


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
    first = results["domainformer, numpy"]
    unique = {name: found for name, found in results.items() if name.endswith("unique text")}
    for name, encoded in results.items():
        if name.startswith("domainformer") and name not in unique and encoded != first:
            raise SystemExit(f"{name} gives other ids")
    offsets = first.event_offsets
    ids = first.ids[: offsets[min(n_checked, table.n_events)]].tolist()
    reference = []
    for event in table.frame.head(n_checked).iter_rows(named=True):
        reference += tokenizer.encode_event(event)
    if reference != ids:
        raise SystemExit("the single-event path gives other ids")
    for name in ("encode_batch", "sketch"):
        check_rows(name, results[name], first)
    for name, encoded in unique.items():
        if name.startswith("domainformer"):
            check_rows(name, results["encode_batch, all-unique text"], encoded)
    return min(n_checked, table.n_events), first.n_tokens / first.n_events


def check_rows(name, rows, encoded):
    """Rows of ids from Hugging Face against the first events of ours."""
    flat = [token for row in rows for token in row]
    if flat != encoded.ids[: encoded.event_offsets[len(rows)]].tolist():
        raise SystemExit(f"{name} gives other ids")


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
        report_peak_memory(read, args)
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
    some = entities(table, 1_000)
    for warm in (some, all_unique(some), dictionaries(some)):
        for compiled in (False, True) if FAST else (False,):
            load(folder, tiktoken=True).encode(warm, compiled=compiled)
    seconds, results = measure(found, args.rounds)
    checked, tokens_per_event = check(tokenizer, table, results, args.check_events)
    results.clear()
    single = single_events(SCHEMA, lambda: load(folder, tiktoken=FAST), entities(table, 20_000))
    kernel = kernel_and_memcpy(tokenizer, table, args.rounds) if FAST else None
    memory = {"numpy": peak_memory(__file__, parquet, folder, compiled=False)}
    if FAST:
        memory["fast"] = peak_memory(__file__, parquet, folder, compiled=True)
    rows, baselines = summarise(found, seconds)
    facts = {
        "methods": rows,
        "goals": goals(rows, kernel, single),
        "checked_events": checked,
        "tokens_per_event": tokens_per_event,
        "microseconds_per_single_event": single,
        "kernel": kernel,
        "fit_seconds": fit_seconds,
        "peak_memory_mib": memory,
        "vocab_size": tokenizer.vocab_size,
        "environment": environment(),
    }
    print_table(rows, baselines)
    print_facts(facts)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"\n{args.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
