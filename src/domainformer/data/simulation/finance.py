"""Account transactions: salaries, rents, shopping habits, returned payments.

``client_id, timestamp, amount, category, channel, description``: payments are negative, salaries
and refunds positive. Merchants belong to categories, a client keeps returning to a few of them,
and about 20,000 are seen in two million transactions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import polars as pl

from domainformer.data.simulation import words
from domainformer.data.simulation.draws import Draws, bell, zipf_rank
from domainformer.data.simulation.timeline import (
    ANCHOR,
    BURST,
    EXPLORE,
    MONTHLY,
    ROUTINE,
    Rhythm,
    Timeline,
)

ENTITY, TIME = "client_id", "timestamp"
CATEGORIES = 40
RHYTHM = Rhythm(
    hours=(1, 0.5, 0.3, 0.2, 0.3, 0.8, 2, 4, 5, 5, 6, 7, 9, 8, 6, 6, 7, 9, 9, 7, 5, 4, 3, 2),
    weekdays=(0.9, 0.9, 0.95, 1.0, 1.2, 1.3, 0.75),
    months=(0.85, 0.85, 0.95, 0.95, 1.0, 1.0, 1.05, 0.95, 0.95, 1.0, 1.15, 1.4),
    resolution=1,
    tie=0.0,
    monthly=True,
    hours_per_event=36.0,
)
N_MERCHANTS = 20_000
SPECIAL = ("salary", "returned payment fee", "rent")
_UNSEEN = ("crypto exchange", "ev charging")
_RARE = ("casino", "auction house", "pawnbroker")


@dataclass(frozen=True)
class World:
    """What all clients share: names, price levels, and which merchants a category has."""

    categories: pl.Series
    merchants: pl.Series
    first_merchant: np.ndarray
    n_merchants: np.ndarray
    price: np.ndarray


@functools.lru_cache(maxsize=4)
def world(seed: int, categories: int) -> World:
    """The world of a seed: ordinary categories, then special, rare and at first unseen ones."""
    draws = Draws(seed, "finance world")
    ordinary = words.numbered(words.PAYMENT_CATEGORIES, categories)
    names = [*ordinary, *SPECIAL, *_RARE, *_UNSEEN]
    weights = 0.3 + draws.uniform("merchants", np.arange(len(names))) ** 2
    counts = np.maximum(3, np.floor(weights / weights.sum() * N_MERCHANTS)).astype(np.int64)
    counts[categories + 1] = 1  # only the bank itself charges fees
    texts = []
    for c, (name, count) in enumerate(zip(names, counts.tolist(), strict=True)):
        picks = draws.hash("name", np.full(count, c), np.arange(count)).tolist()
        texts += [_merchant(name, k, bits) for k, bits in enumerate(picks)]
    price = np.exp(1.2 + 3.3 * draws.uniform("price", np.arange(len(names))))
    price[categories : categories + 3] = (2400.0, 12.0, 850.0)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return World(pl.Series(names), pl.Series(texts), first, counts, price)


def columns(timeline: Timeline, seed: int, categories: int) -> dict[str, pl.Series]:
    """The columns of one block of transactions, without entity, time and label."""
    shared = world(seed, categories)
    category = _category(timeline, categories)
    rank = _merchant_rank(timeline, category, shared.n_merchants[category])
    merchant = shared.first_merchant[category] + rank
    amount = _amount(timeline, shared, category, merchant)
    habit = timeline.of_entity_and("channel habit", category)
    channel = np.where(timeline.uniform("channel") < 0.85, habit, timeline.uniform("other channel"))
    channel_index = (channel**1.5 * (len(words.CHANNELS) - 1)).astype(np.int64)
    channel_index[np.isin(timeline.kind, (ANCHOR, BURST, MONTHLY))] = words.CHANNELS.index(
        "transfer"
    )
    blank = timeline.uniform("blank")
    description = shared.merchants.gather(merchant)
    return {
        "amount": pl.Series(amount).set(pl.Series(blank < 0.003), None),
        "category": shared.categories.gather(category),
        "channel": pl.Series(words.CHANNELS)
        .gather(channel_index)
        .set(pl.Series(blank > 0.98), None),
        "description": description.set(pl.Series((blank > 0.4) & (blank < 0.412)), None),
    }


def _category(timeline: Timeline, categories: int) -> np.ndarray:
    """Routine from the ring; exploration by popularity, which turns with the hour of the day."""
    quarter = (timeline.time // 3_600_000_000) % 24 // 6
    rank = zipf_rank(timeline.uniform("explore"), categories)
    category = np.where(
        timeline.kind == EXPLORE, (rank + quarter * 3) % categories, timeline.activity
    )
    exotic = timeline.uniform("exotic")
    explores = timeline.kind == EXPLORE
    rare = explores & (exotic < 0.004)
    unseen = explores & timeline.late & (exotic > 0.8)
    first_rare = categories + len(SPECIAL)
    category[rare] = first_rare + (exotic[rare] * len(_RARE) / 0.004).astype(np.int64)
    first_unseen = first_rare + len(_RARE)
    category[unseen] = first_unseen + (exotic[unseen] > 0.9)
    for offset, kind in enumerate((ANCHOR, BURST, MONTHLY)):
        category[timeline.kind == kind] = categories + offset
    return category


def _merchant_rank(timeline: Timeline, category: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A client's first or second favourite, or anyone; new merchants open late in the period."""
    chance = timeline.uniform("merchant")
    first = timeline.of_entity_and("favourite", category)
    second = timeline.of_entity_and("second favourite", category)
    other = timeline.uniform("any merchant")
    faithful = timeline.kind != EXPLORE
    unit = np.where(chance < 0.65 + 0.2 * faithful, first, second)
    unit = np.where(chance > 0.8 + 0.15 * faithful, other, unit)
    fixed = np.isin(timeline.kind, (ANCHOR, MONTHLY))
    unit = np.where(fixed, first, unit)
    old = np.maximum(1, (size * 0.95).astype(np.int64))
    rank = np.where(fixed, (unit * old).astype(np.int64), zipf_rank(unit, old))
    new = timeline.late & (timeline.uniform("new merchant") < 0.05) & (old < size) & ~fixed
    return np.where(new, old + ((size - old) * other).astype(np.int64), rank)


