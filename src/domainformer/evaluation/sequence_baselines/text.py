"""``text``: events as lines of text, read by the same Transformer.

::

    2016-05-03  12.3  "Tesco"  ─▶  "date: 2016-05-03; amount: 12.3; merchant: Tesco"  ─▶ BPE ids
                                                                                        │
    same backbone, same context in tokens, same training  ◀─────────────────────────────┘

The byte-pair tokens are learned on the training histories' text, and the vocabulary is as large as
that of the domain tokenizer, so that the two models differ in how events are written down alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.neural import FittedNeural, SequenceModel
from domainformer.evaluation.contest.schemas import schema_of, training_events
from domainformer.evaluation.tasks import Task
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

TEXT_COLUMN = "event as text"
_BYTES = 256
_SMALLEST_VOCABULARY = 512
_DIGITS = 6


@dataclass(frozen=True)
class TextSerialisation:
    """The Transformer on text, in place of domain tokens.

    Args:
        model: The Transformer and how it is trained, as for ``sequence``; its ``schema`` says which
            columns are written down.
        vocab_size: Of the text's tokenizer; None: as many as the domain tokenizer has, but at least
            512 (256 of them are the bytes).

    Raises:
        ConfigError: The vocabulary has no room for the bytes.
    """

    model: SequenceModel = field(default_factory=SequenceModel)
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.vocab_size is not None and self.vocab_size <= _BYTES + 16:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}", why="256 entries are the bytes of the text"
            )

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedText:
        """Write the events down, then train as ``sequence`` is trained.

        Raises:
            DataError: As for ``sequence``; or the table has a column of the text's name.
        """
        model = self.model
        schema = schema_of(task, examples_train, model.schema)
        domain = DomainTokenizer(schema, bpe_vocab_size=_bpe_size(model))
        domain.fit(training_events(task, examples_train))
        columns = written_columns(schema, task.table)
        written = as_text(task, columns)
        size = self.vocab_size or max(domain.vocab_size, _SMALLEST_VOCABULARY)
        plain = text_schema(model.finetuning.context)
        bare = DomainTokenizer(plain, bpe_vocab_size=_BYTES + 1)
        events = training_events(written, examples_train)
        extra = bare.fit(events).vocab_size - (_BYTES + 1)  # specials, the marker, the missing
        fields = [{"name": TEXT_COLUMN, "field_type": "text"} | plain.fields[0].options()]
        reader = _with_text(model, {"name": plain.name, "fields": fields}, size - extra)
        fitted = reader.fit(written, examples_train, examples_valid, seed)
        record = compare_tokens(domain, fitted, task, written, examples_train)
        return FittedText(fitted, columns, record)


@dataclass(frozen=True, eq=False)
class FittedText:
    """A Transformer that reads text.

    Args:
        fitted: It.
        columns: What is written down of an event.
        record: Vocabularies, parameters and tokens per event of both ways.
    """

    fitted: FittedNeural
    columns: tuple[str, ...]
    record: dict[str, Any]

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[np.float64]:
        """``[n]`` or ``[n, classes]``, in the examples' order."""
        return self.fitted.predict(as_text(task, self.columns), examples)


def written_columns(schema: DomainSchema, table: EventTable) -> tuple[str, ...]:
    """Columns that the schema reads, the time first, the others in the table's order."""
    read = {spec.source for spec in schema.fields}
    first = [table.time] if table.time in read else []
    others = [name for name in table.frame.columns if name in read and name != table.time]
    return tuple(str(name) for name in [*first, *others])


def serialise(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """One line of text per event; what is null is left out.

    Example:
        >>> frame = pl.DataFrame({"amount": [12.30, None], "merchant": ["Tesco", "Boots"]})
        >>> serialise(frame, ["amount", "merchant"]).to_list()
        ['amount: 12.3; merchant: Tesco', 'merchant: Boots']
    """
    parts = [
        pl.when(pl.col(name).is_not_null()).then(
            pl.concat_str(pl.lit(f"{name}: "), _as_string(name, frame.schema[name]))
        )
        for name in columns
    ]
    return frame.select(pl.concat_str(parts, separator="; ", ignore_nulls=True)).to_series()


def as_text(task: Task, columns: Sequence[str]) -> Task:
    """The task over events that are one text each, with their entity and time.

    Raises:
        DataError: The table has a column of the text's name.
    """
    table = task.table
    if TEXT_COLUMN in table.frame.columns:
        raise DataError(f"the table has a column {TEXT_COLUMN!r} already", where=task.name)
    kept = [name for name in (table.entity, table.time) if name is not None]
    text = serialise(table.frame, columns).alias(TEXT_COLUMN)
    frame = table.frame.select(kept).with_columns(text)
    return task.with_table(
        EventTable(frame, table.entity, table.time, table.offsets, table.time_kind)
    )


def text_schema(context: int) -> DomainSchema:
    """One text per event, of at most half of the context."""
    return DomainSchema("text", [FieldSpec(TEXT_COLUMN, "text", max_tokens=max(8, context // 2))])


def compare_tokens(
    domain: DomainTokenizer,
    fitted: FittedNeural,
    task: Task,
    written: Task,
    examples: pl.DataFrame,
) -> dict[str, Any]:
    """Tokens per event of the training histories, as domain tokens and as text.

    Args:
        domain: The domain tokenizer.
        fitted: The model that reads text.
        task: The events as they are.
        written: The events as text.
        examples: Training examples.
    """
    text = fitted.predictors[0].tokenizer
    found: dict[str, Any] = {"parameters": fitted.predictors[0].model.num_parameters()}
    for name, tokenizer, one in (("domain", domain, task), ("text", text, written)):
        if tokenizer is None:
            raise DataError("the model of the text reads no events", where=task.name)
        tokens = tokenizer.encode(training_events(one, examples))
        found[name] = {
            "vocabulary": tokenizer.vocab_size,
            "tokens_per_event": len(tokens.ids) / max(tokens.n_events, 1),
            "tokens_per_history": len(tokens.ids) / max(tokens.n_entities, 1),
        }
    return found


def _with_text(model: SequenceModel, schema: dict[str, Any], bpe: int) -> SequenceModel:
    """The same model, which reads the text and has so many byte-pair tokens."""
    finetuning = model.finetuning.model_copy(update={"bpe_vocab_size": bpe})
    pretraining = model.pretraining
    if pretraining is not None:
        tokenizer = pretraining.tokenizer.model_copy(update={"bpe_vocab_size": bpe})
        pretraining = pretraining.model_copy(update={"tokenizer": tokenizer})
    return replace(model, schema=schema, finetuning=finetuning, pretraining=pretraining)


def _bpe_size(model: SequenceModel) -> int:
    if model.pretraining is not None:
        return model.pretraining.tokenizer.bpe_vocab_size
    return model.finetuning.bpe_vocab_size


def _as_string(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_float():
        column = column.round_sig_figs(_DIGITS)
        text = column.cast(pl.String)
        return text.str.strip_suffix(".0")
    if isinstance(dtype, pl.Datetime):
        return column.dt.strftime("%Y-%m-%d %H:%M")
    return column.cast(pl.String)
