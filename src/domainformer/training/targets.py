"""Entity labels as classification targets, and how good predicted probabilities are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable, readers
from domainformer.errors import DataError, nearest

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

UNLABELLED = -1


@dataclass(frozen=True)
class Targets:
    """A class for each entity.

    Args:
        classes: The values of the label, sorted.
        codes: int64 [n_entities], index into ``classes``; −1 where the label is null.
    """

    classes: list[Any]
    codes: Classes


def read_targets(
    table: EventTable, label: str, label_table: str | Path | pl.DataFrame | None = None
) -> Targets:
    """The class of each entity of a table.

    Args:
        table: The events; the label may be one of its columns, constant within each entity.
        label: The label's column.
        label_table: Table with the entity column and the label, one row per entity; None: the
            label is a column of the events.

    Raises:
        DataError: The column is missing, varies within an entity, or has fewer than two classes.

    Example:
        >>> frame = pl.DataFrame({"who": [1, 1, 2, 3], "good": ["y", "y", "n", None]})
        >>> targets = read_targets(EventTable.of(frame, entity="who"), "good")
        >>> targets.classes, targets.codes.tolist()
        (['n', 'y'], [1, 0, -1])
    """
    source = table.frame if label_table is None else _read(label_table, table.entity)
    where = "the events" if label_table is None else "the label table"
    for column in (table.entity, label):
        if column not in source.columns:
            raise DataError(
                f"there is no column {column!r}",
                where=where,
                next_step=nearest(column, source.columns),
            )
    pairs = source.select(table.entity, label).drop_nulls().unique()
    varying = pairs.filter(pl.col(table.entity).is_duplicated())
    if varying.height:
        raise DataError(
            f"the label {label!r} varies within {varying[table.entity].n_unique():,} entities",
            where=f"{where}, entity {varying[table.entity][0]!r}",
            next_step="classification needs one label per entity",
        )
    classes = pairs[label].unique().sort().to_list()
    if len(classes) < 2:
        raise DataError(
            f"the label {label!r} has {len(classes)} class(es), and two are needed",
            where=where,
            why=f"found {classes}",
        )
    pairs = pairs.cast({table.entity: table.entity_ids.dtype})
    entities = pl.DataFrame({table.entity: table.entity_ids})
    joined = entities.join(pairs, on=table.entity, how="left", maintain_order="left")
    numbers = pl.DataFrame({label: classes}).with_row_index("code")
    coded = joined.join(numbers, on=label, how="left", maintain_order="left")
    codes = coded["code"].cast(pl.Int64).fill_null(UNLABELLED).to_numpy()
    return Targets(classes, codes)


def score(probabilities: Floats, codes: Classes) -> dict[str, float]:
    """Accuracy, log-loss and AUROC, with the accuracy of always naming the commonest class.

    Args:
        probabilities: [n, classes], rows sum to 1.
        codes: True classes [n].

    Returns:
        AUROC is the mean over the classes that occur, each against the others; it is left out
        where only one class occurs.
    """
    clipped = np.clip(probabilities[np.arange(len(codes)), codes], 1e-12, 1.0)
    result = {
        "accuracy": float((probabilities.argmax(axis=1) == codes).mean()),
        "majority_accuracy": float(np.bincount(codes).max() / len(codes)),
        "log_loss": float(-np.log(clipped).mean()),
    }
    present = np.unique(codes)
    if len(present) > 1:
        # Of two classes, one ranking tells both.
        one_sided = present if probabilities.shape[1] > 2 else present[-1:]
        result["auroc"] = float(
            np.mean([auroc(probabilities[:, c], codes == c) for c in one_sided])
        )
    return result


def auroc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counted half.

    ::

        AUROC = (Σ ranks of positives − n₊(n₊ + 1)/2) / (n₊ n₋)

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", 1982.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True]))
        0.875
    """
    ranks = pl.Series(scores).rank("average").to_numpy()
    positives = int(positive.sum())
    negatives = len(scores) - positives
    above = float(ranks[positive].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def _read(source: str | Path | pl.DataFrame, entity: str) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return source
    frame, _ = readers.scan(source).collect(None)
    if entity not in frame.columns:
        raise DataError(
            f"the label table has no column {entity!r}",
            where=str(source),
            next_step=nearest(entity, frame.columns),
        )
    return frame