def _amount(
    timeline: Timeline, shared: World, category: np.ndarray, merchant: np.ndarray
) -> np.ndarray:
    """Signed amounts in whole pence."""
    level = np.log(shared.price)[category] + 0.35 * bell(timeline.of_entity("wealth"))
    dear = 0.3 * bell(timeline.draws.uniform("dear", merchant))
    varies = 0.45 * bell(timeline.uniform("amount"))
    amount = np.exp(level + dear + varies)
    winter = timeline.time.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64) % 12
    amount *= np.where(winter >= 10, 1.15, 1.0)
    # Many prices end in .99, standing amounts never change.
    amount = np.where(timeline.uniform("price end") < 0.3, np.floor(amount) + 0.99, amount)
    standing = np.isin(timeline.kind, (ANCHOR, MONTHLY))
    amount = np.where(standing, np.exp(level), amount)
    amount = np.where(timeline.kind == BURST, 12.0, np.minimum(amount, 50_000.0))
    ordinary = np.isin(timeline.kind, (ROUTINE, EXPLORE))
    refund = ordinary & (timeline.uniform("refund") < 0.025)
    sign = np.where(refund | (timeline.kind == ANCHOR), 1.0, -1.0)
    signed: np.ndarray = sign * np.round(np.maximum(amount, 0.01), 2)
    return signed


def _merchant(category: str, number: int, bits: int) -> str:
    """A merchant's name as it stands on a statement; the number keeps names apart."""
    if category == "returned payment fee":
        return category.upper()
    first = words.SHOP_FIRST[bits % len(words.SHOP_FIRST)]
    second = words.SHOP_SECOND[(bits >> 16) % len(words.SHOP_SECOND)]
    town = words.TOWNS[(bits >> 32) % len(words.TOWNS)]
    return f"{first} {category} {second} {number + 1} {town}".upper()
