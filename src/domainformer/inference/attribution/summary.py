"""Importances over many examples, and a check of them that needs no attribution.

::

    importance of a field      mean over examples of Σ_events |attribution|
    importance of a distance   the same of Σ_fields, over examples that reach so far
    permutation of a field     its values dealt out anew among all events: how far do scores
                               move, and how much worse are they?

Attributions sum up what a model does; permutation breaks a field and looks. Where both rank the
fields alike, the ranking is no artefact of the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DataError, InputError
from domainformer.inference.attribution.engine import Engine, Floats, Variant
from domainformer.inference.attribution.explain import Examples, ask, feature_names
from domainformer.inference.attribution.explanation import Explanation
from domainformer.inference.attribution.rows import Ints
from domainformer.inference.bundle import Bundle
from domainformer.inference.fusion import FusionPredictor

_MOST_DISTANCES = 20


@dataclass(frozen=True, eq=False)
class AttributionSummary:
    """Importances with 95 % bootstrap intervals over examples.

    Args:
        fields: ``name``, ``kind`` (``event field`` or ``tabular``), ``importance``, ``low``,
            ``high``, ``share`` (of all importance); the largest first.
        distances: ``distance``, ``examples`` (that have such an event), ``importance``, ``low``,
            ``high``; the newest first.
        n_examples: Examples that were summarised.
    """

    fields: pl.DataFrame
    distances: pl.DataFrame
    n_examples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "fields": self.fields.to_dicts(),
            "distances": self.distances.to_dicts(),
            "n_examples": self.n_examples,
        }


def summarise(
    explanation: Explanation, *, resamples: int = 1000, seed: int = 0
) -> AttributionSummary:
    """How much fields and distances matter, over the examples of an explanation.

    Args:
        explanation: Of many examples.
        resamples: Of the bootstrap over examples.
        seed: Of the bootstrap.

    Raises:
        InputError: The explanation has no fields (whole events were left out), or no resamples.
    """
    if resamples < 1:
        raise InputError(f"resamples must be 1 or more, not {resamples}")
    if explanation.units.height and explanation.units["field"].null_count():
        raise InputError(
            "whole events were left out, so no field has an attribution",
            next_step='summarise an explanation by Occlusion(leave="field") or gradients',
        )
    n = explanation.examples.height
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    sizes = explanation.units.with_columns(pl.col("attribution").abs())
    features = explanation.features.with_columns(pl.col("attribution").abs())
    tabular = features["feature"].unique(maintain_order=True)
    rows = [
        {"name": name, "kind": kind} | _mean(frame, column, name, n, draws)
        for kind, frame, column, names in (
            ("event field", sizes, "field", explanation.fields),
            ("tabular", features, "feature", tabular),
        )
        for name in names
    ]
    fields = pl.DataFrame(rows).sort("importance", descending=True)
    total = max(float(fields["importance"].sum()), 1e-30)
    return AttributionSummary(
        fields.with_columns(share=pl.col("importance") / total), _distances(sizes, n, draws), n
    )


def _distances(sizes: pl.DataFrame, n: int, draws: Ints) -> pl.DataFrame:
    rows = []
    # Of a next-event score the newest event may have no field before the question.
    for distance in sizes["distance"].unique().sort().head(_MOST_DISTANCES).to_list():
        has = sizes.filter(pl.col("distance") == distance)["example"].n_unique()
        if has:
            figures = _mean(sizes, "distance", distance, n, draws, present=True)
            rows.append({"distance": distance, "examples": has} | figures)
    kinds = {"distance": pl.Int64, "examples": pl.Int64}
    numbers = dict.fromkeys(("importance", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**kinds, **numbers})


def _mean(
    sizes: pl.DataFrame, column: str, value: Any, n: int, draws: Ints, *, present: bool = False
) -> dict[str, float]:
    """Mean over examples, of all or of those that are present, with its bootstrap interval."""
    own = sizes.filter(pl.col(column) == value)
    places = own["example"].to_numpy()
    sums = np.bincount(places, own["attribution"].to_numpy(), n)
    counted = np.bincount(places, minlength=n) > 0 if present else np.ones(n, np.bool_)
    drawn = (sums * counted)[draws].sum(axis=1) / np.maximum(counted[draws].sum(axis=1), 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = float(sums[counted].mean()) if counted.any() else 0.0
    return {"importance": mean, "low": float(low), "high": float(high)}


def permutation_check(
    source: FusionPredictor | Bundle,
    examples: Examples = None,
    events: EventTable | None = None,
    *,
    labels: Sequence[Any] | pl.Series | None = None,
    repeats: int = 3,
    seed: int = 0,
    **options: Any,
) -> pl.DataFrame:
    """How far scores move when the values of one field are dealt out anew.

    Args:
        source: As :func:`~domainformer.inference.attribution.explain.explain` takes it.
        examples: As there.
        events: As there.
        labels: The truth of each example: a class, or a value. Then the mean loss rises by
            ``worse``: log-loss of the class that is explained against all others, or squared
            error. A next-event score is a log-probability of the truth already and needs none.
        repeats: Deals that are averaged.
        seed: Of the deals.
        **options: ``target``, ``choice``, ``field``, ``context``, ``batch_tokens`` as there.

    Returns:
        ``name``, ``kind``, ``moved`` (mean absolute change of the score) and ``worse`` (rise of
        the mean loss; null without labels); the largest ``moved`` first.

    Raises:
        DataError: There are fewer than two examples, or labels of another number.
        InputError: As :func:`explain`, no repeats, or labels that the score has no use for.
    """
    if repeats < 1:
        raise InputError(f"repeats must be 1 or more, not {repeats}")
    question = ask(source, examples, events, **options)
    engine, n = question.engine, len(question.engine.rows)
    if n < 2 or (labels is not None and len(labels) != n):
        told = f"{n} examples" + ("" if labels is None else f" and {len(labels)} labels")
        raise DataError(f"permutation needs two examples or more, a label for each, not {told}")
    generator = np.random.default_rng(seed)
    whole = [Variant(i) for i in range(n)]
    scores = engine.values(whole, question.choice)
    asks_next = bool(engine.rows[0].scored)
    if asks_next and labels is not None:
        raise InputError(
            "a next-event score is a log-probability of the truth already",
            next_step="leave labels out",
        )
    truth = None if labels is None else _truth(list(labels), question.choices, question.choice)
    before = _loss(scores, truth, asks_next, bool(question.choices))
    rows = []
    fields = () if engine.reader is None else engine.reader.fields
    names = [(name, "event field") for name in fields]
    names += [(name, "tabular") for name in feature_names(source)]
    for place, (name, kind) in enumerate(names):
        moved, worse = [], []
        for _ in range(repeats):
            if kind == "tabular":
                variants = _dealt_features(engine, place - len(fields), generator)
            else:
                variants = _dealt_units(engine, place, generator)
            values = engine.values(variants, question.choice)
            moved.append(float(np.abs(values - scores).mean()))
            after = _loss(values, truth, asks_next, bool(question.choices))
            if before is not None and after is not None:
                worse.append(after - before)
        drop = float(np.mean(worse)) if worse else None
        rows.append({"name": name, "kind": kind, "moved": float(np.mean(moved)), "worse": drop})
    kinds = {"name": pl.String, "kind": pl.String, "moved": pl.Float64, "worse": pl.Float64}
    return pl.DataFrame(rows, schema=kinds).sort("moved", descending=True)


def rank_agreement(summary: AttributionSummary, permuted: pl.DataFrame) -> float | None:
    """Spearman's correlation of importance with what permutation moves; None if there is none."""
    joined = summary.fields.join(permuted, on=["name", "kind"], how="inner")
    if joined.height < 3:
        return None
    ranks = joined.select(pl.col("importance", "moved").rank())
    if min(ranks[name].n_unique() for name in ranks.columns) < 2:  # nothing is above the rest
        return None
    return float(np.corrcoef(ranks["importance"], ranks["moved"])[0, 1])


