"""The label of each entity, read from the run's own table again to colour the map."""

from __future__ import annotations

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DomainformerError
from domainformer.evaluation import read_labels
from domainformer.run import RunRecord


def labels_of(record: RunRecord, label: str) -> pl.DataFrame | None:
    """Entity column and label column of a run's table.

    Returns:
        None where the table is gone, or does not hold the label (it came from a table of its own):
        the map then does without, and nothing else of the report needs it.
    """
    data = record.config.get("data") or {}
    if not data.get("path") or not data.get("entity"):
        return None
    try:
        table = EventTable.read(
            data["path"], entity=data["entity"], time=data.get("time"), columns=[label]
        )
        return read_labels(table, None, label)
    except DomainformerError:
        return None
