"""What ``tokenize.py`` measures beside methods: one event, the kernel, peak memory."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from domainformer.data.store import id_dtype
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.encoder import Columns
from domainformer.tokenizers.kernels import Binned, Stepped, join
from domainformer.tokenizers.spans import field_spans, known_values


def single_events(schema, load, table):
    """Median microseconds of `encode_event`: text that was seen before, new text, no text."""
    events = table.frame.to_dicts()
    bare_schema = DomainSchema("bare", [f for f in schema.fields if f.name != "description"])
    known, bare = load(), DomainTokenizer(bare_schema).fit(table)
    for event in events:
        known.encode_event(event)
        bare.encode_event(event)
    new, seen = load(), set()
    fresh = [e for e in events if not (e["description"] in seen or seen.add(e["description"]))]
    cases = {
        "known text": (known.encode_event, events),
        "new text": (new.encode_event, fresh),
        "no text": (bare.encode_event, events),
    }
    return {name: _median(encode, given) for name, (encode, given) in cases.items()}


def _median(encode, events):
    times = []
    for event in events:
        start = time.perf_counter_ns()
        encode(event)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def kernel_and_memcpy(tokenizer, table, rounds):
    """The pass from columns to ids against memory copies, interleaved; medians in milliseconds.

    The kernel starts where strings have become codes: it reads the amounts, times and codes, and
    writes ids and offsets into memory that is new to the process. The copies are between buffers
    that are mapped already, which favours them.
    """
    layout, columns = tokenizer.layout, Columns.of(table, elapsed=False)
    dtype = id_dtype(tokenizer.vocab_size)
    spans = []
    for block in layout.blocks:
        column = columns.read_by(block.tokenizer)
        known = known_values(column)
        spans.append(field_spans(layout, block, column, dtype, known, compiled=True))
    joined = join(spans, table.n_events, dtype, compiled=True)
    n_in, n_out = _bytes_read(spans), joined.ids.nbytes + joined.offsets.nbytes
    source, target = np.ones(n_in + n_out, np.uint8), np.zeros(n_in + n_out, np.uint8)
    half = (n_in + n_out) // 2
    cases = {
        "kernel_ms": lambda: join(spans, table.n_events, dtype, compiled=True),
        "memcpy_ms": lambda: np.copyto(target, source),
        "half_memcpy_ms": lambda: np.copyto(target[:half], source[:half]),
    }
    times = {name: [] for name in cases}
    for _ in range(2 * rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1000)
    found = {name: statistics.median(values) for name, values in times.items()}
    return found | {
        "bytes_in": n_in,
        "bytes_out": n_out,
        "times_memcpy": found["kernel_ms"] / found["memcpy_ms"],
        "times_half_memcpy": found["kernel_ms"] / found["half_memcpy_ms"],
    }


def _bytes_read(spans):
    """Bytes of the columns, each counted once however many fields read it."""
    columns = {}
    for field in spans:
        source = field.codes
        if isinstance(source, Binned):
            source = source.numbers
        elif isinstance(source, Stepped):
            source = source.times
        columns[source.__array_interface__["data"][0]] = source.nbytes
    return sum(columns.values())


def peak_memory(script, parquet, folder, compiled):
    """MiB of a fresh process that reads the table and encodes it."""
    command = [sys.executable, script, "--peak-memory-of", str(parquet), str(folder)]
    done = subprocess.run(
        command + (["--compiled"] if compiled else []), check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def report_peak_memory(read, args):
    """What the fresh process prints."""
    parquet, folder = args.peak_memory_of
    encoded = DomainTokenizer.from_pretrained(folder).encode(read(parquet), compiled=args.compiled)
    assert encoded.n_tokens
    # Not getrusage: its peak includes that of the parent process before exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
