"""A table of cards whose next kind follows from the last, with a habit of each card."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.evaluation.next_tasks import next_value_task

KINDS = ["food", "fuel", "books", "post", "rent"]


def card_events(cards=40, each=30, seed=0, noise=0.15):
    """Each card walks round its own three kinds; now and then any kind comes."""
    rng = np.random.default_rng(seed)
    rows = []
    for card in range(cards):
        habit = rng.permutation(len(KINDS))[:3]
        day = dt.date(2020, 1, 1) + dt.timedelta(days=int(rng.integers(30)))
        for step in range(each):
            kind = habit[step % 3] if rng.random() > noise else rng.integers(len(KINDS))
            name = None if rng.random() < 0.02 else KINDS[kind]
            rows.append((f"c{card}", day, name, f"shop {kind}", float(kind) + rng.random()))
            day += dt.timedelta(days=int(rng.integers(0, 9)))
    columns = ["card", "date", "kind", "shop", "amount"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def make_task(frame):
    table = EventTable.of(frame, entity="card", time="date")
    return next_value_task("kinds", table, "kind", test_from="2020-04-15")


@pytest.fixture(scope="session")
def kinds_task():
    return make_task(card_events())
