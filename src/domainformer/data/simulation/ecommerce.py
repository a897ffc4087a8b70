"""Baskets of a home-and-gift shop: lines of one order share their time.

``customer_id, timestamp, product, category, quantity, unit_price, description``: a product is a
category in a collection ("vintage roses mug large"). A basket stays with one collection while its
lines walk through the customer's categories, so that the next line is told by the last. Returned
goods have negative quantities; new collections appear late in the period.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import polars as pl

from domainformer.data.simulation import words
from domainformer.data.simulation.draws import Draws, bell, zipf_rank
from domainformer.data.simulation.timeline import ANCHOR, BURST, EXPLORE, MONTHLY, Rhythm, Timeline

ENTITY, TIME = "customer_id", "timestamp"
CATEGORIES = 30
RHYTHM = Rhythm(
    hours=(1, 0.4, 0.2, 0.2, 0.2, 0.4, 1, 2, 4, 6, 8, 9, 10, 8, 7, 6, 5, 5, 6, 8, 9, 8, 5, 2),
    weekdays=(1.1, 1.0, 1.0, 1.05, 0.95, 0.7, 1.2),
    months=(0.7, 0.75, 0.9, 0.85, 0.95, 0.9, 0.85, 0.85, 1.1, 1.2, 1.7, 1.4),
    resolution=60,
    tie=0.6,
    monthly=True,
)
_PACKS = np.array([1, 2, 3, 4, 6, 8, 12, 24])
_COUNTRIES = pl.Series(words.COUNTRIES)
_SPECIAL = ("gift voucher", "subscription box")


@dataclass(frozen=True)
class World:
    """Catalogue of the shop; the last two products are the voucher and the subscription box."""

    categories: pl.Series
    codes: pl.Series
    names: pl.Series
    price: np.ndarray


@functools.lru_cache(maxsize=4)
def world(seed: int, categories: int) -> World:
    """Every category in every collection and size, at a price; codes do not tell which."""
    draws = Draws(seed, "ecommerce world")
    goods = words.numbered(words.GOODS, categories)
    names = [
        f"{pattern} {good} {size}".upper()
        for good in goods
        for pattern in (*words.COLLECTIONS, *words.LATE_COLLECTIONS)
        for size in words.SIZES
    ]
    names += [name.upper() for name in _SPECIAL]
    index = np.arange(len(names))
    level = np.repeat(draws.uniform("category price", np.arange(categories)), _per_category())
    price = np.exp(0.3 + 2.2 * np.append(level, [0.9, 0.95]) + 0.4 * draws.uniform("price", index))
    price = np.round(np.floor(price * 4) / 4 + 0.2, 2)
    code = np.argsort(draws.uniform("code", index)) + 20_001
    codes = "P" + pl.Series(code).cast(pl.String)
    return World(pl.Series([*goods, *_SPECIAL]), codes, pl.Series(names), price)


def columns(timeline: Timeline, seed: int, categories: int) -> dict[str, pl.Series]:
    """The columns of one block of order lines, without entity, time and label."""
    shared = world(seed, categories)
    category = np.where(
        timeline.kind == EXPLORE,
        zipf_rank(timeline.uniform("explore"), categories),
        timeline.activity,
    )
    habit = timeline.of_entity_and("size habit", category)
    size = np.where(timeline.uniform("size") < 0.85, habit, timeline.uniform("other size"))
    product = category * _per_category() + _collection(timeline) * len(words.SIZES)
    product += (size * len(words.SIZES)).astype(np.int64)
    for offset, kind in enumerate((ANCHOR, MONTHLY)):
        category[timeline.kind == kind] = categories + offset
        product[timeline.kind == kind] = categories * _per_category() + offset
    quantity = _quantity(timeline, category)
    price = shared.price[product]
    month = timeline.time.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64) % 12
    price = np.where((month == 0) | (month == 6), price * 0.8, price)  # the sales
    price = np.where(quantity >= 12, price * 0.85, price)
    blank = timeline.uniform("blank")
    country = zipf_rank(timeline.draws.uniform("country", timeline.entities) ** 2, len(_COUNTRIES))
    return {
        "product": shared.codes.gather(product),
        "category": shared.categories.gather(category).set(pl.Series(blank < 0.005), None),
        "quantity": pl.Series(quantity),
        "unit_price": pl.Series(np.round(price, 2)).set(pl.Series(blank > 0.995), None),
        "description": shared.names.gather(product).set(
            pl.Series((blank > 0.4) & (blank < 0.42)), None
        ),
        "country": _COUNTRIES.gather(country[timeline.owner]),
    }


def _per_category() -> int:
    return (len(words.COLLECTIONS) + len(words.LATE_COLLECTIONS)) * len(words.SIZES)


def _collection(timeline: Timeline) -> np.ndarray:
    """A collection for each basket, drawn at its first line; some lines go their own way."""
    index = np.arange(len(timeline.time))
    first_line = np.maximum.accumulate(np.where(timeline.tied, 0, index))
    favourite = timeline.of_entity("favourite collection")
    chosen = np.where(timeline.uniform("mood") < 0.5, favourite, timeline.uniform("collection"))
    own_way = timeline.uniform("own way")
    chosen = np.where(own_way < 0.15, timeline.uniform("other collection"), chosen[first_line])
    collection = zipf_rank(chosen, len(words.COLLECTIONS))
    new = timeline.late & (timeline.uniform("new")[first_line] < 0.08)
    return np.where(new, len(words.COLLECTIONS) + (chosen > 0.5), collection)


def _quantity(timeline: Timeline, category: np.ndarray) -> np.ndarray:
    """Small packs for households, large ones for resellers; returns are negative."""
    habit = 5.0 * timeline.of_entity("reseller") ** 2
    habit = habit + 2.0 * timeline.of_entity_and("pack habit", category)
    pack = np.round(habit + 0.6 * bell(timeline.uniform("pack"))).astype(np.int64)
    quantity = _PACKS[np.clip(pack, 0, len(_PACKS) - 1)]
    quantity[np.isin(timeline.kind, (ANCHOR, MONTHLY))] = 1
    return np.where(timeline.kind == BURST, -quantity, quantity)
