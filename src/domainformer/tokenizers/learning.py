"""The fit of a `DomainTokenizer`: from events, or from statistics of events, to a vocabulary.

::

    fit(table) ──────────────── FitStatistics of one part ────────╮
    partial_fit(part) …, merge(other) … ─ finish() ───────────────┼─▶ fields ─▶ layout ─▶ assemble
    from_statistics(schema, statistics of wherever) ──────────────╯   └─ texts ─▶ BPE ──────┘
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import FingerprintError, TokenizerError
from domainformer.schema import DomainSchema
from domainformer.tokenizers import vocabulary
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.fitting import FitStatistics
from domainformer.tokenizers.reference import Reference
from domainformer.tokenizers.semantic.wiring import checked_semantic_ids, fitted_semantic_ids
from domainformer.tokenizers.slots import Layout, lay_out

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMALLEST_BPE = 256


class StatisticalFit(ABC):
    """What is fitted on statistics of events; `DomainTokenizer` adds what is done with the fit.

    Args:
        schema: The fields of an event.
        bpe_vocab_size: Bytes and merges for text, at least 256; not used without text.

    Raises:
        TokenizerError: The BPE vocabulary has no room for the bytes.
    """

    def __init__(self, schema: DomainSchema, *, bpe_vocab_size: int = 4096) -> None:
        if bpe_vocab_size < SMALLEST_BPE:
            raise TokenizerError(
                f"a byte-level vocabulary of {bpe_vocab_size} tokens is too small",
                where="bpe_vocab_size",
                why=f"each of the {SMALLEST_BPE} bytes needs a token",
                next_step="set it to 256 or more; 4096 suits short descriptions",
            )
        self.schema = schema
        self.bpe_vocab_size = bpe_vocab_size
        self._statistics: FitStatistics | None = None
        self.reference: Reference | None = None
        """What the training events looked like (see `drift`); None where that is not known."""

    def fit(
        self,
        table: EventTable | pl.DataFrame,
        *,
        text_corpus: Iterable[str] | None = None,
        semantic_ids: Mapping[str, FieldTokenizer] | None = None,
    ) -> Self:
        """Learn bins, vocabularies and merges from training events.

        Args:
            table: Training events only: whatever is seen here is known to the model.
            text_corpus: Texts to train the BPE on; by default the table's text columns. With a
                corpus the vocabulary has BPE tokens even if no field is text.
            semantic_ids: Semantic ids that were fitted apart, by field; for others that the schema
                asks for, codes are fitted on the table by residual k-means.

        Returns:
            This tokenizer, fitted; a second fit replaces the first.

        Raises:
            SchemaError: The table does not fit the schema.
            DataError: The table has no events.
        """
        statistics = FitStatistics(self.schema).update(table)
        semantic_ids = fitted_semantic_ids(self.schema, table, semantic_ids)
        if statistics.needs_recount:
            statistics.adopt(statistics.recounting().update(table))
        self._statistics = None
        return self._learn(statistics, text_corpus, semantic_ids)

    def partial_fit(self, table: EventTable | pl.DataFrame) -> Self:
        """Add a part of the training events to `statistics`; `finish` learns from all of them.

        Parts may come in any order and be of any size, on any number of machines (`merge`); where
        elapsed time is asked for, each holds whole entities.

        Raises:
            SchemaError: The table does not fit the schema.
            DataError: A column has another type than in earlier parts.

        Example:
            >>> from domainformer import DomainSchema, DomainTokenizer, FieldSpec
            >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
            >>> here = DomainTokenizer(schema).partial_fit(pl.DataFrame({"kind": ["tea"]}))
            >>> there = DomainTokenizer(schema).partial_fit(pl.DataFrame({"kind": ["cake"]}))
            >>> here.merge(there).finish().vocab[6:]
            ['[KIND=cake]', '[KIND=tea]']
        """
        self.statistics.update(table)
        return self

    def merge(self, other: StatisticalFit) -> Self:
        """Add what another tokenizer of this schema has seen by `partial_fit`.

        Raises:
            FingerprintError: It has another schema.
        """
        self.statistics.merge(other.statistics)
        return self

    @property
    def statistics(self) -> FitStatistics:
        """What `partial_fit` and `merge` have collected."""
        if self._statistics is None:
            self._statistics = FitStatistics(self.schema)
        return self._statistics

    def finish(
        self,
        *,
        text_corpus: Iterable[str] | None = None,
        semantic_ids: Mapping[str, FieldTokenizer] | None = None,
    ) -> Self:
        """Fit on all that `partial_fit` has seen, which further parts may follow.

        Raises:
            DataError: No events were seen.
            TokenizerError: A field has so many distinct values that the data must be read twice:
                see `FitStatistics.recounting`.
        """
        return self._learn(self.statistics, text_corpus, semantic_ids)

    @classmethod
    def from_statistics(
        cls,
        schema: DomainSchema,
        statistics: FitStatistics,
        *,
        bpe_vocab_size: int = 4096,
        text_corpus: Iterable[str] | None = None,
        semantic_ids: Mapping[str, FieldTokenizer] | None = None,
    ) -> Self:
        """A tokenizer fitted on statistics, wherever these were collected.

        Raises:
            FingerprintError: The statistics were collected for another schema.
            DataError: No events were seen.
            TokenizerError: A second pass over the data is needed first.
        """
        if schema.fingerprint() != statistics.schema.fingerprint():
            raise FingerprintError(
                "the statistics were collected for another schema",
                why=f"this is {schema.name!r}, that was {statistics.schema.name!r}",
                next_step="pass statistics.schema, or collect them again",
            )
        tokenizer = cls(schema, bpe_vocab_size=bpe_vocab_size)
        return tokenizer._learn(statistics, text_corpus, semantic_ids)

    def _learn(
        self,
        statistics: FitStatistics,
        text_corpus: Iterable[str] | None,
        semantic_ids: Mapping[str, FieldTokenizer] | None,
    ) -> Self:
        given = checked_semantic_ids(self.schema, semantic_ids)
        layout = lay_out(statistics.fitted_fields(given))
        texts = statistics.text_counts()
        if text_corpus is not None:
            texts = vocabulary.count_corpus(text_corpus)
        if texts is None:
            backend = vocabulary.word_level(layout.tokens)
        else:
            backend = vocabulary.byte_pair(layout.tokens, texts, self.bpe_vocab_size)
        self.assemble(layout, backend)
        self.reference = Reference.of_statistics(self.layout, statistics)
        return self

    @abstractmethod
    def assemble(self, layout: Layout, backend: Tokenizer) -> Self:
        """Put fitted fields and the Hugging Face tokenizer together."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The fitted fields with their blocks of ids."""
