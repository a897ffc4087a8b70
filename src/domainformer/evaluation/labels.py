"""Labels: one value per entity, from a column of the events or from a table of their own."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DataError, nearest


def read_labels(
    source: EventTable | pl.DataFrame | str | Path, entity: str | None, column: str
) -> pl.DataFrame:
    """One label per entity.

    Args:
        source: An event table (or its frame, or a Parquet or CSV file) that repeats the label on
            each of an entity's rows, or a table with one row per entity.
        entity: The entity column; an :class:`EventTable` knows its own (pass None).
        column: The label column.

    Returns:
        Entity column and label column, one row per entity in order of first appearance.

    Raises:
        DataError: A column is missing, the label varies within an entity, or is null everywhere.

    Example:
        >>> rows = pl.DataFrame({"card": [1, 1, 2], "churned": [0, 0, 1]})
        >>> read_labels(rows, "card", "churned").rows()
        [(1, 0), (2, 1)]
    """
    where = str(source) if isinstance(source, str | Path) else "the table"
    frame, entity = _frame(source, entity)
    for name in (entity, column):
        if name not in frame.columns:
            raise DataError(
                f"there is no column {name!r}", where=where, next_step=nearest(name, frame.columns)
            )
    rows = frame.select(entity, column).drop_nulls(entity)
    distinct = rows.drop_nulls(column).unique(maintain_order=True)
    if not distinct.height:
        raise DataError(f"the label {column!r} is null in every row", where=where)
    twice = distinct.filter(pl.col(entity).is_duplicated())
    if twice.height:
        first = twice[entity][0]
        values = twice.filter(pl.col(entity) == first)[column].to_list()
        raise DataError(
            f"the label {column!r} varies within {twice[entity].n_unique()} entities",
            where=f"{where}, entity {first!r}",
            why=f"it has the values {', '.join(map(repr, values[:4]))}",
            next_step="a probe needs one label per entity: aggregate it, or label a cut-off date",
        )
    entities = rows.select(entity).unique(maintain_order=True)
    return entities.join(distinct, on=entity, how="left", maintain_order="left")


def _frame(
    source: EventTable | pl.DataFrame | str | Path, entity: str | None
) -> tuple[pl.DataFrame, str]:
    if isinstance(source, EventTable):
        return source.frame, entity or source.entity
    if entity is None:
        raise DataError(
            "the entity column is not given", next_step="name it: read_labels(path, entity, column)"
        )
    if isinstance(source, pl.DataFrame):
        return source, entity
    path = Path(source)
    if not path.is_file():
        raise DataError(f"there is no file {path}", next_step="check the path")
    try:
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            return pl.read_csv(path, separator=separator, infer_schema_length=None), entity
        return pl.read_parquet(path), entity
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read", why=str(error), next_step="give a Parquet or CSV file"
        ) from error
