"""Writes the golden tokenizers of one format version: run once per version, never again.

    python tests/assets/tokenizers/make.py tests/assets/tokenizers/v3

Beside each tokenizer's folder stands ``<name>.json`` with the events of `EVENTS`, how they were
encoded and what they decode to, so that a later release can show that it still reads them the
same. A folder that exists is not written again.
"""

import datetime as dt
import json
import sys
from pathlib import Path

import polars as pl

from domainformer.data import EventTable
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, extend

CARDS = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed", min_frequency=2, hash_buckets=2),
        FieldSpec("direction", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=6),
        FieldSpec("count", "numerical_discrete", vocab_size=3),
        FieldSpec("time", "temporal", calendar_fields=("month", "hour", "year"), elapsed_bins=4),
        FieldSpec("shop", "text", max_tokens=6),
        FieldSpec("note", "text", max_tokens=3),
    ],
)
VISITS = DomainSchema(
    "visits",
    [
        FieldSpec("ward", "categorical_entity"),
        FieldSpec("stay", "numerical_continuous", binning="log", n_bins=4),
        FieldSpec("day", "temporal", calendar_fields=(), elapsed_bins=3),
    ],
)
START = dt.datetime(2024, 2, 28, 22, 30)
EVENTS = {
    "cards": pl.DataFrame(
        {
            "card": [1, 1, 1, 2, 2, 3, 3, 3],
            "kind": ["fuel & oil", "post", "fuel & oil", None, "post", "rare", "é [x]", "post"],
            "amount": [-20.0, 1.5, -21.25, 0.0, None, 300.0, 7.0, float("nan")],
            "count": [1, 2, 1, None, 3, 1, 99, -2],
            "time": [None, *(START + dt.timedelta(hours=31 * i) for i in range(7))],
            "shop": ["corner shop", "Café 😀", "", None, "corner [PAD]", "shop", "日本", "corner"],
            "note": ["a", None, "shop shop", "b", "a [KIND=post]", "", "x\n", "corner shop"],
        }
    ),
    "visits": pl.DataFrame(
        {
            "who": ["a", "a", "b", "b", "b"],
            "ward": ["icu", "er", None, "icu", "lab"],
            "stay": [1.0, 30.0, None, 4.5, 0.0],
            "day": [3, 7, 1, 1, 12],
        }
    ),
}
TABLES = {
    "cards": EventTable.of(EVENTS["cards"], entity="card", time="time"),
    "visits": EventTable.of(EVENTS["visits"], entity="who", time="day"),
}
LATER = {
    "cards": EVENTS["cards"].with_columns(
        kind=pl.col("kind").str.to_uppercase(), count=pl.col("count") + 40, shop=pl.lit("petrol")
    ),
    "visits": EVENTS["visits"].with_columns(ward=pl.col("ward") + "-2"),
}
LATER["cards"] = EventTable.of(LATER["cards"], entity="card", time="time")
LATER["visits"] = EventTable.of(LATER["visits"], entity="who", time="day")
SCHEMAS = {"cards": CARDS, "visits": VISITS}


def expected(tokenizer: DomainTokenizer, table: EventTable) -> dict:
    """What a tokenizer makes of a table, as plain data."""
    events = tokenizer.encode(table)
    decoded = tokenizer.decode(events.ids, intervals=True)
    return {
        "fingerprint": tokenizer.fingerprint,
        "vocab": tokenizer.vocab,
        "ids": events.ids.tolist(),
        "event_offsets": events.event_offsets.tolist(),
        "decoded": json.loads(decoded.write_json()),
    }


def write(folder: Path, name: str, tokenizer: DomainTokenizer, table: EventTable) -> None:
    """One golden tokenizer, and what it makes of a table."""
    tokenizer.save_pretrained(folder / name)
    text = json.dumps(expected(tokenizer, table), ensure_ascii=False, indent=1)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Write every golden tokenizer of this version of the library."""
    for name, table in TABLES.items():
        tokenizer = DomainTokenizer(SCHEMAS[name], bpe_vocab_size=280).fit(table)
        write(folder, name, tokenizer, table)
        once = extend(tokenizer, LATER[name], min_frequency=1, most_new=3).tokenizer
        twice = extend(once, table, min_frequency=1, most_new=1).tokenizer
        write(folder, f"{name}-extended", twice, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
