"""The groups of values by which two references of one position are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.change.stability import (
    MOST_GROUPS,
    Stability,
    neighbours_grouped,
    population_stability,
)
from domainformer.tokenizers.fields import BinTokenizer, CalendarTokenizer, ElapsedTimeTokenizer
from domainformer.tokenizers.fields.elapsed import FIRST
from domainformer.tokenizers.reference import SlotReference


@dataclass(frozen=True)
class Group:
    """Some neighbouring bins, or a value, then and now.

    Args:
        label: The tokens, ``first … last`` where they are several.
        then: Share in the reference.
        now: Share in the table.
    """

    label: str
    then: float
    now: float


def compared(
    tokenizer: FieldTokenizer, before: SlotReference, after: SlotReference
) -> tuple[Stability, tuple[Group, ...]]:
    """The index over groups of values; missing and unknown values are groups of their own."""
    now = dict(zip(after.ids, after.counts, strict=True))
    if isinstance(tokenizer, ElapsedTimeTokenizer):
        # How many first events there are depends on where the table's histories were cut.
        before, after = _without_first(before), _without_first(after)
    if isinstance(tokenizer, (BinTokenizer, CalendarTokenizer)):
        parts = [before.ids[part] for part in neighbours_grouped(before.counts)]
    else:
        ranked = sorted(zip(before.counts, before.ids, strict=True), key=lambda one: -one[0])
        parts = [(index,) for _, index in ranked[:MOST_GROUPS]]
    counts = dict(zip(before.ids, before.counts, strict=True))
    labels = [_label(tokenizer, part) for part in parts] + ["(missing)", "(unknown)", "(others)"]
    sides = []
    for side, known in ((before, counts), (after, now)):
        named = [sum(known.get(index, 0) for index in part) for part in parts]
        others = side.rows - side.missing - side.unknown - sum(named)
        sides.append([*named, side.missing, side.unknown, others])
    groups = tuple(
        Group(label, then / max(1, before.rows), later / max(1, after.rows))
        for label, then, later in zip(labels, *sides, strict=True)
        if then or later
    )
    return population_stability(*sides), groups


def _without_first(one: SlotReference) -> SlotReference:
    pairs = zip(one.ids, one.counts, strict=True)
    ids, counts = zip(*(pair for pair in pairs if pair[0] != FIRST), strict=True)
    return replace(one, rows=one.rows - sum(one.counts) + sum(counts), ids=ids, counts=counts)


def _label(tokenizer: FieldTokenizer, ids: tuple[int, ...]) -> str:
    first, last = tokenizer.vocab[ids[0]], tokenizer.vocab[ids[-1]]
    return first if len(ids) == 1 else f"{first} … {last}"
