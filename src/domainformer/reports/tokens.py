"""What the tokens of a store look like, counted in one vectorised pass over its shards.

::

    store ─▶ counts[role, id] ─┬▶ shares of each token, missing and unknown, per slot and role
                               ├▶ tokens per event
                               └▶ events and tokens per entity

The ids of two slots never overlap, so one count per id and role tells everything about
every slot; only text pieces are shared by all text fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.data.keys import NULL_TIME
from domainformer.data.splits import ROLE_NAMES, TEST, TRAIN
from domainformer.data.store import TokenStore
from domainformer.reports.numbers import duration
from domainformer.schema.fields import hash_token, unknown_token
from domainformer.tokenizers import DomainTokenizer, Slot
from domainformer.tokenizers.slots import Block, Layout

Counts = npt.NDArray[np.int64]

_CHUNK_EVENTS = 1 << 18
_ORDERED = ("bin", "zero", "first")
_NAMES = {
    "dow": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    "month": (
        *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
        *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    ),
}


@dataclass(frozen=True)
class StoreCounts:
    """Counts over a whole store.

    Args:
        by_id: int64 ``[3, vocab]``, how often each id occurs in the events of each role.
        events: int64 ``[3]``, events of each role.
        event_tokens: int64 ``[longest + 1]``, events by their number of tokens.
        entity_events: int64 ``[entities]``, events of each entity.
        entity_tokens: int64 ``[entities]``, tokens of each entity.
        first_time: The earliest known time; None where there is none.
        last_time: The latest.
        whole_days: Whether every known time is a midnight.
        n_tokens: Tokens in all.
    """

    by_id: Counts
    events: Counts
    event_tokens: Counts
    entity_events: Counts
    entity_tokens: Counts
    first_time: int | None
    last_time: int | None
    whole_days: bool
    n_tokens: int


@dataclass(frozen=True)
class Token:
    """One token of a slot.

    Args:
        label: What it stands for: a value, an interval, a bin.
        token: Its entry in the vocabulary.
        kind: ``value``, ``bin``, ``missing``, ``unknown``, …
        train: Share among the training events.
        test: Share among the test events (None: there are none).
    """

    label: str
    token: str
    kind: str
    train: float
    test: float | None


@dataclass(frozen=True)
class SlotStatistics:
    """One slot of the event.

    Args:
        slot: The slot.
        tokens: The tokens to show: in order for bins and calendar parts, else most frequent first.
        hidden: Further tokens that are not shown.
        hidden_share: Their share among the training events.
        ordered: Whether the order of the tokens has a meaning.
        used: Tokens that occur in training events.
        missing: Share of events without a value, by role (None: no events of that role).
        unknown: Share of values that the vocabulary does not know; hash buckets count.
        has_unknown: Whether the slot has such tokens at all.
    """

    slot: Slot
    tokens: list[Token]
    hidden: int
    hidden_share: float
    ordered: bool
    used: int
    missing: dict[str, float | None]
    unknown: dict[str, float | None]
    has_unknown: bool


def count_store(store: TokenStore) -> StoreCounts:
    """Read every shard once; memory is bounded by a chunk of events."""
    by_id = np.zeros((len(ROLE_NAMES), store.vocab_size), np.int64)
    events = np.zeros(len(ROLE_NAMES), np.int64)
    widths = np.zeros(1, np.int64)
    first: int | None = None
    last: int | None = None
    whole_days = True
    for shard in store.shards:
        part = shard.events()
        for start in range(0, part.n_events, _CHUNK_EVENTS):
            stop = min(start + _CHUNK_EVENTS, part.n_events)
            offsets = np.asarray(part.event_offsets[start : stop + 1])
            roles = (
                np.full(stop - start, TRAIN, np.uint8)
                if part.roles is None
                else np.asarray(part.roles[start:stop])
            )
            lengths = np.diff(offsets)
            ids = np.asarray(part.ids[offsets[0] : offsets[-1]]).astype(np.int64)
            of_token = np.repeat(roles.astype(np.int64), lengths)
            flat = np.bincount(of_token * store.vocab_size + ids, minlength=by_id.size)
            by_id += flat.reshape(by_id.shape)
            events += np.bincount(roles, minlength=len(events))
            widths = _added(widths, np.bincount(lengths))
            times = np.asarray(part.times[start:stop])
            times = times[times != NULL_TIME]
            if len(times):
                low, high = int(times.min()), int(times.max())
                first = low if first is None else min(first, low)
                last = high if last is None else max(last, high)
                whole_days = whole_days and not (times % 86_400_000_000).any()
    owned = [np.diff(np.asarray(shard.entity_offsets)) for shard in store.shards]
    return StoreCounts(
        by_id=by_id,
        events=events,
        event_tokens=widths,
        entity_events=np.concatenate(owned),
        entity_tokens=np.asarray(store.lengths),
        first_time=first,
        last_time=last,
        whole_days=whole_days,
        n_tokens=store.n_tokens,
    )


def slot_statistics(
    tokenizer: DomainTokenizer, counts: StoreCounts, *, most: int = 12
) -> list[SlotStatistics]:
    """The tokens of every slot with their shares among training and test events.

    Args:
        tokenizer: The fitted tokenizer of the store.
        counts: Of the store.
        most: Tokens to show of slots without an order; slots with one show all.
    """
    layout = tokenizer.layout
    return [
        _slot(layout, block, slot, counts, most) for block in layout.blocks for slot in block.slots
    ]


def log_histogram(values: Counts, bins: int = 14) -> dict[str, list[Any]]:
    """Counts of positive whole numbers in bins that grow geometrically.

    Args:
        values: Whole numbers; zeros are left out.
        bins: At most so many.

    Returns:
        ``from`` (first number of the bin), ``label`` and ``count``.

    Example:
        >>> log_histogram(np.array([1, 1, 2, 9]), bins=3)["label"]
        ['1–2', '3–4', '5–9']
    """
    values = values[values > 0]
    if not len(values):
        return {"from": [], "label": [], "count": []}
    edges = np.unique(np.ceil(np.geomspace(values.min(), values.max() + 1, bins + 1) - 1e-9))
    edges = edges.astype(np.int64)
    found, _ = np.histogram(values, bins=edges)
    last = edges[1:] - 1
    labels = [
        f"{low:,}" if low == high else f"{low:,}–{high:,}"
        for low, high in zip(edges[:-1].tolist(), last.tolist(), strict=True)
    ]
    return {"from": edges[:-1].tolist(), "label": labels, "count": found.tolist()}


def _added(first: Counts, second: Counts) -> Counts:
    """The sum of two counts of different length."""
    total = np.zeros(max(len(first), len(second)), np.int64)
    total[: len(first)] += first
    total[: len(second)] += second
    return total


def _slot(
    layout: Layout, block: Block, slot: Slot, counts: StoreCounts, most: int
) -> SlotStatistics:
    own = counts.by_id[:, slot.index]
    local = layout.local_of_id[slot.ids]
    probes = [block.tokenizer.describe(int(i))["kind"] for i in local[:4]]
    ordered = bool(slot.part) or any(kind in _ORDERED for kind in probes) or _is_small_number(slot)
    shown = np.arange(slot.width) if ordered else np.argsort(-own[TRAIN], kind="stable")[:most]
    train = own[TRAIN] / max(1, counts.events[TRAIN])
    test = own[TEST] / counts.events[TEST] if counts.events[TEST] else None
    tokens = [
        _token(block, int(local[i]), float(train[i]), None if test is None else float(test[i]))
        for i in shown
    ]
    unknown = _is_unknown(block, local)
    return SlotStatistics(
        slot=slot,
        tokens=[one for one in tokens if one.train or one.test or one.kind in ("value", "bin")],
        hidden=slot.width - len(shown),
        hidden_share=float(max(0.0, train.sum() - train[shown].sum())),
        ordered=ordered,
        used=int((own[TRAIN] > 0).sum()),
        missing=_by_role(own[:, slot.ids == slot.missing].sum(axis=1), counts.events),
        unknown=_by_role(own[:, unknown].sum(axis=1), counts.events),
        has_unknown=bool(unknown.any()),
    )


def _is_small_number(slot: Slot) -> bool:
    return str(slot.kind) == "numerical_discrete" and slot.width <= 34


def _is_unknown(block: Block, local: Counts) -> npt.NDArray[np.bool_]:
    """Which local ids of a slot do not tell a value: UNK and the hash buckets."""
    name = block.spec.name
    tokens = {unknown_token(name), *(hash_token(name, i) for i in range(block.spec.hash_buckets))}
    vocab = block.tokenizer.vocab
    return np.array([vocab[i] in tokens for i in local.tolist()], np.bool_)


def _token(block: Block, local_id: int, train: float, test: float | None) -> Token:
    facts = block.tokenizer.describe(local_id)
    label = facts.get("value", facts.get("interval"))
    if label is None or facts["kind"] == "hash":
        label = {"hash": f"tail bucket {facts.get('bucket')}", "unknown": "unknown (UNK)"}.get(
            facts["kind"], str(facts["kind"])
        )
    return Token(_readable(block, facts, label), facts["token"], facts["kind"], train, test)


def _readable(block: Block, facts: dict[str, Any], label: Any) -> str:
    """Signs, weekdays, months and elapsed times in words, all else as the tokenizer says it."""
    if str(block.spec.field_type) == "sign" and facts["kind"] != "missing":
        return "negative" if facts["token"].endswith("=NEG]") else "positive or zero"
    if facts["kind"] == "value" and facts.get("part") in _NAMES:
        return _NAMES[facts["part"]][int(facts["value"]) - 1]
    if facts["kind"] == "zero":
        return "0"
    time_kind = getattr(block.tokenizer, "time_kind", None)
    if facts["kind"] != "bin" or time_kind not in ("date", "datetime"):
        return str(label)
    low, high = facts.get("low"), facts.get("high")
    if high is None:
        return f"≥ {duration(low)}"
    return f"< {duration(high)}" if not low or low < 1 else f"{duration(low)} – {duration(high)}"


def _by_role(values: Counts, events: Counts) -> dict[str, float | None]:
    return {
        name: float(values[role] / events[role]) if events[role] else None
        for role, name in enumerate(ROLE_NAMES)
    }
