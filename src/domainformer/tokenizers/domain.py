"""DomainTokenizer: a schema's fields, fitted, sharing one vocabulary.

::

    schema ─fit(table)─▶ field tokenizers ─▶ one vocabulary ─┬▶ encode: tables to ids, in bulk
                                                             ├▶ encode_event: one event
                                                             ├▶ decode: ids to events
                                                             └▶ tokenizer.json for Hugging Face
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.artifacts import fingerprint, staged_directory
from domainformer.data import Budgets, EventTable
from domainformer.data.store import TokenizedEvents, TokenStore, id_dtype
from domainformer.errors import DataError, TokenizerError
from domainformer.schema import DomainSchema
from domainformer.tokenizers import hub, vocabulary
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.decoder import decode_forms
from domainformer.tokenizers.encoder import Columns, shard_bounds
from domainformer.tokenizers.events import EventEncoder
from domainformer.tokenizers.fields import BytePairModel, TextTokenizer
from domainformer.tokenizers.fitting import read_columns
from domainformer.tokenizers.forms import Forms
from domainformer.tokenizers.learning import StatisticalFit
from domainformer.tokenizers.parsing import parse_ids
from domainformer.tokenizers.slots import BOS_ID, EOS_ID, PAD_ID, Layout, Slot
from domainformer.tokenizers.sources import FormEncoder, encode_forms

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class _Fitted:
    """What `fit` makes, all at once or not at all."""

    layout: Layout
    backend: Tokenizer
    vocab: list[str]
    forms: Forms
    events: EventEncoder | FormEncoder
    fingerprint: str


class DomainTokenizer(StatisticalFit):
    """Turns events into ids of one vocabulary, and back.

    An event becomes its fields' tokens in schema order, without separators::

        {"kind": "Fuel", "amount": -20.0, "shop": "corner shop"}
        [KIND=Fuel] [AMOUNT_SIGN=NEG] [AMOUNT=B11] [SHOP] cor ner Ġshop

    Ids: the generic specials (`PAD` 0, `BOS` 1, `EOS` 2, `UNK` 3), each field's block in schema
    order, then the byte-level BPE, if a field is text. Three paths give equal ids: `encode` on
    columns, `encode_event` on one event, and Hugging Face on `render_event`'s string.

    Args:
        schema: The fields of an event.
        bpe_vocab_size: Bytes and merges for text, at least 256; not used without text.

    Raises:
        TokenizerError: The BPE vocabulary has no room for the bytes; or, by every method but
            `fit`, the tokenizer is not fitted.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> schema = DomainSchema("shop", [
        ...     FieldSpec("kind", "categorical_fixed"), FieldSpec("price", "numerical_continuous")])
        >>> events = pl.DataFrame({"kind": ["tea", "cake", "tea"], "price": [2.0, 3.5, None]})
        >>> tokenizer = DomainTokenizer(schema).fit(events)
        >>> tokenizer.tokenize_event({"kind": "cake", "price": 9.0})
        ['[KIND=cake]', '[PRICE=B02]']
        >>> tokenizer.decode(tokenizer.encode(events).ids)["kind"].to_list()
        ['tea', 'cake', 'tea']
    """

    pad_id: ClassVar[int] = PAD_ID
    """Fills rows up; never part of an event."""
    bos_id: ClassVar[int] = BOS_ID
    """Begins a history."""
    eos_id: ClassVar[int] = EOS_ID
    """Ends a history."""

    def __init__(self, schema: DomainSchema, *, bpe_vocab_size: int = 4096) -> None:
        super().__init__(schema, bpe_vocab_size=bpe_vocab_size)
        self._parts: _Fitted | None = None

    # ── putting together ─────────────────────────────────────────────────────────────────────

    def assemble(self, layout: Layout, backend: Tokenizer) -> Self:
        """Put fitted fields and the Hugging Face tokenizer together, as `fit` and loading do."""
        bpe = BytePairModel(backend) if vocabulary.has_bpe(backend) else None
        for block in layout.blocks:
            if isinstance(block.tokenizer, TextTokenizer):
                assert bpe is not None
                block.tokenizer.bind(bpe)
        layout = layout.with_pieces(len(bpe.tokens) if bpe else 0)
        vocab = layout.vocabulary(bpe.tokens if bpe else ())
        decisive: dict[str, Any] = {
            "schema": self.schema.fingerprint(),
            "fields": [block.tokenizer.state() for block in layout.blocks],
            "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        }
        if layout.growths:
            decisive["growths"] = [asdict(growth) for growth in layout.growths]
        forms = Forms.of(self.schema, layout)
        events = EventEncoder(layout, vocab) if forms.plain else FormEncoder(forms, vocab)
        self._parts = _Fitted(layout, backend, vocab, forms, events, fingerprint(decisive))
        return self

    # ── what is known after fitting ──────────────────────────────────────────────────────────

    @property
    def fitted(self) -> bool:
        """Whether `fit` or `from_pretrained` has run."""
        return self._parts is not None

    @property
    def _fitted(self) -> _Fitted:
        if self._parts is None:
            raise TokenizerError(
                "the tokenizer is not fitted",
                next_step="call fit(table) with training events, or load one by from_pretrained",
            )
        return self._parts

    @property
    def layout(self) -> Layout:
        """The fitted fields with their blocks of ids."""
        return self._fitted.layout

    @property
    def forms(self) -> Forms:
        """The forms of an event: one, or one for each source of the schema."""
        return self._fitted.forms

    @property
    def budgets(self) -> Budgets | None:
        """What each source may take of a context; None where the schema gives no shares."""
        sources = self.schema.sources
        if all(source.share is None for source in sources.values()):
            return None
        ids = self.forms.opening.ids[1:].tolist()
        shares = (source.share or 0.0 for source in sources.values())
        return Budgets(dict(zip(ids, shares, strict=True)))

    @property
    def backend(self) -> Tokenizer:
        """The Hugging Face ``tokenizers.Tokenizer`` that ``tokenizer.json`` holds."""
        return self._fitted.backend

    @property
    def fields(self) -> tuple[FieldTokenizer, ...]:
        """The fitted field tokenizers in token order."""
        return tuple(block.tokenizer for block in self.layout.blocks)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The positions of an event, each with its own ids (`Slot.ids`)."""
        return self.layout.slots

    @property
    def bpe_range(self) -> tuple[int, int]:
        """First BPE id and one past the last; equal where there is no text.

        After an extension other ids lie between them: `bpe_ids` tells which are BPE's own.
        """
        ids = self.bpe_ids
        return (int(ids[0]), int(ids[-1]) + 1) if len(ids) else (self.vocab_size, self.vocab_size)

    @property
    def bpe_ids(self) -> npt.NDArray[np.int64]:
        """The ids of the byte-level BPE, int64, in the order of its own; empty without text."""
        return self.layout.piece_ids

    @property
    def vocab(self) -> list[str]:
        """Id → token."""
        return list(self._fitted.vocab)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self._fitted.vocab)

    @property
    def fingerprint(self) -> str:
        """Short name of all that decides ids: equal tokenizers have equal fingerprints."""
        return self._fitted.fingerprint

    @property
    def lineage(self) -> tuple[str, ...]:
        """Fingerprints of the tokenizers that this one extends, oldest first; usually none.

        What was encoded with any of them decodes the same with this one.
        """
        return tuple(growth.parent for growth in self.layout.growths)

    # ── tables ───────────────────────────────────────────────────────────────────────────────

    def encode(
        self,
        table: EventTable | pl.DataFrame,
        *,
        roles: npt.NDArray[np.uint8] | None = None,
        compiled: bool | None = None,
    ) -> TokenizedEvents:
        """Ids of all events of a table.

        Args:
            table: Events; a DataFrame is one history (entity 0) in the order of its rows, and
                cannot give elapsed times.
            roles: Split role of each event, uint8 [n_events], carried along.
            compiled: Use numba (extra ``fast``); None where it is installed and the events are
                many. The ids are equal.

        Raises:
            SchemaError: The table does not fit the schema.
            TokenizerError: A column holds what its field cannot read.
        """
        dtype = id_dtype(self.vocab_size)
        joined = encode_forms(self.forms, self._columns(table), dtype, compiled=compiled)
        if isinstance(table, EventTable):
            owners, entity_ids, times = table.offsets, table.entity_ids, table.time_values
        else:
            owners = np.unique(np.array([0, table.height], dtype=np.int64))
            entity_ids = pl.Series("entity", range(len(owners) - 1), dtype=pl.Int64)
            times = np.zeros(table.height, dtype=np.int64)
        return TokenizedEvents(
            ids=joined.ids,
            event_offsets=joined.offsets,
            entity_offsets=owners,
            entity_ids=entity_ids,
            times=times,
            roles=roles,
            tokenizer_fingerprint=self.fingerprint,
            vocab_size=self.vocab_size,
        )

    def encode_to_store(
        self,
        table: EventTable,
        path: str | Path,
        *,
        roles: npt.NDArray[np.uint8] | None = None,
        shard_events: int = 1 << 22,
        overwrite: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> TokenStore:
        """Encode a table into a memory-mapped store, one shard in memory at a time.

        Args:
            table: Events.
            path: Folder of the store.
            roles: Split role of each event, uint8 [n_events].
            shard_events: Events per shard, up to whole entities.
            overwrite: Replace an existing store.
            meta: Plain data to keep in the store.
        """
        if roles is not None and len(roles) != table.n_events:
            raise DataError(f"{len(roles):,} roles for {table.n_events:,} events")
        shards = self._shards(table, roles, shard_events)
        return TokenStore.write(path, shards, overwrite=overwrite, meta=meta)

    def _shards(
        self, table: EventTable, roles: npt.NDArray[np.uint8] | None, shard_events: int
    ) -> Iterator[TokenizedEvents]:
        if table.n_events <= shard_events:
            yield self.encode(table, roles=roles)
            return
        for first, last in shard_bounds(table.offsets, shard_events):
            part = table.take_entities(np.arange(first, last))
            owned = slice(int(table.offsets[first]), int(table.offsets[last]))
            yield self.encode(part, roles=None if roles is None else roles[owned])

    def decode(self, ids: npt.ArrayLike, *, intervals: bool = False) -> pl.DataFrame:
        """Events from ids: exact for categories and calendar parts, typical values for bins.

        A sign and a magnitude that read one column give that column back; a date gives its
        parts, such as ``time_month`` and ``time_elapsed``.

        Args:
            ids: A flat sequence of whole events; padding, BOS and EOS may stand between them.
            intervals: Add the ends of each bin as ``…_low`` and ``…_high``.

        Raises:
            TokenizerError: The ids are not whole events; the first wrong position is named.
        """
        parsed = parse_ids(self.forms, ids, self.vocab_size)
        column = self.schema.source_column if self.schema.sources else None
        return decode_forms(parsed, source_column=column, intervals=intervals)

    def _columns(self, table: EventTable | pl.DataFrame) -> Columns:
        return read_columns(self.schema, table)

    # ── single events ────────────────────────────────────────────────────────────────────────

    def encode_event(self, event: Mapping[str, Any], previous_time: Any = None) -> list[int]:
        """Ids of one event.

        Args:
            event: A value per source column; None (or NaN) where it is not known.
            previous_time: Time of the entity's previous event: None where there is none, NaN
                where there is one whose time is not known.

        Raises:
            TokenizerError: A column is missing, or a value is of a kind its field cannot read.
        """
        return self._fitted.events.ids(event, previous_time)

    def tokenize_event(self, event: Mapping[str, Any], previous_time: Any = None) -> list[str]:
        """Tokens of one event, as entries of the vocabulary; see `encode_event`."""
        return self._fitted.events.tokens(event, previous_time)

    def render_event(self, event: Mapping[str, Any], previous_time: Any = None) -> str:
        """One event as a string: special tokens around raw text, without blanks between.

        Any Hugging Face tokenizer loaded from the saved folder encodes it to the ids of
        `encode_event`. Text that looks like a token is marked with U+E000, so it stays text.
        """
        return self._fitted.events.render(event, previous_time)

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the tokenizer as a folder that `AutoTokenizer.from_pretrained` reads, too.

        Raises:
            ArtifactError: The folder exists, or cannot be written; nothing partial is left.
        """
        folder = Path(folder)
        meta = {"kind": hub.KIND, "fingerprint": self.fingerprint}
        with staged_directory(folder, overwrite=overwrite, meta=meta) as staging:
            hub.write_files(self, staging)
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> DomainTokenizer:
        """Read a tokenizer that `save_pretrained` or a model bundle has written.

        Raises:
            ArtifactError: The folder is missing, incomplete, damaged or no tokenizer.
            FingerprintError: Its files come from different tokenizers.
        """
        hub.verify_files(Path(folder))
        return hub.read_files(Path(folder))

    def to_hf(self) -> hub.HFTokenizer:
        """A `transformers` tokenizer with the same ids."""
        return hub.to_hf(self)

    def __repr__(self) -> str:
        if not self.fitted:
            return f"DomainTokenizer({self.schema.name!r}, not fitted)"
        return (
            f"DomainTokenizer({self.schema.name!r}, {self.vocab_size:,} tokens, "
            f"{len(self.slots)} slots)"
        )
