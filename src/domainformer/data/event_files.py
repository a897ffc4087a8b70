"""Many Parquet files as one stream of events, read in bounded memory.

::

    files, sorted by name ─▶ EventFiles ─▶ portions (runs of row groups) ─▶ read ─▶ RecordBatches
                             footers alone      units of parallel work         entity, time, columns

Batches hold what `EventTable.of` would make of the same rows: ids as integers or strings, times as
dates, microseconds or whole numbers, no row without an entity. They come in the order of the files
and rows, which is the order of ties. Strings come by dictionary wherever they repeat, so that no
later stage looks at a string twice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from domainformer.data import columns as col
from domainformer.data import readers
from domainformer.data.frames import check_columns
from domainformer.data.keys import TimeKind
from domainformer.errors import DataError

PORTION_ROWS = 1 << 21
_BATCH_ROWS = 1 << 17
_TAIL = 8  # length of the footer and the magic number
_ERRORS = (pa.ArrowException, OSError)


@dataclass(frozen=True)
class Portion:
    """Consecutive row groups, of one or several files.

    Args:
        index: Position among the portions, from 0.
        pieces: ``(file, first row group, one past the last)``, in order.
        rows: Rows in all.
    """

    index: int
    pieces: tuple[tuple[int, int, int], ...]
    rows: int


@dataclass
class Seen:
    """What reading has found on the way, added up over batches and portions.

    Args:
        rows: Events handed on.
        dropped: Rows without an entity.
        timed: Events with a time.
        midnight: Whether every time so far was a day without a time of day.
    """

    rows: int = 0
    dropped: int = 0
    timed: int = 0
    midnight: bool = True

    def add(self, other: Seen) -> None:
        """Add what another reader has found."""
        self.rows += other.rows
        self.dropped += other.dropped
        self.timed += other.timed
        self.midnight &= other.midnight


@dataclass(frozen=True)
class EventFiles:
    """Parquet files that together are one table of events; open them by :meth:`of`.

    Picklable: workers on other machines read the same paths.

    Args:
        files: Paths in the order of ties.
        entity: The entity column.
        time: The time column, or None.
        types: Names and types of what :meth:`read` gives, entity and time first.
        group_rows: Rows of each row group of each file.
        constants: Columns that folders named ``key=value`` give, one value a file.
        fingerprint: Changes when any file is written anew.
        text_times: Whether times are strings, whose days alone count as dates.
    """

    files: tuple[str, ...]
    entity: str
    time: str | None
    types: pa.Schema
    group_rows: tuple[tuple[int, ...], ...]
    constants: dict[str, list[Any]] = field(default_factory=dict)
    fingerprint: str = ""
    text_times: bool = False

    @classmethod
    def of(
        cls,
        paths: str | Path | Sequence[str | Path],
        *,
        entity: str,
        time: str | None,
        columns: Sequence[str] = (),
    ) -> EventFiles:
        """Find files and read their footers.

        Args:
            paths: A file, a pattern, a folder, or several of these. Files are taken in the order
                of their paths, however they were given.
            entity: The entity column.
            time: The time column; None where only the order of rows is known.
            columns: Further columns to read.

        Raises:
            DataError: There are no Parquet files or rows, a column is missing, or its types in
                the files do not go together.
        """
        files, constants = _find(paths)
        footers = [_footer(file) for file in files]
        wanted = list(dict.fromkeys([entity, *([time] if time else []), *columns]))
        if entity == time:
            raise DataError(f"{entity!r} cannot be both the entity and the time column")
        stored = []
        for file, footer in zip(files, footers, strict=True):
            schema = footer.schema.to_arrow_schema()
            check_columns(wanted, [*schema.names, *constants], where=str(file))
            stored.append(schema)
        given = {name: pa.array(values).type for name, values in constants.items()}
        types, text_times = col.common_types(wanted, stored, given, entity=entity, time=time)
        rows = tuple(
            tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
            for footer in footers
        )
        if not sum(map(sum, rows)):
            raise DataError("the files have no rows", where=str(files[0]))
        named = tuple(map(str, files))
        mark = _fingerprint(files, constants)
        return cls(named, entity, time, types, rows, constants, mark, text_times)

    @property
    def n_rows(self) -> int:
        """Rows of all files, with or without an entity."""
        return sum(map(sum, self.group_rows))

    def portions(
        self, rows: int = PORTION_ROWS, *, whole_entities: bool = False
    ) -> list[Portion] | None:
        """Cut the files into units of about ``rows`` rows, at least one row group each.

        Args:
            rows: Rows to aim at.
            whole_entities: Cut only where another entity begins, by the bounds in the footers;
                None where these say that the files are not sorted by entity.
        """
        groups = [
            (file, group, count)
            for file, counts in enumerate(self.group_rows)
            for group, count in enumerate(counts)
            if count
        ]
        cuttable = [True] * len(groups)
        if whole_entities:
            bounds = [self._bounds(file, group) for file, group, _ in groups]
            for i, (before, after) in enumerate(itertools.pairwise(bounds), start=1):
                if before is None or after is None or before[1] > after[0]:
                    return None
                cuttable[i] = before[1] < after[0]
            if bounds[0] is None:
                return None
        portions: list[Portion] = []
        start = count = 0
        for i, (_, _, size) in enumerate(groups):
            count += size
            last = i + 1 == len(groups)
            if last or (count >= rows and cuttable[i + 1]):
                portions.append(Portion(len(portions), _pieces(groups[start : i + 1]), count))
                start, count = i + 1, 0
        return portions

    def read(
        self, portion: Portion, seen: Seen, *, batch_rows: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The events of a portion, normalised, batch by batch.

        Args:
            portion: One of :meth:`portions`.
            seen: Is added to on the way.
            batch_rows: Rows to read at once.

        Raises:
            DataError: A file is damaged, or holds ids or times that cannot be used.
        """
        for file, first, stop in portion.pieces:
            row = sum(self.group_rows[file][:first])
            for batch in self._batches(file, range(first, stop), batch_rows):
                yield self._normalised(batch, file, row, seen)
                row += batch.num_rows

    def time_kind(self, seen: Seen) -> TimeKind:
        """The kind of the times, once every portion has been read."""
        if self.time is None:
            return "none"
        if pa.types.is_integer(self.types.field(self.time).type):
            return "integer"
        return "date" if seen.midnight else "datetime"

    @cached_property
    def strings(self) -> list[str]:
        """Columns of strings or bytes."""
        return [f.name for f in self.types if col.is_stringy(f.type)]

    def _batches(self, file: int, groups: range, batch_rows: int) -> Iterator[pa.RecordBatch]:
        path = self.files[file]
        # Ids are read as they are: a dictionary as long as the rows would cost twice as much.
        repeated = [n for n in self.strings if n not in self.constants and n != self.entity]
        try:
            # A buffered stream reads pages as they are needed, not whole column chunks.
            with pq.ParquetFile(
                path, read_dictionary=repeated, pre_buffer=False, buffer_size=1 << 20
            ) as opened:
                # A column of the file comes before one that its folder gives.
                own = [name for name in self.types.names if name in opened.schema_arrow.names]
                yield from opened.iter_batches(
                    batch_rows, row_groups=list(groups), columns=own, use_threads=False
                )
        except _ERRORS as error:
            raise _damaged(path, error) from error

    def _normalised(self, batch: pa.RecordBatch, file: int, row: int, seen: Seen) -> pa.RecordBatch:
        """Columns in the common types, without the rows that have no entity."""
        where = self.files[file]
        present = {name: batch.column(name) for name in batch.schema.names}
        for name, values in self.constants.items():
            if name not in present:
                present[name] = pa.repeat(pa.scalar(values[file]), batch.num_rows)
        arrays = []
        for spec in self.types:
            place = col.Place(spec.name, where, row)
            if spec.name == self.entity:
                array = col.entities(present[spec.name], spec.type, place)
            elif spec.name == self.time:
                array = col.times(present[spec.name], spec.type, place)
            else:
                array = col.plain(present[spec.name], spec.type, place)
            arrays.append(array)
        named = pa.RecordBatch.from_arrays(arrays, names=self.types.names)
        missing = named.column(self.entity).null_count
        if missing:
            named = named.filter(named.column(self.entity).is_valid())
        seen.dropped += missing
        seen.rows += named.num_rows
        if self.time is not None:
            times = named.column(self.time)
            seen.timed += len(times) - times.null_count
            seen.midnight = seen.midnight and col.all_midnight(times)
        return named

    def _bounds(self, file: int, group: int) -> tuple[Any, Any] | None:
        """Smallest and largest entity of a row group as its footer has them."""
        if self.entity in self.constants:
            return (self.constants[self.entity][file],) * 2
        footer = self._footers[file]
        index = footer.schema.to_arrow_schema().names.index(self.entity)
        nested = footer.row_group(group).num_columns != len(footer.schema.to_arrow_schema().names)
        statistics = None if nested else footer.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max or statistics.null_count:
            return None
        return statistics.min, statistics.max

    @cached_property
    def _footers(self) -> list[Any]:
        return [_footer(Path(file)) for file in self.files]

    def __getstate__(self) -> dict[str, Any]:
        # Footers can be large, and workers do not need them.
        return {key: value for key, value in self.__dict__.items() if key != "_footers"}


