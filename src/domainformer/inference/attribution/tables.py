"""From arrays of attributions to the tables of an :class:`Explanation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from domainformer.inference.attribution.engine import Engine, Floats
from domainformer.inference.attribution.explanation import Explanation
from domainformer.inference.attribution.methods import Attributed, IntegratedGradients, Occlusion
from domainformer.inference.attribution.rows import Ints, Row

LARGE_GAP = 0.05  # of what is explained; more, and the sums say something else than the score


@dataclass(frozen=True, eq=False)
class Question:
    """Examples, a score, and which of its outputs is asked for.

    Args:
        engine: The score and the rows.
        keys: The key of each example.
        choices: Values that the outputs stand for; none where there is one output.
        choice: The chosen output of each example.
        subject: What is explained, in words.
        notes: What a reader should know.
    """

    engine: Engine
    keys: pl.Series
    choices: tuple[Any, ...]
    choice: Ints
    subject: str
    notes: list[str]


def tabulate(
    method: IntegratedGradients | Occlusion,
    question: Question,
    scores: Floats,
    found: Attributed,
    features: tuple[str, ...],
) -> Explanation:
    """The explanation that some attributions give.

    Args:
        method: What made them.
        question: What was asked.
        scores: f(x) of each example.
        found: The attributions.
        features: Names of the tabular features.
    """
    engine = question.engine
    fields = () if engine.reader is None else engine.reader.fields
    totals = np.array(
        [u.sum() + f.sum() for u, f in zip(found.units, found.features, strict=True)], np.float64
    )
    choice = [str(question.choices[c]) if question.choices else None for c in question.choice]
    examples = pl.DataFrame(
        {
            "example": np.arange(len(scores)),
            "key": question.keys,
            "choice": pl.Series(choice, dtype=pl.String),
            "asked": pl.Series([_asked(engine, row) for row in engine.rows], dtype=pl.String),
            "n_events": pl.Series([row.n_events for row in engine.rows], dtype=pl.Int64),
            "score": scores,
            "baseline": found.baseline,
            "total": totals,
            "gap": totals - (scores - found.baseline),
        }
    )
    explanation = Explanation(
        method=method.name,
        settings=method.settings,
        subject=question.subject,
        examples=examples,
        units=_units(engine, found, fields),
        tokens=None if found.tokens is None else _tokens(engine, found.tokens, fields),
        features=_features(found, features),
        fields=fields,
        notes=list(question.notes),
    )
    told = explanation.convergence
    if told is not None and told["relative_gap"] > LARGE_GAP:
        explanation.notes.append(
            f"the attributions miss {told['relative_gap']:.0%} of the scores that they explain: "
            f"take more than {int(told['steps'])} steps"
        )
    return explanation


def _units(engine: Engine, found: Attributed, fields: tuple[str, ...]) -> pl.DataFrame:
    parts = []
    for i, (row, values) in enumerate(zip(engine.rows, found.units, strict=True)):
        event = row.unit_event
        names: list[str | None] = [fields[f] for f in row.unit_field]
        words: list[str | None] = [*_words(engine, row)]
        if found.by_event:
            event = np.arange(row.n_events)
            names = words = [None] * row.n_events
        parts.append(
            {
                "example": np.full(len(values), i),
                "event": event,
                "distance": row.n_events - 1 - event,
                "field": pl.Series(names, dtype=pl.String),
                "value": pl.Series(words, dtype=pl.String),
                "attribution": values,
            }
        )
    return pl.concat([pl.DataFrame(part) for part in parts])


def _asked(engine: Engine, row: Row) -> str | None:
    """The value that a next-event score is about."""
    if engine.reader is None or not row.scored:
        return None
    return engine.reader.value(row.ids[-row.scored :])


def _words(engine: Engine, row: Row) -> list[str]:
    reader = engine.reader
    assert reader is not None or not len(row.starts)
    spans = zip(row.starts, row.stops, strict=True)
    return [reader.value(row.ids[start:stop]) for start, stop in spans] if reader else []


def _tokens(engine: Engine, values: list[Floats], fields: tuple[str, ...]) -> pl.DataFrame:
    vocab = [] if engine.reader is None else engine.reader.tokenizer.vocab
    parts: list[dict[str, Any]] = []
    for i, (row, found) in enumerate(zip(engine.rows, values, strict=True)):
        free = np.flatnonzero(row.free)
        parts.append(
            {
                "example": np.full(len(free), i),
                "position": free,
                "event": row.event[free],
                "distance": row.n_events - 1 - row.event[free],
                "field": pl.Series([fields[f] for f in row.field[free]], dtype=pl.String),
                "token": pl.Series([vocab[t] for t in row.ids[free]], dtype=pl.String),
                "attribution": found[free],
            }
        )
    return pl.concat([pl.DataFrame(part) for part in parts])


def _features(found: Attributed, names: tuple[str, ...]) -> pl.DataFrame:
    n = len(found.features)
    return pl.DataFrame(
        {
            "example": np.repeat(np.arange(n), len(names)),
            "feature": pl.Series(list(names) * n, dtype=pl.String),
            "attribution": np.concatenate([np.empty(0), *found.features]),
        }
    )
