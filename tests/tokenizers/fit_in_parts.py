"""A fit in random parts, also as a program of its own: prints a digest of all that it wrote.

python fit_in_parts.py SEED MOST_NUMBERS MOST_DISTINCT BPE_SAMPLE
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fitting import FitStatistics

SCHEMA = DomainSchema(
    "parts",
    [
        FieldSpec("sign", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=12),
        FieldSpec("fee", "numerical_continuous", n_bins=6, binning="log"),
        FieldSpec("quantity", "numerical_discrete", min_frequency=2, vocab_size=30),
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("shop", "categorical_entity", vocab_size=40, min_frequency=2, hash_buckets=4),
        FieldSpec("time", "temporal", calendar_fields=("month", "hour", "year"), elapsed_bins=9),
        FieldSpec("note", "text"),
        FieldSpec("memo", "text"),
    ],
)
EXACT: dict[str, int] = {}
SMALL = {"most_numbers": 64, "most_distinct": 50, "bpe_sample": 60}


def made_frame(events: int = 1500, seed: int = 0) -> pl.DataFrame:
    """Events with ties, nulls, infinities, one-off values and repeated texts, in no order."""
    rng = np.random.default_rng(seed)
    amounts = np.round(rng.normal(size=events) * np.exp(rng.normal(size=events) * 2), 2)
    amounts[rng.integers(0, events, 20)] = rng.choice([np.nan, np.inf, -0.0, 5e-324], 20)
    words = [f"word{index}" for index in range(40)]
    notes = [" ".join(rng.choice(words, 3)) for _ in range(200)]
    seconds = rng.integers(0, 3 * 10**8, events)
    seconds[: events // 3] = rng.integers(0, 300, events // 3) * 86_400
    nulls = {name: rng.random(events) < 0.05 for name in ("amount", "quantity", "kind", "note")}
    frame = pl.DataFrame(
        {
            "who": rng.integers(0, 90, events),
            "time": pl.Series(seconds * 1_000_000).cast(pl.Datetime("us")),
            "amount": amounts,
            "fee": rng.exponential(size=events),
            "quantity": np.minimum(rng.zipf(1.5, events), 10**6),
            "kind": rng.choice(["a", "b", "c", "[PAD]"], events),
            "shop": [f"shop {min(rank, 10**6)}" for rank in rng.zipf(1.3, events)],
            "note": rng.choice(notes, events),
            "memo": [f"memo {number}" for number in rng.integers(0, 500, events)],
        }
    )
    masked = [
        pl.when(pl.Series(mask)).then(None).otherwise(pl.col(name)).alias(name)
        for name, mask in nulls.items()
    ]
    return frame.with_columns(masked)


def table_of(frame: pl.DataFrame) -> EventTable:
    return EventTable.of(frame, entity="who", time="time")


def random_parts(frame: pl.DataFrame, rng: np.random.Generator) -> list[EventTable]:
    """Whole entities, dealt at random, their rows shuffled, the parts in any order."""
    who = frame["who"].to_numpy()
    part_of = rng.integers(0, rng.integers(1, 9), who.max() + 1)
    shuffled = [rng.permutation(np.flatnonzero(part_of[who] == p)) for p in range(9)]
    parts = [table_of(frame[rows]) for rows in shuffled if len(rows)]
    return [parts[index] for index in rng.permutation(len(parts))]


def merged(collected: list[FitStatistics], rng: np.random.Generator) -> FitStatistics:
    """Merge in a random tree, some of it by way of bytes."""
    while len(collected) > 1:
        left = collected.pop(rng.integers(len(collected)))
        right = collected.pop(rng.integers(len(collected)))
        if rng.random() < 0.5:
            right = FitStatistics.from_bytes(right.to_bytes())
        collected.append(left.merge(right))
    return collected[0]


def fit_in_parts(frame: pl.DataFrame, seed: int, limits: dict[str, int]) -> FitStatistics:
    rng = np.random.default_rng(seed)
    first = [FitStatistics(SCHEMA, **limits).update(part) for part in random_parts(frame, rng)]
    statistics = merged(first, rng)
    if statistics.needs_recount:
        # Other parts than in the first pass, and none of them knows of the others.
        parts = random_parts(frame, rng)
        second = [statistics.recounting().update(part) for part in parts]
        statistics.adopt(merged(second, rng))
    return statistics


def written(statistics: FitStatistics) -> dict[str, bytes]:
    """All files of the tokenizer, and the bytes of its statistics."""
    tokenizer = DomainTokenizer.from_statistics(SCHEMA, statistics, bpe_vocab_size=400)
    with tempfile.TemporaryDirectory() as folder:
        saved = tokenizer.save_pretrained(Path(folder) / "tokenizer")
        files = {path.name: path.read_bytes() for path in sorted(saved.iterdir())}
    return {**files, "statistics": statistics.to_bytes()}


def digest(files: dict[str, bytes]) -> str:
    joined = b"".join(name.encode() + content for name, content in sorted(files.items()))
    return hashlib.sha256(joined).hexdigest()


if __name__ == "__main__":
    seed, *numbers = map(int, sys.argv[1:])
    chosen = dict(zip(SMALL, numbers, strict=True)) if numbers else EXACT
    print(digest(written(fit_in_parts(made_frame(), seed, chosen))))