def _pieces(groups: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Row groups as one stretch per file."""
    pieces = []
    for file, rows in itertools.groupby(groups, key=lambda entry: entry[0]):
        numbers = [group for _, group, _ in rows]
        pieces.append((file, numbers[0], numbers[-1] + 1))
    return tuple(pieces)


def _find(paths: str | Path | Sequence[str | Path]) -> tuple[list[Path], dict[str, list[Any]]]:
    """Files of all paths by name, and the values that their folders give."""
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise DataError("no files were given", next_step="pass a path, a pattern or a folder")
    found: dict[Path, dict[str, Any]] = {}
    for path in given:
        source = readers.scan(path)
        if source.format != "Parquet":
            raise DataError(
                f"large tables are read from Parquet, and {path} is {source.format}",
                next_step="convert it before, for example with polars' "
                "scan_csv(…).sink_parquet(…), or read it whole with EventTable.read",
            )
        for index, file in enumerate(source.files):
            if file in found:
                raise DataError(
                    "a file was given twice", where=str(file), next_step="name each file once"
                )
            found[file] = {name: values[index] for name, values in source.partitions.items()}
    files = sorted(found, key=lambda file: file.as_posix())
    names = sorted({name for values in found.values() for name in values})
    return files, {name: [found[file].get(name) for file in files] for name in names}


def _footer(file: Path) -> Any:
    try:
        return pq.read_metadata(file)
    except _ERRORS as error:
        raise _damaged(str(file), error) from error


def _fingerprint(files: Sequence[Path], constants: Mapping[str, Sequence[Any]]) -> str:
    """A name for the content of files by footers, sizes, times of writing and named folders."""
    digest = hashlib.sha256()
    for index, file in enumerate(files):
        given = {name: str(values[index]) for name, values in sorted(constants.items())}
        about = file.stat()
        with file.open("rb") as handle:
            handle.seek(max(0, about.st_size - _TAIL))
            length = int.from_bytes(handle.read(4), "little")
            handle.seek(max(0, about.st_size - _TAIL - length))
            footer = hashlib.sha256(handle.read()).hexdigest()
        digest.update(
            f"{file.name}|{about.st_size}|{about.st_mtime_ns}|{footer}|{given}\n".encode()
        )
    return digest.hexdigest()[:16]


def _damaged(path: str, error: BaseException) -> DataError:
    return DataError(
        "this Parquet file cannot be read",
        where=path,
        why=str(error).strip().partition("\n")[0] or type(error).__name__,
        next_step="it may be truncated or damaged: write or copy it again",
    )


def frame_of(batch: pa.RecordBatch) -> pl.DataFrame:
    """A batch as a polars frame; strings that repeat are stored once.

    Example:
        >>> kinds = pa.array(["tea", "cake", "tea"]).dictionary_encode()
        >>> frame_of(pa.RecordBatch.from_arrays([kinds], names=["kind"]))["kind"].to_list()
        ['tea', 'cake', 'tea']
    """
    return pl.DataFrame(
        [
            series_of(array).alias(name)
            for name, array in zip(batch.schema.names, batch.columns, strict=True)
        ]
    )


def series_of(array: pa.Array) -> pl.Series:
    """An Arrow array as a polars series of plain values; a dictionary is looked up, not kept."""
    if not pa.types.is_dictionary(array.type):
        series: pl.Series = pl.from_arrow(array)  # type: ignore[assignment]
        return series
    values: pl.Series = pl.from_arrow(array.dictionary)  # type: ignore[assignment]
    codes = array.indices
    if not codes.null_count:
        return values.gather(codes.to_numpy(zero_copy_only=False))
    values = values.extend(pl.Series([None], dtype=values.dtype))
    known = codes.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    return values.gather(np.asarray(known))