def _dealt_units(engine: Engine, field: int, generator: np.random.Generator) -> list[Variant]:
    """Every example with the field's values of events drawn without replacement from all."""
    own = [np.flatnonzero(row.unit_field == field) for row in engine.rows]
    values = [
        row.ids[row.starts[unit] : row.stops[unit]]
        for row, units in zip(engine.rows, own, strict=True)
        for unit in units
    ]
    order = iter(generator.permutation(len(values)))
    limit = max(len(row.ids) for row in engine.rows)
    variants = []
    for i, (row, units) in enumerate(zip(engine.rows, own, strict=True)):
        ids = row.splice({int(unit): values[next(order)] for unit in units})
        variants.append(Variant(i, _within(ids, engine, limit)))
    return variants


def _within(ids: Ints, engine: Engine, limit: int) -> Ints:
    """The ids without the oldest events, where other texts have made them too many."""
    if len(ids) <= limit or engine.reader is None:
        return ids
    opens = np.flatnonzero(engine.reader.slot_of_id[ids] == 0)
    first = opens[opens >= len(ids) - limit + 1]
    return np.concatenate([ids[:1], ids[first[0] :]]) if len(first) else ids


def _dealt_features(engine: Engine, feature: int, generator: np.random.Generator) -> list[Variant]:
    tabular = engine.tabular
    assert tabular is not None
    numbers, codes = tabular.numbers.copy(), tabular.codes.copy()
    order = generator.permutation(len(numbers))
    if feature < numbers.shape[1]:
        numbers[:, feature] = numbers[order, feature]
    else:
        place = feature - numbers.shape[1]
        codes[:, place] = codes[order, place]
    return [Variant(i, numbers=numbers[i], codes=codes[i]) for i in range(len(numbers))]


def _truth(labels: list[Any], choices: tuple[Any, ...], choice: Ints) -> Floats:
    if not choices:
        return np.array(labels, np.float64)
    names = [str(value) for value in choices]
    if not {str(label) for label in labels} & set(names):
        raise InputError(
            f"no label is a class of the model, {labels[0]!r} for one",
            next_step=f"give the labels as the model was taught them: {', '.join(names[:5])}",
        )
    return np.array(
        [str(label) == names[c] for label, c in zip(labels, choice, strict=True)], float
    )


def _loss(scores: Floats, truth: Floats | None, asks_next: bool, classes: bool) -> float | None:
    """Mean loss; of log-odds it is log(1 + exp(∓f))."""
    if asks_next:
        return float(-scores.mean())
    if truth is None:
        return None
    if not classes:
        return float(((scores - truth) ** 2).mean())
    return float(np.logaddexp(0, np.where(truth > 0, -scores, scores)).mean())
