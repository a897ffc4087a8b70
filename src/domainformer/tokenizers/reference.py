"""What a tokenizer remembers of the data that it was fitted on, to tell later whether data drift.

A few numbers per position of an event: rows, missing, unknown, how often each bin or calendar part
occurs and the most frequent categories, the range of numbers, and bytes per token of text. They
decide no id, so they are no part of the fingerprint, and a few kilobytes in the tokenizer's file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.schema import DomainSchema
from domainformer.tokenizers.base import FieldTokenizer, Int64Array, SlotRange
from domainformer.tokenizers.fields import BytePairModel, TextTokenizer
from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.fields.shapes import BinTokenizer
from domainformer.tokenizers.fitting import FitStatistics, read_columns
from domainformer.tokenizers.occupancy import Occupancy, unknown_ids
from domainformer.tokenizers.slots import Block, Layout
from domainformer.tokenizers.sources import FieldRows

MOST_KEPT = 256
"""Values of a category or whole number whose counts are kept; all others are one count."""


@dataclass(frozen=True)
class SlotReference:
    """How the tokens of one position were distributed.

    Args:
        slot: Its name (`Slot.name`).
        rows: Events that have this position.
        missing: How many of them had no value.
        unknown: How many had a value outside of the vocabulary; hash buckets count.
        ids: Local ids whose counts are kept: all bins and parts, or the most frequent values.
        counts: How often each of them occurred.
        low: Smallest magnitude, gap or year; None where the field has no range.
        high: The largest.
    """

    slot: str
    rows: int
    missing: int
    unknown: int
    ids: tuple[int, ...]
    counts: tuple[int, ...]
    low: float | None = None
    high: float | None = None

    @property
    def rest(self) -> int:
        """Known values whose own counts are not kept."""
        return self.rows - self.missing - self.unknown - sum(self.counts)

    def __add__(self, other: SlotReference) -> SlotReference:
        counts = Counter(dict(zip(self.ids, self.counts, strict=True)))
        counts.update(dict(zip(other.ids, other.counts, strict=True)))
        ids = tuple(sorted(counts))
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return SlotReference(
            slot=self.slot,
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            unknown=self.unknown + other.unknown,
            ids=ids,
            counts=tuple(counts[index] for index in ids),
            low=min(lows, default=None),
            high=max(highs, default=None),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = {
            "slot": self.slot,
            "rows": self.rows,
            "missing": self.missing,
            "unknown": self.unknown,
            "ids": list(self.ids),
            "counts": list(self.counts),
        }
        return plain if self.low is None else plain | {"low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SlotReference:
        """What `to_json` gave."""
        lists = {name: tuple(map(int, plain[name])) for name in ("ids", "counts")}
        numbers = {name: int(plain[name]) for name in ("rows", "missing", "unknown")}
        ends = {name: float(plain[name]) for name in ("low", "high") if name in plain}
        return cls(slot=str(plain["slot"]), **numbers, **lists, **ends)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TextReference:
    """How texts were spelt, over all text fields together.

    Args:
        size: UTF-8 bytes.
        tokens: BPE tokens.
        bare: Tokens that are a single byte, which no merge has joined to anything.
    """

    size: int
    tokens: int
    bare: int

    @property
    def bytes_per_token(self) -> float:
        """What one token spells on average; NaN without texts."""
        return self.size / self.tokens if self.tokens else float("nan")

    @property
    def bare_share(self) -> float:
        """Share of tokens that are single bytes; NaN without texts."""
        return self.bare / self.tokens if self.tokens else float("nan")

    @classmethod
    def of(cls, bpe: BytePairModel, counts: Mapping[str, int]) -> TextReference:
        """Spell some texts, each weighted by its count, in full length."""
        weights = np.fromiter(counts.values(), np.int64, len(counts))
        rows = bpe.encode_batch(list(counts))
        bare_ids = {index for index, token in enumerate(bpe.tokens) if len(token) == 1}
        tokens = np.fromiter(map(len, rows), np.int64, len(rows))
        bare = np.fromiter((sum(i in bare_ids for i in row) for row in rows), np.int64, len(rows))
        size = np.fromiter((len(text.encode()) for text in counts), np.int64, len(counts))
        return cls(*(int((one * weights).sum()) for one in (size, tokens, bare)))

    def __add__(self, other: TextReference) -> TextReference:
        return TextReference(
            self.size + other.size, self.tokens + other.tokens, self.bare + other.bare
        )


@dataclass(frozen=True)
class Reference:
    """What some events look like to a tokenizer.

    Args:
        events: Number of events.
        slots: Every position whose counts are known.
        text: How texts were spelt; None where no field is text.

    Example:
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> from domainformer.tokenizers import DomainTokenizer
        >>> schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed", min_frequency=2)])
        >>> tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["a", "a", "b", None]}))
        >>> tokenizer.reference.slots[0]
        SlotReference(slot='kind', rows=4, missing=1, unknown=1, ids=(2,), counts=(2,), ...)
    """

    events: int
    slots: tuple[SlotReference, ...]
    text: TextReference | None = None

    def slot(self, name: str) -> SlotReference | None:
        """The counts of a position, where they are known."""
        return next((one for one in self.slots if one.slot == name), None)

    @classmethod
    def of_table(
        cls,
        layout: Layout,
        schema: DomainSchema,
        table: EventTable | pl.DataFrame,
        *,
        most: int | None = MOST_KEPT,
    ) -> Reference:
        """Count a table by encoding its columns.

        Args:
            layout: The fitted fields.
            schema: Theirs.
            table: Events.
            most: Values of a category whose counts are kept; None keeps all.
        """
        columns = read_columns(schema, table)
        rows = FieldRows.of(schema, columns.frame)
        slots: list[SlotReference] = []
        texts: list[pl.DataFrame] = []
        bpe: BytePairModel | None = None
        for block in layout.blocks:
            column = rows.take(block.spec.name, columns.read_by(block.tokenizer))
            slots += _slots(block, Occupancy.of_column(block.tokenizer, column), most)
            if isinstance(block.tokenizer, TextTokenizer):
                texts.append(count_texts(column, field=block.spec.name))
                bpe = block.tokenizer.bpe
        text = None if bpe is None else TextReference.of(bpe, summed_texts(texts))
        return cls(columns.frame.height, tuple(slots), text)

    @classmethod
    def of_statistics(cls, layout: Layout, statistics: FitStatistics) -> Reference:
        """Count what a fit has seen; text by the sample that its merges were learned from."""
        slots: list[SlotReference] = []
        bpe: BytePairModel | None = None
        for block in layout.blocks:
            found = statistics.occupancy(block.tokenizer)
            if found is not None:
                slots += _slots(block, found, MOST_KEPT)
            if isinstance(block.tokenizer, TextTokenizer):
                bpe = block.tokenizer.bpe
        counts = statistics.text_counts()
        text = None if bpe is None or counts is None else TextReference.of(bpe, counts)
        return cls(statistics.n_events, tuple(slots), text)

    def __add__(self, other: Reference) -> Reference:
        """What both have seen together, where an extension has kept the local ids apart."""
        theirs = {one.slot: one for one in other.slots}
        both = [one + theirs[one.slot] for one in self.slots if one.slot in theirs]
        text = self.text + other.text if self.text and other.text else None
        return Reference(self.events + other.events, tuple(both), text)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        text = self.text
        return {
            "events": self.events,
            "slots": [one.to_json() for one in self.slots],
            "text": None if text is None else [text.size, text.tokens, text.bare],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Reference:
        """What `to_json` gave."""
        text = plain["text"]
        return cls(
            events=int(plain["events"]),
            slots=tuple(SlotReference.from_json(one) for one in plain["slots"]),
            text=None if text is None else TextReference(*map(int, text)),
        )


def summed_texts(counted: Sequence[pl.DataFrame]) -> dict[str, int]:
    """Texts of several columns with their counts, in the order of the texts.

    Example:
        >>> one = pl.DataFrame({"value": ["b", "a"], "count": [1, 2]})
        >>> summed_texts([one, one])
        {'a': 4, 'b': 2}
    """
    if not counted:
        return {}
    both = pl.concat(counted).group_by("value").agg(pl.col("count").sum()).sort("value")
    return dict(both.rows())


def _slots(block: Block, found: Occupancy, most: int | None) -> list[SlotReference]:
    tokenizer = block.tokenizer
    unknown = unknown_ids(tokenizer)
    parts = tokenizer.slots
    names = [slot.name for slot in block.slots]
    return [
        _slot(tokenizer, name, part, found, unknown, most)
        for name, part in zip(names, parts, strict=True)
    ]


def _slot(
    tokenizer: FieldTokenizer,
    name: str,
    part: SlotRange,
    found: Occupancy,
    unknown: Int64Array,
    most: int | None,
) -> SlotReference:
    counts = found.counts[part.start : part.stop].copy()
    rows, missing = int(counts.sum()), int(counts[0])
    outside = unknown[(unknown >= part.start) & (unknown < part.stop)] - part.start
    strange = int(counts[outside].sum())
    counts[outside] = 0
    # A null is left out of an event where the field is optional, so it is no row of its position.
    if tokenizer.spec.optional:
        rows, missing = rows - missing, 0
    if isinstance(tokenizer, BinTokenizer) or part.part:
        ids = np.arange(1, len(counts))
    else:
        own = np.flatnonzero(counts[1:]) + 1
        ids = np.sort(own[np.argsort(-counts[own], kind="stable")[:most]])
    ranged = part.part in ("", "elapsed", "year")
    return SlotReference(
        slot=name,
        rows=rows,
        missing=missing,
        unknown=strange,
        ids=tuple((ids + part.start).tolist()),
        counts=tuple(counts[ids].tolist()),
        low=found.low if ranged else None,
        high=found.high if ranged else None,
    )
