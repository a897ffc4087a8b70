"""What ``tokenize.py`` says in the end: rates, ratios, and the goals they are measured against."""

import platform
import statistics
from importlib import metadata
from importlib.util import find_spec


def summarise(found, seconds):
    rates = {name: found[name][0] / statistics.median(times) for name, times in seconds.items()}
    baselines = [
        name for name in rates if not name.startswith("domainformer") and "unique" not in name
    ]
    rows = []
    for name, rate in rates.items():
        row = {"method": name, "events": found[name][0], "events_per_second": rate}
        row["seconds"] = seconds[name]
        unique = name.endswith("all-unique text")
        against = ["encode_batch, all-unique text"] if unique else baselines
        row |= {f"times_{base}": rate / rates[base] for base in against}
        rows.append(row)
    return rows, baselines


def goals(rows, kernel, single):
    """What was to be shown: (goal, wanted, found)."""
    named = {row["method"]: row for row in rows}
    wanted = [
        ("domainformer, numpy", "encode_batch", 70),
        ("domainformer, fast", "encode_batch", 400),
        ("domainformer, fast, dictionary, warm", "encode_batch", 1000),
        ("domainformer, fast", "lifestream", 200),
        ("domainformer, fast", "tiktoken, text rows", 100),
    ]
    found = [
        (f"{name}, times {base}", f">= {least}", named[name][f"times_{base}"], least)
        for name, base, least in wanted
        if name in named and base in named
    ]
    verdicts = [(goal, text, value, value >= least) for goal, text, value, least in found]
    ceilings = [("one event, median µs", 10, single["known text"])]
    if kernel:
        ceilings.append(("kernel, times a memcpy of its bytes", 10, kernel["times_memcpy"]))
    verdicts += [(goal, f"<= {most}", value, value <= most) for goal, most, value in ceilings]
    return [
        {"goal": goal, "wanted": text, "found": value, "met": bool(met)}
        for goal, text, value, met in verdicts
    ]


def times(row, base):
    """Times a baseline, where the two had the same events."""
    return f"{row[f'times_{base}']:.1f}" if f"times_{base}" in row else "-"


def print_table(rows, baselines):
    print("method, events, events/s, seconds: median (min-max), then times each baseline")
    for index, base in enumerate(baselines, start=1):
        print(f"  ×{index} = {base}")
    header = f"{'method':48} {'events':>10} {'events/s':>12} {'seconds':>22}"
    print(header + "".join(f" {'×' + str(index + 1):>8}" for index in range(len(baselines))))
    for row in rows:
        took = row["seconds"]
        spread = f"{statistics.median(took):.3f} ({min(took):.3f}-{max(took):.3f})"
        print(
            f"{row['method']:48} {row['events']:>10,} {row['events_per_second']:>12,.0f} "
            f"{spread:>22}" + "".join(f" {times(row, base):>8}" for base in baselines)
        )
    for row in rows:
        if row["method"].startswith("domainformer") and "unique" in row["method"]:
            factor = row["times_encode_batch, all-unique text"]
            print(f"{row['method']}: {factor:.1f} times encode_batch on such text")


def environment():
    packages = ["numpy", "polars", "pyarrow", "tokenizers", "transformers", "numba", "tiktoken"]
    versions = {name: metadata.version(name) for name in packages if find_spec(name)}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def print_facts(facts):
    print(
        f"\nids bit-identical to the single-event path on {facts['checked_events']:,} events, and "
        "to both Hugging Face paths on their slices; "
        f"{facts['tokens_per_event']:.2f} tokens per event"
    )
    single = facts["microseconds_per_single_event"].items()
    shown = ", ".join(f"{value:.1f} ({name})" for name, value in single)
    print(f"one event, median µs: {shown}; fit: {facts['fit_seconds']:.2f} s")
    if kernel := facts["kernel"]:
        print(
            f"kernel: {kernel['kernel_ms']:.1f} ms for {kernel['bytes_in'] / 1e6:.0f} MB in and "
            f"{kernel['bytes_out'] / 1e6:.0f} MB out; copying as many bytes takes "
            f"{kernel['memcpy_ms']:.1f} ms (times {kernel['times_memcpy']:.1f}), a copy that reads "
            f"and writes as many in all {kernel['half_memcpy_ms']:.1f} ms "
            f"(times {kernel['times_half_memcpy']:.1f})"
        )
    memory = facts["peak_memory_mib"].items()
    print("peak memory, table included: " + ", ".join(f"{v:,.0f} MiB ({k})" for k, v in memory))
    print("\ngoals")
    for goal in facts["goals"]:
        mark = "met" if goal["met"] else "MISSED"
        print(f"  {goal['goal']:60} {goal['wanted']:>8} {goal['found']:>10.1f}  {mark}")
