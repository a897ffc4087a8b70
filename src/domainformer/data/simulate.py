"""Realistic event tables of any size, made from a seed.

Three domains, each with seasons, habits, repetition, missing values, rare categories, categories
that first appear in the last eighth of the period, and a label that only order and timing tell
(the rule is in ``simulation/timeline.py``)::

    finance     client_id   timestamp amount category channel description             label
    ecommerce   customer_id timestamp product category quantity unit_price description label
    health      patient_id  timestamp code value unit                                 label

An entity's events depend on the seed and on the entity's number alone: a table of 1,000 entities
is the beginning of one of 1,000,000, in blocks of whatever size.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from domainformer.artifacts import fsync_path
from domainformer.data.simulation import ecommerce, finance, health
from domainformer.data.simulation.draws import Draws
from domainformer.data.simulation.timeline import (
    MIN_EVENTS,
    RING,
    Rhythm,
    build_timeline,
    history_lengths,
)
from domainformer.data.table import EventTable
from domainformer.errors import ArtifactError, DataError, nearest

BLOCK_EVENTS = 100_000


@dataclass(frozen=True)
class Domain:
    """A simulated domain.

    Args:
        entity: Name of the entity column.
        time: Name of the time column.
        rhythm: Its seasons.
        categories: Usual number of ordinary categories.
        columns: Makes the columns of a block from (timeline, seed, categories).
        entity_ids: Makes ids of entity numbers.
    """

    entity: str
    time: str
    rhythm: Rhythm
    categories: int
    columns: Callable[..., dict[str, pl.Series]]
    entity_ids: Callable[[np.ndarray], pl.Series]


def _client_ids(numbers: np.ndarray) -> pl.Series:
    """C0000001 …: padded, so that the order of ids is the order of numbers."""
    return "C" + pl.Series(numbers + 1).cast(pl.String).str.zfill(8)


DOMAINS: dict[str, Domain] = {
    "finance": Domain(
        finance.ENTITY,
        finance.TIME,
        finance.RHYTHM,
        finance.CATEGORIES,
        finance.columns,
        _client_ids,
    ),
    "ecommerce": Domain(
        ecommerce.ENTITY,
        ecommerce.TIME,
        ecommerce.RHYTHM,
        ecommerce.CATEGORIES,
        ecommerce.columns,
        lambda numbers: pl.Series(numbers + 10_001),
    ),
    "health": Domain(
        health.ENTITY,
        health.TIME,
        health.RHYTHM,
        health.CATEGORIES,
        health.columns,
        lambda numbers: pl.Series(numbers + 100_001),
    ),
}


def simulate(
    domain: str,
    *,
    entities: int = 1000,
    events_per_entity: float = 60,
    seed: int = 0,
    label_rate: float = 0.3,
    categories: int | None = None,
) -> EventTable:
    """A simulated table of events, held in memory.

    Args:
        domain: ``"finance"``, ``"ecommerce"`` or ``"health"``.
        entities: Number of entities.
        events_per_entity: Mean length of a history (log-normal, at least 16 events).
        seed: Another seed, another world.
        label_rate: Share of entities whose history means label 1; 4 % of labels are then flipped.
        categories: Number of ordinary categories (finance 40, ecommerce 30, health 40).

    Raises:
        DataError: The domain is unknown or a number is out of range.

    Example:
        >>> table = simulate("finance", entities=5, events_per_entity=20, seed=1)
        >>> table
        EventTable(82 events of 5 entities by 'client_id', time 'timestamp' (datetime),
                   columns: amount, category, channel, description, label)
    """
    frames = simulate_frames(
        domain,
        entities=entities,
        events_per_entity=events_per_entity,
        seed=seed,
        label_rate=label_rate,
        categories=categories,
    )
    made = DOMAINS[_known(domain)]
    return EventTable.of(
        pl.concat(frames), entity=made.entity, time=made.time, name=f"simulated {domain}"
    )


def simulate_frames(
    domain: str,
    *,
    entities: int = 1000,
    events_per_entity: float = 60,
    seed: int = 0,
    label_rate: float = 0.3,
    categories: int | None = None,
    block_events: int = BLOCK_EVENTS,
) -> Iterator[pl.DataFrame]:
    """The same table as :func:`simulate`, in blocks of whole entities, sorted.

    Args:
        domain: ``"finance"``, ``"ecommerce"`` or ``"health"``.
        entities: Number of entities.
        events_per_entity: Mean length of a history.
        seed: Another seed, another world.
        label_rate: Share of entities whose history means label 1.
        categories: Number of ordinary categories.
        block_events: About how many events a block has; the events do not depend on it.

    Raises:
        DataError: The domain is unknown or a number is out of range.
    """
    made = DOMAINS[_known(domain)]
    categories = made.categories if categories is None else categories
    _check(entities, events_per_entity, label_rate, categories, block_events)
    per_block = max(1, int(block_events / max(events_per_entity, MIN_EVENTS)))
    draws = Draws(seed, domain)
    return (
        _block(
            made,
            draws,
            np.arange(first, min(first + per_block, entities)),
            seed=seed,
            mean=events_per_entity,
            label_rate=label_rate,
            categories=categories,
        )
        for first in range(0, entities, per_block)
    )


def write_simulated(domain: str, path: str | Path, **options: Any) -> Path:
    """Write a simulated table as one Parquet file, block by block, in little memory.

    The file appears when it is whole; a failure leaves nothing behind.

    Args:
        domain: ``"finance"``, ``"ecommerce"`` or ``"health"``.
        path: The file to write; an existing one is replaced.
        **options: As for :func:`simulate_frames`.

    Returns:
        The path.

    Raises:
        DataError: The domain is unknown or a number is out of range.
        ArtifactError: The file cannot be written.
    """
    path = Path(path)
    staging = path.with_name(f".{path.name}.staging-{os.getpid()}")
    frames = simulate_frames(domain, **options)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        first = next(frames).to_arrow()
        with pq.ParquetWriter(staging, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for frame in frames:
                writer.write_table(frame.to_arrow())
        fsync_path(staging)
        staging.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        raise ArtifactError(
            f"{path} could not be written",
            why=str(error),
            next_step="check the path, its permissions and the free space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
    return path


def _block(
    made: Domain,
    draws: Draws,
    numbers: np.ndarray,
    *,
    seed: int,
    mean: float,
    label_rate: float,
    categories: int,
) -> pl.DataFrame:
    lengths = history_lengths(draws, numbers, mean)
    timeline = build_timeline(
        draws, made.rhythm, numbers, lengths, activities=categories, label_rate=label_rate
    )
    ids = made.entity_ids(numbers).gather(timeline.owner)
    columns = {
        made.entity: ids,
        made.time: pl.Series(timeline.time).cast(pl.Datetime("us")),
        **made.columns(timeline, seed, categories),
        "label": pl.Series(timeline.labels[timeline.owner]),
    }
    return pl.DataFrame([column.alias(name) for name, column in columns.items()])


def _known(domain: str) -> str:
    if domain not in DOMAINS:
        raise DataError(
            f"there is no simulated domain {domain!r}", next_step=nearest(domain, DOMAINS)
        )
    return domain


def _check(
    entities: int, events_per_entity: float, label_rate: float, categories: int, block_events: int
) -> None:
    limits = {
        "entities": (entities, 1, 99_999_999),
        "events_per_entity": (events_per_entity, MIN_EVENTS, 10_000_000),
        "label_rate": (label_rate, 0, 1),
        "categories": (categories, RING, 1_000),
        "block_events": (block_events, 1, 1_000_000_000),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise DataError(f"{name} is {value}", why=f"it should be from {low} to {high:,}")
