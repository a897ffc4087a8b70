"""The Medical Event Data Standard: folders of patients' events.

::

    folder/data/**/*.parquet     subject_id  time  code  numeric_value  …
    folder/metadata/…            (not needed here)

Static facts (sex, birth cohort) have no time and come first within their patient. The ``meds``
package is not needed. Source: https://github.com/Medical-Event-Data-Standard/meds, version 0.3
and 0.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from domainformer.data import readers
from domainformer.data.table import EventTable
from domainformer.errors import DataError

SUBJECT, TIME, CODE, VALUE = "subject_id", "time", "code", "numeric_value"


def is_meds(path: str | Path) -> bool:
    """Whether a path is a folder laid out by the standard: Parquet files under ``data/``."""
    data = Path(path) / "data"
    if not data.is_dir():
        return False
    first = next(data.rglob("*.parquet"), None)
    return first is not None and {SUBJECT, TIME, CODE} <= set(readers.scan(first).schema())


def read_meds(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    drop_duplicates: bool = False,
) -> EventTable:
    """Read a MEDS folder, or one of its files, as an EventTable by patient and time.

    Args:
        path: The folder that holds ``data/``, or a Parquet file or pattern below it.
        columns: Columns to keep beside ``subject_id``, ``time`` and ``code``; ``None`` keeps all.
        drop_duplicates: Leave out rows that repeat an earlier row in every column read.

    Raises:
        DataError: There are no files, a column is missing or of a wrong type, or a code is null.
    """
    place = Path(path) / "data" if (Path(path) / "data").is_dir() else path
    source = readers.scan(place)
    _check(source)
    wanted = None if columns is None else list(dict.fromkeys([SUBJECT, TIME, CODE, *columns]))
    frame, _ = source.collect(wanted)
    missing = frame[CODE].is_null()
    if missing.any():
        raise DataError(
            f"{missing.sum():,} events have no code",
            where=source.locate(missing.arg_max() or 0),
            why="the standard requires one",
            next_step="give them a code, or leave these rows out",
        )
    notes = []
    if drop_duplicates:
        height = frame.height
        frame = frame.unique(keep="first", maintain_order=True)
        notes.append(f"{height - frame.height:,} exact duplicates were left out")
    table = EventTable.of(frame, entity=SUBJECT, time=TIME, name=source.name)
    static = table.frame[TIME].null_count()
    if static:
        notes.append(f"{static:,} events have no time; they come first within their patient")
    table.notes.extend(notes)
    return table


def _check(source: readers.Source) -> None:
    """Compare the columns with the standard's, before anything is read."""
    schema = source.schema()
    expected: dict[str, tuple[str, Callable[[pl.DataType], bool]]] = {
        SUBJECT: ("a 64-bit integer", lambda dtype: dtype.is_integer()),
        TIME: ("a timestamp", lambda dtype: dtype == pl.Datetime),
        CODE: ("a string", lambda dtype: dtype in (pl.String, pl.Categorical, pl.Enum)),
        VALUE: ("a 32-bit float", lambda dtype: dtype.is_float()),
    }
    for name, (kind, fits) in expected.items():
        if name not in schema and name == VALUE:
            continue  # optional since version 0.4
        if name not in schema or not fits(schema[name]):
            raise DataError(
                f"this is no MEDS table: {name!r} should be {kind}",
                where=str(source.files[0]),
                why=f"it is {schema[name]}" if name in schema else f"it has {', '.join(schema)}",
                next_step="read it with EventTable.read(path, entity=…, time=…)",
            )
