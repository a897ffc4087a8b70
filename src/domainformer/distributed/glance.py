"""A first look at a table that may be too large to read: its size, and some of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from domainformer.data import EventTable
from domainformer.data.meds import SUBJECT, TIME, is_meds
from domainformer.data.readers import Source, scan
from domainformer.distributed.progress import memory_bytes
from domainformer.errors import DataError
from domainformer.schema.roles import guess_entity, guess_time

SAMPLE_EVENTS = 200_000
_STRETCHES = 16
# Columns in memory, and what is made of them on the way, beside the bytes of the file's encoding.
_UNPACKED = 4


@dataclass(frozen=True)
class Glance:
    """What a first look has told.

    Args:
        source: Where the events lie: the path, or the folder of data within it.
        entity: The entity column, as named or guessed.
        time: The time column; None where there is none.
        sample: Some events, from stretches all over the files.
        n_files: Number of files.
        n_rows: Rows in all.
        n_bytes: Bytes of the columns as the files encode them, before compression.
        streamable: Whether the format can be read in parts.
    """

    source: str | Path
    entity: str
    time: str | None
    sample: EventTable
    n_files: int
    n_rows: int
    n_bytes: int
    streamable: bool

    def is_large(self, memory: int | str) -> bool:
        """Whether the table is to be streamed: several files, or more than the memory allows."""
        size = memory_bytes(memory)
        return self.streamable and (self.n_files > 1 or self.n_bytes * _UNPACKED > size)


def glance(
    path: str | Path,
    *,
    entity: str | None = None,
    time: str | None = None,
    known: Mapping[str, Any] | None = None,
    events: int = SAMPLE_EVENTS,
) -> Glance:
    """Look at Parquet files without reading them; tables of other formats are read whole.

    Args:
        path: A file, a pattern or a folder.
        entity: The entity column; None: as ``known`` says, else guessed where names make it plain.
        time: The time column; None: likewise.
        known: ``entity`` and ``time`` of a table that the events are like.
        events: How many to take as a sample.

    Raises:
        DataError: There are no files or rows, or one cannot be read.
        SchemaError: A column that was not named cannot be guessed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "events.parquet"
        >>> pl.DataFrame({"card_id": [1, 1, 2], "time": [1, 2, 1]}).write_parquet(file)
        >>> seen = glance(file, entity="card_id", time="time")
        >>> seen.n_rows, seen.sample.n_events, seen.is_large("1GB")
        (3, 3, False)
    """
    if entity in (None, SUBJECT) and is_meds(path):
        entity, time = SUBJECT, time or TIME
        path = Path(path) / "data"  # beside it lie tables that hold no events
    source = scan(path)
    streamable = source.format == "Parquet"
    footers = [_footer(file) for file in source.files] if streamable else []
    rows = [footer.num_rows for footer in footers]
    frame = _sample(source, rows, events) if streamable else source.collect()[0]
    if not frame.height:
        raise DataError("the table has no rows", where=str(path))
    own = dict(known or {})
    if entity is None and own.get("entity") in frame.columns:
        entity = own["entity"]
        time = time or (own.get("time") if own.get("time") in frame.columns else None)
    entity = entity or guess_entity(frame)
    time = time or guess_time(frame, entity)
    table = EventTable.of(frame, entity=entity, time=time, name=str(path))
    size = sum(f.row_group(i).total_byte_size for f in footers for i in range(f.num_row_groups))
    count = sum(rows) if streamable else frame.height
    return Glance(path, entity, time, table, len(source.files), count, size, streamable)


def _footer(file: Path) -> Any:
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "this Parquet file cannot be read",
            where=str(file),
            why=str(error).strip().partition("\n")[0],
            next_step="it may be truncated or damaged: write or copy it again",
        ) from error


def _sample(source: Source, rows: list[int], events: int) -> pl.DataFrame:
    """Equally long stretches at equal distances in the rows of all files."""
    total = sum(rows)
    if total <= events:
        return source.collect()[0]
    each = -(-events // _STRETCHES)
    starts = [number * (total - each) // (_STRETCHES - 1) for number in range(_STRETCHES)]
    frames, before = [], 0
    for index, count in enumerate(rows):
        for start in starts:
            first, stop = max(start, before) - before, min(start + each, before + count) - before
            if first < stop:
                part = source.open(index).slice(first, stop - first).collect()
                given = {name: values[index] for name, values in source.partitions.items()}
                frames.append(
                    part.with_columns(
                        pl.lit(value).alias(name)
                        for name, value in given.items()
                        if name not in part.columns
                    )
                )
        before += count
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "a column has different types in different files",
            where=source.name,
            why=str(error).strip().partition("\n")[0],
            next_step="write the files with one type",
        ) from error
