"""Tables of polars, pandas and pyarrow as one polars frame, with checked column names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from domainformer.errors import DataError, nearest


def to_polars(data: Any, *, columns: Sequence[str] | None, where: str) -> pl.DataFrame:
    """A polars, pandas or pyarrow table as a polars frame with the columns asked for.

    Args:
        data: A polars DataFrame or LazyFrame, a pandas DataFrame (a named index becomes a
            column), or a pyarrow Table.
        columns: Names in the order wanted; ``None`` keeps all.
        where: Named in errors.

    Raises:
        DataError: A column is missing, repeated, or of mixed types; or the type is unknown.

    Example:
        >>> to_polars(pl.LazyFrame({"a": [1], "b": [2]}), columns=["b"], where="x").to_dicts()
        [{'b': 2}]
    """
    library = type(data).__module__.partition(".")[0]
    if isinstance(data, pl.LazyFrame):
        check_columns(columns or (), data.collect_schema(), where=where)
        data = (data.select(columns) if columns is not None else data).collect()
    elif library == "pandas" and hasattr(data, "columns"):
        data = _from_pandas(data, columns, where)
    elif library == "pyarrow" and hasattr(data, "column_names"):
        check_unique(data.column_names, where=where)
        data = pl.from_arrow(data)
    if not isinstance(data, pl.DataFrame):
        raise DataError(
            f"{where} has the type {type(data).__name__}",
            next_step="give a polars or pandas DataFrame, a polars LazyFrame, or a pyarrow Table",
        )
    check_columns(columns or (), data.columns, where=where)
    frame = data if columns is None else data.select(columns)
    for name, dtype in frame.schema.items():
        if dtype == pl.Object:
            raise DataError(
                f"the column {name!r} holds Python objects",
                where=where,
                next_step="cast it to numbers, strings or times, or leave it out (columns=…)",
            )
    return frame


def check_columns(wanted: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Raise a DataError that names the nearest column for the first that is missing."""
    known = list(known)
    for name in wanted:
        if name not in known:
            raise DataError(
                f"there is no column {name!r}", where=where, next_step=nearest(name, known)
            )


def check_unique(names: Iterable[str], *, where: str) -> None:
    """Raise a DataError for the first column name that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"the column {name!r} occurs twice",
                where=where,
                next_step="rename or drop one of the two",
            )
        seen.add(name)


def _from_pandas(data: Any, columns: Sequence[str] | None, where: str) -> pl.DataFrame:
    if any(name is not None for name in data.index.names):
        data = data.reset_index()
    check_unique(map(str, data.columns), where=where)
    data = data.rename(columns=str)
    check_columns(columns or (), data.columns, where=where)
    series = []
    for name in data.columns if columns is None else columns:
        try:
            series.append(pl.Series(name, pl.from_pandas(data[name])))
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise _mixed_objects(data[name], where, error) from error
    return pl.DataFrame(series)


def _mixed_objects(column: Any, where: str, error: Exception) -> DataError:
    """Name the first value whose type is not the commonest one of its column."""
    kinds = [type(value).__name__ for value in column]
    missing = column.isna().tolist()
    present = [kind for kind, is_missing in zip(kinds, missing, strict=True) if not is_missing]
    common = max(set(present), key=present.count)
    for row, (kind, is_missing) in enumerate(zip(kinds, missing, strict=True)):
        if kind != common and not is_missing:
            return DataError(
                f"the column {column.name!r} holds values of mixed types",
                where=f"{where}, row {row + 1:,}",
                why=f"most are {common}, this one is {kind}: {column.iloc[row]!r}",
                next_step="cast the column to one type before (pandas: astype)",
            )
    return DataError(f"the column {column.name!r} cannot be used", where=where, why=str(error))
