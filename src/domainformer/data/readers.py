"""Opening files of events as polars frames.

Files are scanned lazily, so that only the columns asked for are read::

    scan(path) ─▶ Source(files, format) ─▶ .collect(columns) ─▶ DataFrame, notes
                        └─▶ .locate(row): "2024.parquet, row 17", for errors

A path is a file, a pattern, or a folder; folders named ``key=value`` become columns (hive).
Files are taken in the order of their names, and that is the order of ties. A new file format is
one entry in ``_FORMATS`` and one branch in ``Source.open``.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from domainformer.data import delimited
from domainformer.data.frames import check_columns
from domainformer.errors import DataError, nearest

_FORMATS = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".csv.gz": "CSV",
    ".tsv.gz": "CSV",
    ".arrow": "Arrow",
    ".feather": "Arrow",
    ".ipc": "Arrow",
    ".arrows": "Arrow",
}
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
# A damaged file can make polars panic, and a panic is no PolarsError.
_READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@dataclass(frozen=True)
class Source:
    """Files of one format that together are one table.

    Args:
        name: The path as the user gave it.
        files: The files in reading order.
        format: ``"Parquet"``, ``"CSV"`` or ``"Arrow"``.
        partitions: Columns that the folders' names give, one value a file.
    """

    name: str
    files: tuple[Path, ...]
    format: str
    partitions: dict[str, pl.Series] = field(default_factory=dict)

    def schema(self, index: int = 0) -> dict[str, pl.DataType]:
        """Names and types of the columns of one file; CSV columns are text until they are read."""
        try:
            own = dict(self.open(index).collect_schema())
        except _READ_ERRORS as error:
            raise self._damaged(index, error) from error
        return own | {
            name: values.dtype for name, values in self.partitions.items() if name not in own
        }

    def collect(
        self, columns: Sequence[str] | None = None, *, text: Iterable[str] = ()
    ) -> tuple[pl.DataFrame, list[str]]:
        """Read the columns asked for into one frame, files one after another, with remarks.

        Args:
            columns: Names of columns, others are not read; ``None`` reads all.
            text: CSV columns that stay text even where their cells look like numbers.

        Raises:
            DataError: A file is damaged, lacks a column, or holds values of mixed types.
        """
        schemas = [self.schema(index) for index in range(len(self.files))]
        names = list(schemas[0]) if columns is None else list(columns)
        for index, schema in enumerate(schemas):
            self._check(index, schema, names, schemas[0], every_column=columns is None)
        check_columns(text, schemas[0], where=self.name)
        frames = []
        for index, schema in enumerate(schemas):
            frame = self.open(index)
            given = [
                pl.lit(self.partitions[name][index], dtype=schema[name]).alias(name)
                for name in names
                if name in self.partitions and name not in frame.collect_schema()
            ]
            frames.append(frame.with_columns(given).select(names))
        data = self._collect(frames)
        if self.format != "CSV":
            return data, []
        return delimited.infer_types(data, keep=set(text), locate=self.locate)

    def locate(self, row: int) -> str:
        """The file, and the row within it counted from 1, of a row of the whole table."""
        for index, file in enumerate(self.files):
            height = self.open(index).select(pl.len()).collect().item()
            if row < height:
                return f"{file}, row {row + 1:,}"
            row -= height
        return self.name

    def open(self, index: int) -> pl.LazyFrame:
        """One of the files, not yet read."""
        file = self.files[index]
        if self.format == "Parquet":
            return pl.scan_parquet(file, hive_partitioning=False, glob=False)
        if self.format == "CSV":
            return delimited.scan(file)
        with file.open("rb") as handle:
            is_stream = handle.read(6) != b"ARROW1"
        if is_stream:
            return pl.read_ipc_stream(file).lazy()
        return pl.scan_ipc(file, hive_partitioning=False)

    def _collect(self, frames: list[pl.LazyFrame]) -> pl.DataFrame:
        try:
            return pl.concat(frames, how="vertical_relaxed").collect()
        except _READ_ERRORS as error:
            for index, frame in enumerate(frames):  # which of the files was it?
                try:
                    frame.collect()
                except _READ_ERRORS as cause:
                    raise self._damaged(index, cause) from cause
            raise DataError(f"{self.name} cannot be read", why=str(error)) from error

    def _check(
        self,
        index: int,
        schema: dict[str, pl.DataType],
        names: list[str],
        first: dict[str, pl.DataType],
        *,
        every_column: bool,
    ) -> None:
        """Whether a file has the columns, and the types, of the first one."""
        where = str(self.files[index])
        check_columns(names, schema, where=where)
        if every_column and (extra := sorted(set(schema) - set(first))):
            raise DataError(
                f"the files of {self.name} have different columns",
                where=where,
                why=f"it has {', '.join(extra)}, which {self.files[0]} lacks",
                next_step="name the columns to read (columns=…), or write the files alike",
            )
        for name in names:
            pair = (first[name], schema[name])
            alike = pair[0] == pair[1] or pl.Null in pair
            times = all(map(_is_time, pair)) and len(set(map(_zone, pair))) == 1
            if not (alike or times or all(map(_is_number, pair))):
                raise DataError(
                    f"the column {name!r} has different types in different files",
                    where=where,
                    why=f"it is {pair[1]} here and {pair[0]} in {self.files[0]}",
                    next_step="write the files with one type",
                )

    def _damaged(self, index: int, error: BaseException) -> DataError:
        file = self.files[index]
        if self.format == "CSV":
            return delimited.explain(file, error)
        return DataError(
            f"this {self.format} file cannot be read",
            where=str(file),
            why=str(error).strip().partition("\n")[0] or type(error).__name__,
            next_step="it may be truncated or damaged: write or copy it again "
            f"(it has {file.stat().st_size:,} bytes)",
        )


def scan(path: str | Path) -> Source:
    """Find the files behind a path without reading them.

    Args:
        path: A file, a pattern (``*``, ``?``, ``[…]``, ``**``), or a folder, which is searched
            through. ``key=value`` folders below a folder or pattern become columns.

    Raises:
        DataError: Nothing is there, the format is unknown, or formats are mixed.
    """
    name, place = str(path), Path(path)
    root = place
    if place.is_dir():
        found = [file for file in place.rglob("*") if not _is_hidden(file.relative_to(place))]
        files = [file for file in found if file.is_file() and _format_of(file)]
    elif place.is_file():
        files = [place]
    elif glob.has_magic(name):
        files = [file for file in map(Path, glob.glob(name, recursive=True)) if file.is_file()]
        root = Path(re.split(r"[*?\[]", name, maxsplit=1)[0] + "x").parent
    else:
        known = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError(f"there is no file {name}", next_step=nearest(place.name, known))
    kinds = {_format_of(file) for file in files}
    if not files or None in kinds:
        raise DataError(
            f"there are no files of a known format in {name}",
            next_step="known are " + " ".join(_FORMATS),
        )
    if len(kinds) > 1:
        raise DataError(
            f"{name} holds files of different formats",
            why=", ".join(sorted(str(kind) for kind in kinds)),
            next_step="use a pattern that takes one of them, such as 'folder/**/*.parquet'",
        )
    files.sort(key=lambda file: file.as_posix())
    partitions = _partitions(root, files) if root != place or place.is_dir() else {}
    return Source(name, tuple(files), str(kinds.pop()), partitions)


def _partitions(root: Path, files: Sequence[Path]) -> dict[str, pl.Series]:
    """Columns given by folders named ``key=value``: whole numbers, dates, or else strings."""
    rows = []
    for file in files:
        parts = (part.partition("=") for part in file.relative_to(root).parts[:-1])
        values = {key: unquote(value) for key, sign, value in parts if sign}
        rows.append({key: None if value == _HIVE_NULL else value for key, value in values.items()})
    names = list(dict.fromkeys(name for row in rows for name in row))
    raw = pl.DataFrame({name: pl.Series([row.get(name) for row in rows]) for name in names})
    typed, _ = delimited.infer_types(raw, keep=set(), locate=lambda row: str(files[row]))
    return {column.name: column for column in typed.iter_columns()}


def _format_of(file: Path) -> str | None:
    name = file.name.lower()
    return next((kind for suffix, kind in _FORMATS.items() if name.endswith(suffix)), None)


def _is_hidden(file: Path) -> bool:
    """Writers leave ``_SUCCESS``, ``_metadata`` and ``.crc`` files that are no data."""
    return any(part.startswith((".", "_")) and "=" not in part for part in file.parts)


def _is_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric()


def _is_time(dtype: pl.DataType) -> bool:
    return dtype in (pl.Date, pl.Datetime)


def _zone(dtype: pl.DataType) -> str | None:
    return dtype.time_zone if isinstance(dtype, pl.Datetime) else None
