"""``explain``: from a model and raw rows to attributions.

::

    FusionPredictor, frame, events ─┐                 ┌─▶ integrated gradients ─┐
    classifier bundle, keys, events ├─▶ rows, a score ┤                         ├─▶ Explanation
    causal bundle, keys, events ────┘                 └─▶ occlusion ────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from domainformer.data import EventTable
from domainformer.data.histories import NewestHistories
from domainformer.data.tabular import TabularArrays
from domainformer.errors import DataError, InputError, nearest
from domainformer.inference.attribution.engine import Engine, Progress, Variant
from domainformer.inference.attribution.explanation import Explanation
from domainformer.inference.attribution.methods import METHODS, IntegratedGradients, Occlusion
from domainformer.inference.attribution.rows import EMPTY, Row, RowReader
from domainformer.inference.attribution.scores import (
    ClassifierScore,
    FusionScore,
    NextScore,
    Score,
)
from domainformer.inference.attribution.tables import Question, tabulate
from domainformer.inference.bundle import Bundle
from domainformer.inference.fusion import FusionPredictor, events_of
from domainformer.schema.fields import FieldType
from domainformer.tokenizers import DomainTokenizer

Examples = pl.DataFrame | pl.Series | Sequence[Any] | None
_NAMES = (FieldType.CATEGORICAL_ENTITY, FieldType.CATEGORICAL_FIXED, FieldType.TEXT)


def explain(
    source: FusionPredictor | Bundle,
    examples: Examples = None,
    events: EventTable | None = None,
    *,
    method: str | IntegratedGradients | Occlusion = "integrated-gradients",
    target: str | None = None,
    choice: Any = None,
    field: str | None = None,
    context: int | None = None,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
) -> Explanation:
    """Attribute scores to the fields and events of histories, and to tabular features.

    Args:
        source: A fusion predictor, or a bundle: a classifier, or a causal language model, whose
            score is the log-probability of a field's newest value given all before it.
        examples: For a predictor its frame. For a bundle keys of entities, or a frame with their
            column; None: all entities of ``events``.
        events: The histories.
        method: ``integrated-gradients``, ``occlusion``, or one with settings of its own.
        target: Which target of a fusion predictor; None: the first.
        choice: The class whose log-odds are explained. None: of two classes the second, of more
            the one that the model finds likeliest, example by example.
        field: Whose value is asked for, of a causal model; None: the first field that names
            something (a category, an entity, a text).
        context: Longest window in tokens; the model's own by default.
        batch_tokens: Tokens per pass, padding included.
        progress: Called with (passes done, in all).

    Raises:
        InputError: An option does not belong to this kind of model or names nothing, or the model
            reads merged tokens.
        DataError: Examples or events cannot be used.
    """
    way = _method(method)
    question = ask(
        source,
        examples,
        events,
        target=target,
        choice=choice,
        field=field,
        context=context,
        batch_tokens=batch_tokens,
    )
    engine = question.engine
    scores = engine.values([Variant(i) for i in range(len(engine.rows))], question.choice)
    found = way.attribute(engine, question.choice, scores, progress)
    return tabulate(way, question, scores, found, feature_names(source))


def ask(
    source: FusionPredictor | Bundle,
    examples: Examples,
    events: EventTable | None,
    *,
    target: str | None = None,
    choice: Any = None,
    field: str | None = None,
    context: int | None = None,
    batch_tokens: int = 4096,
) -> Question:
    """The rows and the score that :func:`explain` explains; arguments and errors as there."""
    if isinstance(source, FusionPredictor):
        _refuse("a fusion predictor", field=field, context=context)
        return _ask_fusion(source, examples, events, target, choice, batch_tokens)
    if events is None:
        raise DataError("no events were given", next_step="pass events=…, an EventTable")
    if source.merges is not None:
        raise InputError(
            "a model with merged tokens cannot be explained by field",
            why="one of its tokens tells several fields at once",
            next_step="explain a model that was trained without merges",
        )
    table, keys = _keys(examples, events)
    histories = NewestHistories.of(
        source.tokenizer.encode(table),
        keys,
        context=context or source.context,
        bos_id=source.tokenizer.bos_id,
        budgets=source.tokenizer.budgets,
    )
    reader = RowReader(source.tokenizer)
    if source.model.get_output_embeddings() is not None:
        _refuse("a causal language model", target=target, choice=choice)
        return _ask_next(source, histories, reader, keys, field, batch_tokens)
    _refuse("a classifier", target=target, field=field)
    rows = [reader.read(histories[i]) for i in range(len(histories))]
    engine = _engine(ClassifierScore(source.model), rows, reader, None, batch_tokens)
    task = source.record.get("task") or {}
    names = task.get("classes") or list((source.model.config.id2label or {}).values())
    classes = tuple(names) if source.model.config.num_labels > 1 else ()
    return _choose(engine, keys, str(task.get("label", "label")), classes, choice)


def _ask_fusion(
    source: FusionPredictor,
    examples: Examples,
    events: EventTable | None,
    target: str | None,
    choice: Any,
    batch_tokens: int,
) -> Question:
    if not isinstance(examples, pl.DataFrame):
        raise DataError(
            "a fusion predictor reads a frame of examples",
            next_step="pass the frame that predict takes",
        )
    names = [each.name for each in source.targets]
    if target is not None and target not in names:
        raise InputError(f"there is no target {target!r}", next_step=nearest(target, names))
    place = 0 if target is None else names.index(target)
    own = source.targets[place]
    first = sum(each.outputs for each in source.targets[:place])
    inputs = source.inputs(examples, events)
    reader = None if source.tokenizer is None else RowReader(source.tokenizer)
    rows = [EMPTY] * len(inputs)
    if reader is not None and inputs.histories is not None:
        rows = [reader.read(inputs.histories[i]) for i in range(len(inputs))]
    tabular = inputs.tabular if source.model.tabular is not None else None
    score = FusionScore(source.model, own, first)
    engine = _engine(score, rows, reader, tabular, batch_tokens)
    keyed = source.key in examples.columns
    keys = examples[source.key] if keyed else pl.Series("example", range(len(inputs)))
    return _choose(engine, keys, own.name, own.classes, choice)


def _ask_next(
    source: Bundle,
    histories: NewestHistories,
    reader: RowReader,
    keys: pl.Series,
    field: str | None,
    batch_tokens: int,
) -> Question:
    name = field or _naming_field(source.tokenizer, reader)
    if name not in reader.fields:
        raise InputError(
            f"there is no field {name!r} in the model's schema",
            next_step=nearest(name, reader.fields),
        )
    asked = [
        reader.question(histories[i], reader.fields.index(name)) for i in range(len(histories))
    ]
    has = np.array([row is not None for row in asked], np.bool_)
    rows = [row for row in asked if row is not None]
    if not rows:
        raise DataError(
            f"no history has a value of field {name!r} within the context",
            next_step="ask for another field, or give other entities",
        )
    notes = []
    if not has.all():
        notes.append(f"{int((~has).sum()):,} histories have no {name} and were left out")
    engine = _engine(NextScore(source.language_model), rows, reader, None, batch_tokens)
    none = np.zeros(len(rows), np.int64)
    subject = f"log-probability of the newest {name}, given all before it"
    return Question(engine, keys.filter(pl.Series(has)), (), none, subject, notes)


def _choose(
    engine: Engine, keys: pl.Series, label: str, classes: Sequence[Any], choice: Any
) -> Question:
    """Which of the outputs is explained."""
    n = len(engine.rows)
    if len(classes) < 2:
        _refuse("a regression", choice=choice)
        return Question(engine, keys, (), np.zeros(n, np.int64), f"predicted {label}", [])
    names = [str(name) for name in classes]
    if choice is not None and str(choice) not in names:
        raise InputError(f"there is no class {choice!r}", next_step=nearest(str(choice), names))
    if choice is None and len(classes) > 2:
        outputs = engine.values([Variant(i) for i in range(n)])
        subject = f"log-odds of the likeliest class of {label}"
        return Question(engine, keys, tuple(classes), outputs.argmax(axis=1), subject, [])
    place = 1 if choice is None else names.index(str(choice))
    subject = f"log-odds of {label} = {names[place]}"
    return Question(engine, keys, tuple(classes), np.full(n, place, np.int64), subject, [])


def _engine(
    score: Score,
    rows: list[Row],
    reader: RowReader | None,
    tabular: TabularArrays | None,
    batch_tokens: int,
) -> Engine:
    pad = 0 if reader is None else reader.tokenizer.pad_id
    return Engine(score, rows, reader, tabular, batch_tokens, pad)


def _keys(examples: Examples, events: EventTable) -> tuple[EventTable, pl.Series]:
    """The keys that are asked for, and their events."""
    if examples is None:
        has = np.diff(events.offsets) > 0
        return events, events.entity_ids.filter(pl.Series(has))
    if isinstance(examples, pl.DataFrame):
        if events.entity not in examples.columns:
            raise DataError(
                f"there is no key column {events.entity!r}",
                where="the frame of examples",
                next_step=nearest(events.entity, examples.columns),
            )
        keys = examples[events.entity]
    else:
        keys = pl.Series(events.entity, examples)
    if not len(keys):
        raise DataError("there are no examples", where="the keys", why="none was given")
    unknown = set(keys.to_list()) - set(events.entity_ids.to_list())
    if unknown:
        first = next(key for key in keys.to_list() if key in unknown)
        raise InputError(
            f"there is no entity {first!r}",
            why=f"{len(unknown)} of {len(keys)} entities have no events",
            next_step=nearest(str(first), [str(e) for e in events.entity_ids[:1000]]),
        )
    return events_of(events, keys), keys


def _naming_field(tokenizer: DomainTokenizer, reader: RowReader) -> str:
    """The first field that names something; else the last one, which knows the others."""
    kinds = {spec.name: spec.field_type for spec in tokenizer.schema.fields}
    return next((n for n in reader.fields if kinds.get(n) in _NAMES), reader.fields[-1])


def _method(method: str | IntegratedGradients | Occlusion) -> IntegratedGradients | Occlusion:
    if not isinstance(method, str):
        return method
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}", next_step=nearest(method, METHODS))
    return METHODS[method]()


def _refuse(kind: str, **given: Any) -> None:
    """Options that mean nothing here are an error, not ignored."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name}={value!r} means nothing for {kind}", next_step="leave it out")


def feature_names(source: FusionPredictor | Bundle) -> tuple[str, ...]:
    """The tabular features that the model reads."""
    if isinstance(source, FusionPredictor) and source.model.tabular is not None:
        return source.tabular.columns
    return ()
