"""A million rows of the worst a table can hold, through every path of a tokenizer.

    python benchmarks/fuzz.py [--rows 1000000] [--seed 0] [--chunk 20000]

Every kind of field reads nulls, infinities, negative zero, NaN, subnormal numbers, dates from the
year 1 to 9999 in several zones and units, 10 kB of text, lone surrogates, control characters,
U+E000, labels and texts that look like tokens, and entities whose semantic ids collide. Each chunk
has its own random schema, is fitted on some of its entities (and now and then extended), and then
checked row by row on all of them: ids in the ranges of their own fields, equal on all paths (plain
and compiled columns, single events, Hugging Face on the rendered string), true of their values, and
back again. Rows with lone surrogates, which no column can hold, go through the single-event path.
Prints one line and writes benchmarks/results/fuzz.json.
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
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import platform
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl

from domainformer.artifacts import write_json
from domainformer.data import EventTable
from domainformer.errors import DomainformerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import (
    DomainTokenizer,
    SemanticIdTokenizer,
    extend,
    validate_tokenizer,
)
from domainformer.tokenizers.inspection.sample import Positions

# ── what a table can hold ─────────────────────────────────────────────────────────────────────

TINY = 2.2250738585072014e-308  # the smallest normal double; below it lie the subnormals
NUMBERS = [
    *(0.0, -0.0, 1.0, -1.0, 0.1, 0.99, -0.01, 1e-300, 1e300, 1.7976931348623157e308),
    *(float("inf"), float("-inf"), float("nan"), TINY, TINY / 2, 5e-324, -5e-324, -TINY),
    *(2.0**53, 2.0**53 + 2, -(2.0**63), 2.0**63, 2.0**64, 1e19, 0.5, 1.5, 2.5, 65536.0),
]
WHOLE = [0, 1, -1, 2, 7, -(2**63), 2**63 - 1, 2**53 + 1, 65535, 65536, -65537, 10**18]
TOKENS = [
    *("[PAD]", "[BOS]", "[EOS]", "[UNK]", "[PAD][PAD]", "[[PAD]]", "[BOS]shop[EOS]", "[PAD"),
    *("[AMOUNT=B03]", "[AMOUNT=B03", "[AMOUNT_MISSING]", "[SIGN=NEG]", "[KIND_UNK]", "[NOTE]"),
    *("[SHOP]", "[KIND_MISSING]", "[AT_MONTH=01]", "[KIND=a]", "[SHOP_HASH=01]", "[WHOLE=1]"),
    *("[\ue000PAD]", "\ue000", "\ue000\ue000[PAD]\ue000", "\\ue000", "[KIND=%5BPAD%5D]", "%5D"),
]
LABELS = [
    *TOKENS,
    *("", " ", "  ", "a", "A", "b", "null", "None", "nan", "NaN", "inf", "0", "-0", "0.0", "3"),
    *("3.0", "03", "true", "True", "é", "e\u0301", "ﬁ", "fi", "ß", "SS", "İ", "i̇", "\u00a0"),
    *("\t", "\n", "\r\n", "\x00", "\x07", "\x1b[31m", "\x7f", "\u200b", "\u202e", "\ufeff"),
    *("\ufffd", "\uffff", "\U0010ffff", "日本語", "مرحبا", "שלום", "👩‍👩‍👧‍👦", "🏳️‍🌈", "50% off"),
]
LONG = [
    *("a" * 10_000, " " * 10_000, "\n" * 10_000, "[" * 10_000, "]" * 10_000, "[]" * 5_000),
    *("[PAD]" * 2_000, "\ue000" * 10_000, "[\ue000" * 5_000, "0" * 10_000, "a1 " * 3_300),
    *("'" * 10_000, "é" * 5_000, "e" + "\u0301" * 5_000, "😀" * 2_500, "\x00" * 10_000),
    "👩‍👩‍👧 " * 1_000,
    *("[KIND=a]\t" * 1_000, "zażółć gęślą jaźń " * 550, "word " * 2_000, "\U0010ffff" * 2_500),
]
SURROGATES = ["\ud800", "\udfff", "a\ud83d", "\ude00[PAD]", "[PAD\udc00]", "\ud800" * 100]
ZONES = [None, "UTC", "Europe/London", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"]
CHANNELS = ("cards", "app [PAD]", "é\t")
DAY = 86_400_000_000
FIRST_DAY, LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, days since 1970-01-01


def random_text(generator, longest=24):
    """Characters of any plane but the surrogates, of which UTF-8 has none."""
    planes = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)]
    low, high = planes[generator.integers(len(planes))]
    codes = generator.integers(low, high, generator.integers(longest))
    return "".join(map(chr, codes.tolist()))


def pool(generator, fixed, fresh):
    return [*fixed, *(random_text(generator) for _ in range(fresh))]


def picked(generator, values, rows, nulls):
    """A column of values drawn with repetition, null at random."""
    chosen = generator.integers(len(values), size=rows).tolist()
    absent = (generator.random(rows) < nulls).tolist()
    return [None if gone else values[i] for i, gone in zip(chosen, absent, strict=True)]


def texts(generator, rows, nulls):
    words = pool(generator, LABELS, 200)
    column = picked(generator, words, rows, nulls)
    for row in generator.integers(rows, size=rows // 2).tolist():
        joined = generator.choice(words, generator.integers(1, 5)).tolist()
        column[row] = generator.choice(["", " ", "\t"]).join(joined)
    first = generator.integers(len(LONG))
    for number, row in enumerate(generator.integers(rows, size=max(1, rows // 500)).tolist()):
        column[row] = LONG[(first + number) % len(LONG)]
    return pl.Series("note", column, dtype=pl.String)


def instants(generator, rows, nulls):
    """Days of ten millennia, but mostly of some months, with ties; µs since 1970."""
    near = generator.integers(19_000 * DAY, 19_090 * DAY, rows)
    far = generator.integers(FIRST_DAY + 2, LAST_DAY - 2, rows) * DAY
    far += generator.integers(0, DAY, rows)
    edge = generator.choice(
        [FIRST_DAY + 2, LAST_DAY - 2, 0, -1, 1, -25_568, -25_567, 47_482, 47_481], rows
    )
    how = generator.random(rows)
    values = np.where(how < 0.6, near, np.where(how < 0.8, far, edge * DAY))
    values[generator.random(rows) < 0.1] = 19_001 * DAY + 1
    series = pl.Series("at", values, dtype=pl.Int64)
    return series.set(pl.Series(generator.random(rows) < nulls), None)


def times(generator, rows, nulls, *, integers):
    """The same instants as dates, datetimes of any unit and zone, or whole numbers."""
    kinds = ["date", "us", "ms", "ns", *(["integer"] if integers else [])]
    kind = generator.choice(kinds)
    column = instants(generator, rows, nulls)
    if kind == "integer":
        return column // DAY
    if kind == "date":
        return (column // DAY).cast(pl.Int32).cast(pl.Date)
    if kind == "ns":
        # 64 bits of nanoseconds reach from 1677 to 2262.
        column = column.clip(-106_000 * DAY, 106_000 * DAY)
    column = column.cast(pl.Datetime("us")).dt.cast_time_unit(kind)
    zone = ZONES[generator.integers(len(ZONES))]
    return column if zone is None else column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)


def random_table(generator, rows):
    """Events of some entities; every column has a type of its own, drawn anew."""
    nulls = float(generator.choice([0.0, 0.05, 0.5]))
    numbers = [*NUMBERS, *generator.normal(0, 100, 40).round(2).tolist()]
    labels = pool(generator, LABELS, 30)
    kind = pl.Series("kind", picked(generator, labels, rows, nulls), dtype=pl.String)
    if generator.random() < 0.5:
        kind = kind.cast(pl.Categorical)
    shop = pool(generator, LABELS, rows // 20)
    if generator.random() < 0.3:
        shop = generator.integers(-5, 500, 300).tolist()
    elif generator.random() < 0.3:
        shop = [round(float(x), 1) for x in generator.normal(0, 9, 300)]
    item = pool(generator, LABELS, 40)
    if generator.random() < 0.3:
        item = [*WHOLE, *range(50)]
    whole = pl.Series("whole", picked(generator, WHOLE, rows, nulls), dtype=pl.Int64)
    frame = pl.DataFrame(
        [
            pl.Series("who", generator.integers(max(2, rows // 40), size=rows)),
            pl.Series("channel", picked(generator, list(CHANNELS), rows, 0)),
            times(generator, rows, nulls / 2, integers=True).alias("at"),
            times(generator, rows, nulls, integers=False).alias("due"),
            pl.Series("amount", picked(generator, numbers, rows, nulls), dtype=pl.Float64),
            pl.Series("single", picked(generator, numbers, rows, nulls), dtype=pl.Float32),
            pl.Series(
                "decimal",
                picked(generator, [Decimal(f"{x:.2f}") for x in (0, -1, 3.5, 99)], rows, nulls),
                dtype=pl.Decimal(12, 2),
            ),
            whole.cast(pl.Int32, strict=False) if generator.random() < 0.3 else whole,
            pl.Series("loose", picked(generator, numbers, rows, nulls), dtype=pl.Float64),
            kind,
            pl.Series("shop", picked(generator, shop, rows, nulls)),
            pl.Series("item", picked(generator, item, rows, nulls)),
            pl.Series("flag", picked(generator, [True, False], rows, nulls), dtype=pl.Boolean),
            texts(generator, rows, nulls),
        ]
    )
    return EventTable.of(frame, entity="who", time="at")


def random_schema(generator, table):
    """One or two fields for each column, with random options, in random order."""
    one_of = lambda *options: options[generator.integers(len(options))]  # noqa: E731
    sized = lambda: one_of({}, {"n_bins": 4}, {"binning": "log"}, {"n_bins": 200})  # noqa: E731
    semantic = lambda: {"semantic_levels": one_of(1, 2, 4), "semantic_codes": one_of(2, 9, 300)}  # noqa: E731
    tail = lambda: one_of({}, {"hash_buckets": 7}, {"vocab_size": 9}, {"min_frequency": 3})  # noqa: E731
    fields = [
        FieldSpec("amount", "numerical_continuous", **sized()),
        FieldSpec("sign", "sign", column="amount"),
        FieldSpec("single", "numerical_continuous", binning="fixed", edges=(0.1, 1.0, 1e6)),
        FieldSpec("decimal", one_of("numerical_continuous", "categorical_fixed", "sign")),
        FieldSpec("whole", one_of("numerical_discrete", "numerical_continuous")),
        FieldSpec("loose", one_of("numerical_discrete", "categorical_fixed")),
        FieldSpec("kind", "categorical_fixed", **tail()),
        FieldSpec("shop", "categorical_entity", **tail()),
        FieldSpec("item", "categorical_entity", **semantic()),
        FieldSpec("flag", one_of("categorical_fixed", "sign", "numerical_discrete")),
        FieldSpec("note", "text", max_tokens=one_of(1, 8, 64)),
        FieldSpec("shop note", "text", column="kind", max_tokens=one_of(2, 16)),
    ]
    elapsed = one_of(0, 2, 12)
    if table.time_kind == "integer":
        calendar = {"calendar_fields": (), "elapsed_bins": 8}
    else:
        parts = generator.permutation(["month", "dow", "dom", "hour", "quarter", "year"]).tolist()
        chosen = tuple(parts[: generator.integers(1, 7)])
        calendar = {"calendar_fields": chosen, "elapsed_bins": elapsed}
    fields.append(FieldSpec("at", "temporal", **calendar))
    # The table's own time is kept in UTC; another column keeps its zone.
    fields.append(FieldSpec("due", "temporal", calendar_fields=("hour", "dow", "dom", "month")))
    fields = [fields[i] for i in generator.permutation(len(fields)).tolist()]
    if generator.random() < 0.5:
        return DomainSchema("fuzz", fields)
    # The first field opens the event, so it cannot be left out; with sources the source does.
    sourced = generator.random() < 0.6
    fields = [
        spec.model_copy(update={"optional": bool((i or sourced) and generator.random() < 0.4)})
        for i, spec in enumerate(fields)
    ]
    if not sourced:
        return DomainSchema("fuzz", fields)
    names = [spec.name for spec in fields]
    used = [generator.permutation(names)[: generator.integers(2, 9)].tolist() for _ in CHANNELS]
    used[0] += [name for name in names if not any(name in one for one in used)]
    budget = {"max_tokens_per_event": one_of(None, 30)}
    sources = {name: {"fields": own, **budget} for name, own in zip(CHANNELS, used, strict=True)}
    return DomainSchema("fuzz", fields, sources=sources, source_column="channel")


def random_semantic_ids(generator, schema, seen):
    """Random codes for most of the values that were seen, with collisions; some stay unknown."""
    made = {}
    for spec in schema.fields:
        if not spec.semantic_levels:
            continue
        values = seen.frame[spec.source].cast(pl.String).drop_nulls().unique().sort()
        known = [text for text in values.to_list() if generator.random() < 0.9]
        shape = len(known), spec.semantic_levels
        codes = generator.integers(spec.semantic_codes, size=shape)
        made[spec.name] = SemanticIdTokenizer.of_codes(spec, known, codes)
    return made


# ── what must hold ────────────────────────────────────────────────────────────────────────────


def surrogate_problems(tokenizer, table, generator, rows=200):
    """Lone surrogates in labels and texts: no crash, ids in place, Hugging Face the same."""
    positions, every = Positions(tokenizer), []
    chosen = generator.integers(table.n_events, size=min(rows, table.n_events)).tolist()
    for row in chosen:
        event = table.frame.row(row, named=True)
        for name in ("kind", "note"):
            event[name] = f"{event[name] or ''}{SURROGATES[generator.integers(len(SURROGATES))]}"
        ids = tokenizer.encode_event(event)
        problem = positions.problem(ids)
        if problem is not None:
            yield f"row {row}: a lone surrogate: {problem}"
        rendered = tokenizer.render_event(event)
        if tokenizer.backend.encode(rendered, add_special_tokens=False).ids != ids:
            yield f"row {row}: Hugging Face differs where there is a lone surrogate"
        every += ids
    try:
        if tokenizer.decode(every).height != len(chosen):
            yield "events with lone surrogates do not decode to as many rows"
    except DomainformerError as error:
        yield f"events with lone surrogates do not decode: {error.what}"


def fuzz(rows, *, seed=0, chunk=20_000, say=lambda text: None):
    """Check so many rows; a summary with every problem that was found."""
    started, done, events, tokens = time.perf_counter(), 0, 0, 0
    problems, checked, slowest = [], Counter(), 0.0
    while done < rows:
        generator = np.random.default_rng([seed, done])
        part_started = time.perf_counter()
        table = random_table(generator, min(chunk, rows - done))
        schema = random_schema(generator, table)
        some = np.flatnonzero(generator.random(table.n_entities) < 0.5)
        seen = table.take_entities(some if len(some) else [0])
        tokenizer = DomainTokenizer(schema, bpe_vocab_size=int(generator.choice([256, 300, 600])))
        tokenizer.fit(seen, semantic_ids=random_semantic_ids(generator, schema, seen))
        if generator.random() < 0.3:
            # Ids of a field that lie apart take other paths than a single range.
            newer = table.take_entities(np.arange(0, table.n_entities, 3))
            tokenizer = extend(tokenizer, newer, most_merges=40).tokenizer
        report = validate_tokenizer(tokenizer, table, events=table.n_events)
        for check in report.checks:
            checked[check.name] += check.examined
            problems += [f"rows {done}…: {check.name}: {text}" for text in check.examples]
        problems += surrogate_problems(tokenizer, table, generator)
        slowest = max(slowest, time.perf_counter() - part_started)
        done += chunk
        events, tokens = events + report.n_events, tokens + report.n_tokens
        say(f"{min(done, rows):,} of {rows:,} rows, {len(problems)} problems")
    return {
        "rows": events,
        "tokens": tokens,
        "problems": problems,
        "checked": dict(checked),
        "slowest_chunk_seconds": slowest,
        "seconds": time.perf_counter() - started,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=Path(_HERE) / "results" / "fuzz.json")
    given = parser.parse_args()
    result = fuzz(
        given.rows,
        seed=given.seed,
        chunk=given.chunk,
        say=lambda text: print(text, file=sys.stderr),
    )
    for problem in result["problems"][:20]:
        print(problem)
    print(
        f"fuzz: {result['rows']:,} rows, {result['tokens']:,} tokens, "
        f"{len(result['problems'])} problems, {result['seconds']:.0f} s"
    )
    write_json(given.output, {"python": platform.python_version(), **result})
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
