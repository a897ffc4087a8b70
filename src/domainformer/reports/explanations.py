"""Explanations as plain data, as a section of a report, and as pages of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from domainformer.artifacts import write_json, write_text
from domainformer.errors import ConfigError
from domainformer.inference.attribution import (
    DISCLAIMER,
    AttentionMap,
    AttributionSummary,
    Explanation,
    rank_agreement,
)
from domainformer.reports.markup import tag
from domainformer.reports.page import document
from domainformer.reports.sections.explanation import draw
from domainformer.version import __version__

_SHOWN = 2


def tell(
    explanation: Explanation,
    *,
    summary: AttributionSummary | None = None,
    permuted: pl.DataFrame | None = None,
    attention: tuple[Any, AttentionMap] | None = None,
    model: str = "",
    shown: int = _SHOWN,
) -> dict[str, Any]:
    """What a page tells of an explanation, as plain data.

    Args:
        explanation: The explanation.
        summary: Its importances.
        permuted: The check of them.
        attention: A key and its attention map, which is shown as no explanation.
        model: A sentence about what is explained.
        shown: Histories to show: those whose score is moved most, both ways.
    """
    asks_next = explanation.subject.startswith("log-probability")
    agreement = None
    if summary is not None and permuted is not None:
        agreement = rank_agreement(summary, permuted)
    moved = (explanation.examples["score"] - explanation.examples["baseline"]).to_numpy()
    order = np.argsort(moved, kind="stable")
    ends = dict.fromkeys(int(i) for pair in zip(order[::-1], order, strict=True) for i in pair)
    return {
        "subject": explanation.subject,
        "model": model,
        "method": explanation.method,
        "settings": explanation.settings,
        "convergence": explanation.convergence,
        "n_examples": explanation.examples.height,
        "asks_next": asks_next,
        "summary": None if summary is None else summary.to_json(),
        "permuted": None if permuted is None else permuted.to_dicts(),
        "agreement": agreement,
        "histories": [_history(explanation, i, asks_next) for i in list(ends)[:shown]],
        "attention": None
        if attention is None
        else {
            "key": str(attention[0]),
            "label": attention[1].label,
            "by_field": attention[1].by_field.to_dicts(),
        },
        "notes": explanation.notes,
        "disclaimer": DISCLAIMER,
    }


def write_explanation(path: str | Path, told: dict[str, Any], explanation: Explanation) -> Path:
    """Write one self-contained page (``.html``), or all that was found (``.json``).

    Args:
        path: The file; it is replaced where it exists.
        told: As :func:`tell` gives it.
        explanation: What it tells of.

    Raises:
        ConfigError: The file has another ending.
        ArtifactError: It cannot be written.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    path = Path(path)
    if path.suffix == ".json":
        write_json(path, {**told, "explanation": explanation.to_json()})
    elif path.suffix in (".html", ".htm"):
        write_text(path, _page(told))
    else:
        raise ConfigError(
            f"{path.name} is neither a page nor JSON", next_step="name it FILE.html or FILE.json"
        )
    return path


def _page(told: dict[str, Any]) -> str:
    written = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")[:16]
    footer = (
        f"Written by domainformer {__version__} at {written} UTC. This page shows events of some "
        "entities: share it as you would share those."
    )
    heading = tag("header", tag("p", "Explanation", _class="kicker"), tag("h1", told["subject"]))
    return document(told["subject"], tag("main", heading, draw(told), tag("footer", footer)))


def _history(explanation: Explanation, example: int, asks_next: bool) -> dict[str, Any]:
    row = explanation.examples.row(example, named=True)
    own = explanation.units.filter(pl.col("example") == example)
    events = [
        {
            "distance": int(distance),
            "units": own.filter(pl.col("distance") == distance)
            .select("field", "value", "attribution")
            .to_dicts(),
        }
        for distance in sorted(own["distance"].unique())
    ]
    features = (
        explanation.features.filter(pl.col("example") == example)
        .sort(pl.col("attribution").abs(), descending=True)
        .select("feature", "attribution")
    )
    return {
        "key": str(row["key"]),
        "choice": row["choice"] if row["asked"] is None else row["asked"],
        "score": row["score"],
        "baseline": row["baseline"],
        "asks_next": asks_next,
        "events": events,
        "features": features.to_dicts(),
    }
