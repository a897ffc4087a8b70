"""Fit semantic ids: from a table of items, of events, or both, to a tokenizer and a report.

::

    events ─▶ co-occurrence ────────────╮
          ╰─▶ items, where none given ──┼─▶ features ─▶ RQ-VAE or k-means ─▶ codes ─▶ tokenizer
    items ─▶ text, sets, numbers, … ────╯                                         ╰─▶ report

Give training events only: an item's neighbours in a test history are an answer given away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from rich.console import Group

from domainformer.data import EventTable
from domainformer.data.readers import scan
from domainformer.errors import DataError, InputError
from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.tokenizers.semantic.cooccurrence import WINDOW, history_vectors, pair_counts
from domainformer.tokenizers.semantic.features import EntityFeaturePlan, EntityFeatures
from domainformer.tokenizers.semantic.items import (
    Items,
    Occurrences,
    items_of_events,
    merged_items,
    read_items,
)
from domainformer.tokenizers.semantic.kmeans import residual_kmeans
from domainformer.tokenizers.semantic.model import SemanticModel
from domainformer.tokenizers.semantic.quantizer import Floats, Quantizer
from domainformer.tokenizers.semantic.report import (
    LEAST_USAGE,
    SemanticReport,
    check_collapse,
    make_report,
)
from domainformer.tokenizers.semantic.settings import RQVAESettings
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer

Method = Literal["rqvae", "kmeans"]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SemanticIds:
    """Fitted semantic ids.

    Args:
        tokenizer: For ``DomainTokenizer.fit(table, semantic_ids={field: tokenizer})``, and to save.
        report: How good they are.
    """

    tokenizer: SemanticIdTokenizer
    report: SemanticReport

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return self.report.to_json()

    def render(self) -> Group:
        """The report as tables for a terminal."""
        return self.report.render()


def fit_semantic_ids(
    events: EventTable | pl.DataFrame | None,
    field: FieldSpec | str,
    *,
    items: Any = None,
    method: Method = "rqvae",
    plan: EntityFeaturePlan | None = None,
    settings: RQVAESettings | None = None,
    window: int = WINDOW,
    seed: int = 0,
    least_usage: float = LEAST_USAGE,
    examples: int = 5,
    progress: Progress | None = None,
) -> SemanticIds:
    """Give every entity of a field a semantic id.

    Args:
        events: Training events, for co-occurrence in histories, and for the features of entities
            where there is no items table; None where items are all there is. A frame is one
            history in the order of its rows.
        field: The field with its ``semantic_levels`` and ``semantic_codes``; a name stands for a
            field of 3 levels of 256 codes.
        items: A row per entity (a table, or the path of one), with the field's column.
        method: ``"rqvae"`` (torch; minutes for a hundred thousand entities) or ``"kmeans"``
            (numpy; seconds).
        plan: Columns, weights and dimensions of the features; all columns by default.
        settings: Of the RQ-VAE.
        window: Largest distance in a history that counts as near.
        seed: Of everything that is drawn.
        least_usage: Share of each level's codes that has to be used.
        examples: Entities that the report shows with their nearest.
        progress: Called with (steps done, steps in all, what is being done).

    Raises:
        InputError: The method is unknown, or the field has no semantic levels.
        DataError: Columns are missing, or nothing tells entities apart.
        TokenizerError: The ids have collapsed: a level uses too few codes.

    Example:
        >>> items = pl.DataFrame({"shop": range(64), "price": [x * 1.5 for x in range(64)]})
        >>> shop = FieldSpec("shop", "categorical_entity", semantic_levels=2, semantic_codes=4)
        >>> found = fit_semantic_ids(None, shop, items=items, method="kmeans")
        >>> found.report.usage
        (1.0, 1.0)
        >>> found.tokenizer.encode(pl.Series([5])).shape
        (1, 3)
    """
    spec = _checked_field(field)
    if method not in ("rqvae", "kmeans"):
        raise InputError(f"there is no method {method!r}", next_step="choose rqvae or kmeans")
    given, near = _gathered(events, spec, items, window, plan or EntityFeaturePlan(), seed)
    if len(given.names) < 2:
        raise DataError(
            f"{len(given.names)} entities cannot be told apart",
            where=f"column {spec.source!r}",
            next_step="give at least two",
        )
    chosen = (plan or EntityFeaturePlan()).inferred(given.frame)
    features, vectors = EntityFeatures.fit(given.frame, chosen, near, seed=seed)
    quantizer, unexplained = _quantized(vectors, spec, method, settings, seed, progress)
    codes = quantizer.codes(vectors)
    report = make_report(
        field=spec.name,
        method=method,
        names=given.names,
        features=vectors,
        codes=codes,
        n_codes=spec.semantic_codes,
        kinds=features.kinds,
        unexplained=unexplained,
        examples=examples,
    )
    check_collapse(report, least_usage=least_usage)
    model = SemanticModel(features, quantizer)
    return SemanticIds(SemanticIdTokenizer.of_codes(spec, given.names, codes, model=model), report)


def _checked_field(field: FieldSpec | str) -> FieldSpec:
    if isinstance(field, str):
        return FieldSpec(field, FieldType.CATEGORICAL_ENTITY, semantic_levels=3)
    if not field.semantic_levels:
        raise InputError(
            f"the field {field.name!r} has no semantic levels",
            next_step="set semantic_levels (3 is usual) and semantic_codes (256) in its spec",
        )
    return field


def _gathered(
    events: EventTable | pl.DataFrame | None,
    spec: FieldSpec,
    items: Any,
    window: int,
    plan: EntityFeaturePlan,
    seed: int,
) -> tuple[Items, Floats | None]:
    """All entities with what is known of them, and their co-occurrence vectors."""
    if events is None and items is None:
        raise InputError(
            "semantic ids need features",
            next_step="give events (an EventTable), items (a row per entity), or both",
        )
    if isinstance(items, str | Path):
        items, _ = scan(items).collect()
    if events is None:
        return read_items(items, spec.source), None
    if not isinstance(events, EventTable | pl.DataFrame):
        raise InputError(
            f"a table of events is expected, not {type(events).__name__}",
            next_step="read one by EventTable.read(path, entity=…, time=…)",
        )
    occurrences = Occurrences.of(events, spec.source)
    if isinstance(events, pl.DataFrame) and len(occurrences.names) == events.height > 1:
        raise InputError(
            "every entity has one row, so these are no events",
            where=f"column {spec.source!r}",
            next_step="pass the table as items=…, and None or an EventTable as events",
        )
    if items is None:
        given = items_of_events(events, spec.source)
    else:
        given = merged_items(read_items(items, spec.source), occurrences.names)
    if plan.weights.get("histories", 1.0) == 0.0:
        return given, None
    codes = occurrences.under(given.names)
    counts = pair_counts(codes, occurrences.offsets, len(given.names), window=window)
    return given, history_vectors(counts, plan.dimensions, seed=seed)


def _quantized(
    vectors: Floats,
    spec: FieldSpec,
    method: Method,
    settings: RQVAESettings | None,
    seed: int,
    progress: Progress | None,
) -> tuple[Quantizer, float]:
    """The fitted quantizer, and the share of the variance that its codes leave unexplained."""
    levels, codes = spec.semantic_levels, spec.semantic_codes
    if method == "rqvae":
        # Imported here, so that k-means and using codes need no torch.
        from domainformer.tokenizers.semantic.rqvae import train_rqvae

        trained = train_rqvae(
            vectors, levels=levels, codes=codes, settings=settings, seed=seed, progress=progress
        )
        return trained.quantizer, trained.unexplained
    quantizer = residual_kmeans(vectors, levels=levels, codes=codes, seed=seed, progress=progress)
    left = vectors - quantizer.quantized(quantizer.codes(vectors))
    centred = vectors - vectors.mean(axis=0)
    return quantizer, float((left**2).sum() / np.maximum((centred**2).sum(), 1e-12))
