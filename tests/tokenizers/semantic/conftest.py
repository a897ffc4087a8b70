"""Entities that come in kinds, so that codes have something to find."""

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.schema import FieldSpec
from domainformer.tokenizers.semantic import fit_semantic_ids

SPEC = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=8)
COLOURS = ["red", "blue", "green", "grey"]
THINGS = ["mug", "scarf", "lamp", "chair", "clock", "rug"]


def make_items(count=300, seed=0):
    """Products with a title, tags and a price, each of one of 24 kinds."""
    random = np.random.default_rng(seed)
    colour, thing = random.integers(4, size=count), random.integers(6, size=count)
    price = np.exp(thing + random.normal(0, 0.3, count)).round(2)
    extra = random.integers(1000, size=count)
    return pl.DataFrame(
        {
            "product": [f"p{index:04d}" for index in range(count)],
            "title": [
                f"{COLOURS[c]} {THINGS[t]} nr {n}"
                for c, t, n in zip(colour, thing, extra, strict=True)
            ],
            "tags": [[COLOURS[c], f"t{t % 3}"] for c, t in zip(colour, thing, strict=True)],
            "price": price,
        }
    )


def make_events(items, histories=200, seed=1):
    """Histories in which products of like price follow each other."""
    random = np.random.default_rng(seed)
    order = items.sort("price")["product"].to_list()
    rows = []
    for owner in range(histories):
        centre, length = random.integers(len(order)), random.integers(2, 9)
        for step, place in enumerate(random.normal(centre, 6, length)):
            rows.append((owner, step, order[int(place) % len(order)]))
    frame = pl.DataFrame(rows, schema=["user", "at", "product"], orient="row")
    return EventTable.of(frame, entity="user", time="at")


@pytest.fixture(scope="session")
def items():
    return make_items()


@pytest.fixture(scope="session")
def events(items):
    return make_events(items)


@pytest.fixture(scope="session")
def found(items, events):
    return fit_semantic_ids(events, SPEC, items=items, method="kmeans")
