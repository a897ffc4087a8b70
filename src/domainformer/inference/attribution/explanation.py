"""What an attribution found, as tables: by unit, by token, by tabular feature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

DISCLAIMER = (
    "An attribution says how a model's score is put together, not how the world works: a field "
    "that the model leans on need not cause what is predicted, and one that it ignores may. "
    "Fields that tell the same share or steal each other's part."
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attributions of some examples' scores to what the model read.

    Distances count from the newest event of the row, which has distance 0; of a next-event score
    that is the event that is asked about, of which only the fields before the question are read.

    Args:
        method: ``integrated-gradients`` or ``occlusion``.
        settings: Of the method.
        subject: What is explained, in words (``log-odds of churned = yes``).
        examples: One row per example: ``example`` (its number), ``key``, ``choice`` (the class,
            null where there are none), ``asked`` (the value that a next-event score is about, else
            null), ``n_events``, ``score`` f(x), ``baseline`` f(x') with
            everything absent, ``total`` (the attributions' sum) and ``gap``: ``total`` −
            (``score`` − ``baseline``), 0 for a complete attribution.
        units: One row per field of an event: ``example``, ``event`` (0 is the oldest),
            ``distance``, ``field`` (null where whole events were left out), ``value`` in words,
            ``attribution``.
        tokens: One row per token: ``example``, ``position``, ``event``, ``distance``, ``field``,
            ``token``, ``attribution``; None where the method has none.
        features: One row per tabular feature: ``example``, ``feature``, ``attribution``.
        fields: All fields of events, in their order.
        notes: What a reader should know.
    """

    method: str
    settings: dict[str, Any]
    subject: str
    examples: pl.DataFrame
    units: pl.DataFrame
    tokens: pl.DataFrame | None
    features: pl.DataFrame
    fields: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def by_field(self) -> pl.DataFrame:
        """Sums over events: ``example``, ``field``, ``attribution``."""
        return (
            self.units.drop_nulls("field")
            .group_by("example", "field", maintain_order=True)
            .agg(pl.col("attribution").sum())
        )

    @property
    def by_event(self) -> pl.DataFrame:
        """Sums over fields: ``example``, ``event``, ``distance``, ``attribution``."""
        return self.units.group_by("example", "event", "distance", maintain_order=True).agg(
            pl.col("attribution").sum()
        )

    @property
    def convergence(self) -> dict[str, float] | None:
        """How complete integrated gradients are; None for other methods.

        ``steps``; ``largest_gap`` and ``mean_gap``, absolute, in units of the score; and
        ``relative_gap``: the mean gap as a share of the mean |f(x) − f(x')|.
        """
        if "steps" not in self.settings:
            return None
        gaps = np.abs(self.examples["gap"].to_numpy())
        moved = np.abs((self.examples["score"] - self.examples["baseline"]).to_numpy())
        return {
            "steps": float(self.settings["steps"]),
            "largest_gap": float(gaps.max()),
            "mean_gap": float(gaps.mean()),
            "relative_gap": float(gaps.mean() / max(moved.mean(), 1e-12)),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "method": self.method,
            "settings": self.settings,
            "subject": self.subject,
            "convergence": self.convergence,
            "fields": list(self.fields),
            "examples": _plain(self.examples),
            "units": _plain(self.units),
            "tokens": None if self.tokens is None else _plain(self.tokens),
            "features": _plain(self.features),
            "notes": list(self.notes),
            "disclaimer": DISCLAIMER,
        }


def _plain(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of plain values: keys may be times, which JSON does not know."""
    return [
        {name: _value(value) for name, value in row.items()} for row in frame.iter_rows(named=True)
    ]


def _value(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
