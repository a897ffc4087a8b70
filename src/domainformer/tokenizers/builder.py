"""Build a Hugging Face tokenizer for events in two steps: fields first, then text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DataError, TokenizerError
from domainformer.schema import DomainSchema
from domainformer.tokenizers import hub
from domainformer.tokenizers.domain import DomainTokenizer

Events = EventTable | pl.DataFrame | Sequence[Mapping[str, Any]]


class DomainTokenizerBuilder:
    """Collects training events and a text corpus, and makes a tokenizer of both.

    Args:
        schema: The fields of an event.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
        >>> builder = DomainTokenizerBuilder(schema).fit([{"kind": "tea"}, {"kind": "cake"}])
        >>> tokenizer = builder.build(["tea for two"], bpe_vocab_size=260)
        >>> tokenizer.backend.encode("[KIND=tea]tea").tokens
        ['[KIND=tea]', 'tea']
    """

    def __init__(self, schema: DomainSchema) -> None:
        self.schema = schema
        self._events: EventTable | pl.DataFrame | None = None

    def fit(self, events: Events) -> Self:
        """Take the events that the fields are fitted on.

        Args:
            events: Training events: a table, or a list of mappings.

        Raises:
            DataError: There are no events, or their values have no common type.
            SchemaError: They do not fit the schema.
        """
        if not isinstance(events, (EventTable, pl.DataFrame)):
            events = _as_frame(events)
        self.schema.check(events)
        self._events = events
        return self

    def build(
        self, text_corpus: Iterable[str] | None = None, bpe_vocab_size: int = 4096
    ) -> DomainTokenizer:
        """A fitted `DomainTokenizer`.

        Args:
            text_corpus: Texts to train the BPE on; None for the events' own text columns.
            bpe_vocab_size: Bytes and merges, at least 256.

        Raises:
            TokenizerError: `fit` was not called.
        """
        if self._events is None:
            raise TokenizerError("the builder has no events", next_step="call fit(events) first")
        tokenizer = DomainTokenizer(self.schema, bpe_vocab_size=bpe_vocab_size)
        return tokenizer.fit(self._events, text_corpus=text_corpus)

    def build_hf_tokenizer(
        self, text_corpus: Iterable[str] | None = None, bpe_vocab_size: int = 4096
    ) -> hub.HFTokenizer:
        """The same as a `transformers` tokenizer; see `build`."""
        return self.build(text_corpus, bpe_vocab_size).to_hf()


def _as_frame(events: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    try:
        return pl.DataFrame([dict(event) for event in events], infer_schema_length=None)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(
            "the events cannot be read as a table",
            why=str(error),
            next_step="give mappings of column names to values, one type per column",
        ) from error
