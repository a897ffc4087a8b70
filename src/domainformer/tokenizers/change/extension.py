"""Extending a fitted tokenizer: new values, entities and merges, and no old id moves.

::

    ids of the parent        0 … n−1      every one means what it meant
    of the extension         n …          KIND=new   SHOP=new   merges of new texts

A model that was trained with the parent reads the extension's old ids as before, and needs a row
for each new one (`inference.extend_bundle`). Bins and calendar parts cover every number and date
already: where these drift, a new fit is needed (see `drift`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from domainformer.data import EventTable
from domainformer.errors import DataError, InputError, SchemaError, TokenizerError, nearest
from domainformer.tokenizers import vocabulary
from domainformer.tokenizers.base import MISSING, FieldTokenizer
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fields import BytePairModel, TextTokenizer, restore
from domainformer.tokenizers.fields.continuation import count_words, further_merges
from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.fitting import read_columns
from domainformer.tokenizers.occupancy import Occupancy, unknown_ids
from domainformer.tokenizers.reference import Reference, TextReference, summed_texts
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer
from domainformer.tokenizers.semantic.wiring import checked_semantic_ids
from domainformer.tokenizers.slots import Growth, Layout, lay_out
from domainformer.tokenizers.sources import FieldRows

_SHOWN = 5


@dataclass(frozen=True)
class FieldExtension:
    """What one field gained.

    Args:
        field: Name of the field.
        tokens: Its new tokens, in the order of their ids.
        unknown_before: Share of the table's values that were outside of the vocabulary.
        unknown_after: The same with the new tokens.
        why: What keeps values unknown that the table has, and how to let them in; empty where
            nothing does.
    """

    field: str
    tokens: tuple[str, ...]
    unknown_before: float
    unknown_after: float
    why: str = ""


@dataclass(frozen=True)
class ExtendResult:
    """An extended tokenizer, and what is new in it.

    Args:
        tokenizer: The extension; the parent itself where nothing was new.
        parent: Fingerprint of the tokenizer that was extended.
        events: Events that were looked at.
        fields: Every field whose vocabulary can grow.
        pieces: New tokens of the byte-pair model, in the order of their ids.
        bytes_per_token_before: UTF-8 bytes of the table's texts per BPE token; None without text.
        bytes_per_token_after: The same with the new merges.
        folder: Where the extension was written, if it was.
    """

    tokenizer: DomainTokenizer = field(repr=False)
    parent: str
    events: int
    fields: tuple[FieldExtension, ...]
    pieces: tuple[str, ...]
    bytes_per_token_before: float | None
    bytes_per_token_after: float | None
    folder: Path | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was new."""
        return self.tokenizer.fingerprint != self.parent

    @property
    def new_tokens(self) -> int:
        """Number of new ids."""
        return sum(len(one.tokens) for one in self.fields) + len(self.pieces)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "fingerprint": self.tokenizer.fingerprint,
            "parent": self.parent,
            "lineage": list(self.tokenizer.lineage),
            "vocab_size": self.tokenizer.vocab_size,
            "new_tokens": self.new_tokens,
            "events": self.events,
            "fields": [asdict(one) for one in self.fields],
            "pieces": list(self.pieces),
            "bytes_per_token_before": self.bytes_per_token_before,
            "bytes_per_token_after": self.bytes_per_token_after,
            "folder": None if self.folder is None else str(self.folder),
        }

    def render(self) -> Table:
        """A row per field, for people."""
        title = f"{self.new_tokens:,} new tokens, {self.tokenizer.vocab_size:,} in all"
        table = Table("field", "new", "unknown before", "after", "for example", title=title)
        for one in self.fields:
            examples = _examples(one.tokens)
            before, after = f"{one.unknown_before:.2%}", f"{one.unknown_after:.2%}"
            table.add_row(one.field, f"{len(one.tokens):,}", before, after, examples)
        if self.bytes_per_token_before is not None:
            known = (self.bytes_per_token_before, self.bytes_per_token_after or 0.0)
            rates = [f"{rate:.2f} bytes/token" for rate in known]
            table.add_row("(text)", f"{len(self.pieces):,}", *rates, _examples(self.pieces))
        told = [f"{one.field}: {one.why}" for one in self.fields if one.why]
        # Brackets are markup to rich, and the name of a field may have them.
        table.caption = "\n".join(told).replace("[", r"\[") or None
        return table


def extend(
    tokenizer: DomainTokenizer | str | Path,
    table: EventTable | pl.DataFrame,
    *,
    fields: Sequence[str] | None = None,
    min_frequency: int | None = None,
    most_new: int | None = None,
    most_merges: int = 256,
    semantic_ids: Mapping[str, SemanticIdTokenizer] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExtendResult:
    """Add the new values, entities and words of a table to a fitted tokenizer.

    Every id of the old tokenizer keeps its place and meaning: what was encoded with it decodes the
    same with the extension. New tokens stand at the end: fields' in the order of the schema, then
    merges, which rank behind all old ones. So an old category keeps its id, whereas a value that
    was unknown, or in a hash bucket, now has its own; a text may be spelt by fewer, new tokens.

    Args:
        tokenizer: A fitted tokenizer, or its folder. It is left as it is.
        table: New training events: as with a fit, only what the model may know.
        fields: Extend only these fields; text fields share one byte-pair model, so naming any of
            them lets it learn from those named.
        min_frequency: A new value or merge has to occur so often in the table; by default the
            spec's own ``min_frequency``, and 2 for merges.
        most_new: New values per field at most; by default what the spec's ``vocab_size`` leaves,
            and no limit where it has none.
        most_merges: New merges at most; 0 leaves text as it is.
        semantic_ids: Fields with semantic ids that know more entities, by name, as
            `SemanticIdTokenizer.with_entities` gives them: the codes of new entities come from
            features that a table of events does not have.
        output: Save the extension there.
        overwrite: Replace an existing folder.
        progress: Called with the name of each field that is looked at.

    Raises:
        SchemaError: The table does not fit the tokenizer's schema, or there is no such field.
        DataError: The table has no events.
        InputError: A number is out of range.
        TokenizerError: A new token is spelt like an old one, or semantic ids do not continue those
            of the tokenizer.

    Example:
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
        >>> old = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["tea", "cake"]}))
        >>> result = extend(old, pl.DataFrame({"kind": ["tea", "mug", None]}))
        >>> result.fields[0].tokens, result.fields[0].unknown_before
        (('[KIND=mug]',), 0.5)
        >>> result.tokenizer.vocab[: old.vocab_size] == old.vocab, result.tokenizer.lineage
        (True, ('...',))
    """
    if not isinstance(tokenizer, DomainTokenizer):
        tokenizer = DomainTokenizer.from_pretrained(tokenizer)
    _check_numbers(min_frequency=min_frequency, most_new=most_new, most_merges=most_merges)
    chosen = _chosen(tokenizer, fields)
    columns = read_columns(tokenizer.schema, table)
    if not columns.frame.height:
        raise DataError("there are no events to learn from", next_step="check the table's filters")
    rows = FieldRows.of(tokenizer.schema, columns.frame)
    read = [rows.take(field.spec.name, columns.read_by(field)) for field in tokenizer.fields]
    given = checked_semantic_ids(tokenizer.schema, semantic_ids)
    new: list[FieldTokenizer] = []
    for old, column in zip(tokenizer.fields, read, strict=True):
        if progress is not None:
            progress(old.spec.name)
        if old.spec.name in given:
            new.append(_continued(old, given[old.spec.name]))
        else:
            new.append(_extended(old, column, chosen, min_frequency, most_new))
    texts = summed_texts(
        [
            count_texts(column, field=field.spec.name)
            for field, column in zip(new, read, strict=True)
            if isinstance(field, TextTokenizer) and field.spec.name in chosen
        ]
    )
    least = 2 if min_frequency is None else min_frequency
    grown, pieces = _put_together(tokenizer, new, texts, most=most_merges, least=least)
    if grown is not tokenizer and tokenizer.reference is not None:
        now = Reference.of_table(grown.layout, grown.schema, table)
        grown.reference = tokenizer.reference + now
    result = ExtendResult(
        tokenizer=grown,
        parent=tokenizer.fingerprint,
        events=columns.frame.height,
        fields=_gained(tokenizer, grown, read, chosen, most_new),
        pieces=pieces,
        bytes_per_token_before=_bytes_per_token(tokenizer, texts),
        bytes_per_token_after=_bytes_per_token(grown, texts),
        folder=None if output is None else Path(output),
    )
    if output is not None:
        grown.save_pretrained(output, overwrite=overwrite)
    return result


def _chosen(tokenizer: DomainTokenizer, fields: Sequence[str] | None) -> set[str]:
    names = [block.spec.name for block in tokenizer.layout.blocks]
    for name in fields or ():
        if name not in names:
            raise SchemaError(
                f"the tokenizer has no field {name!r}", next_step=nearest(name, names)
            )
    return set(names if fields is None else fields)


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        least = 1 if name == "min_frequency" else 0
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")


def _extended(
    tokenizer: FieldTokenizer,
    column: pl.Series,
    chosen: set[str],
    min_frequency: int | None,
    most_new: int | None,
) -> FieldTokenizer:
    """A field with its new values; a text gets a copy, to which another model will be bound."""
    if isinstance(tokenizer, TextTokenizer):
        return restore(tokenizer.spec, tokenizer.state())
    if tokenizer.spec.name not in chosen:
        return tokenizer
    return tokenizer.extended(column, min_frequency=min_frequency, most=most_new)


def _continued(old: FieldTokenizer, new: SemanticIdTokenizer) -> FieldTokenizer:
    """Semantic ids with further entities, provided that every old entity has its old codes."""
    assert isinstance(old, SemanticIdTokenizer)
    known = pl.Series(old.spec.name, old.entities, dtype=pl.String)
    same = new.vocab[: len(old.vocab)] == old.vocab
    if not same or (new.encode(known) != old.encode(known)).any():
        raise TokenizerError(
            f"the semantic ids of field {old.spec.name!r} do not continue the tokenizer's own",
            why="an entity that was known has other codes, or none",
            next_step="extend the ones that the tokenizer was fitted with, by with_entities(items)",
        )
    return old if new.entities == old.entities else new


def _put_together(
    old: DomainTokenizer,
    fields: list[FieldTokenizer],
    texts: dict[str, int],
    *,
    most: int,
    least: int,
) -> tuple[DomainTokenizer, tuple[str, ...]]:
    """The tokenizer of extended fields and merges learned from texts, and the new pieces."""
    layout, vocab = old.layout, old.vocab
    counts = tuple(
        len(new.vocab) - len(block.tokenizer.vocab)
        for new, block in zip(fields, layout.blocks, strict=True)
    )
    own = [vocab[index] for index in old.bpe_ids.tolist()]
    # New tokens are known before merges are learned, so that no merge and no text can spell one.
    growth = Growth(old.fingerprint, counts, 0)
    named = lay_out(fields, pieces=len(own), growths=[*layout.growths, growth])
    _check_unspelt(named.tokens, own)
    merges = _new_merges(old, named, own, texts, most=most, least=least)
    changed = any(
        not isinstance(new, TextTokenizer) and new is not block.tokenizer
        for new, block in zip(fields, layout.blocks, strict=True)
    )
    if not merges and not changed:
        return old, ()
    fresh = tuple(left + right for left, right in merges)
    growth = Growth(old.fingerprint, counts, len(fresh))
    whole = lay_out(fields, pieces=len(own) + len(fresh), growths=[*layout.growths, growth])
    spelt = whole.vocabulary([*own, *fresh])
    backend = vocabulary.grown(old.backend, spelt, whole.tokens, merges)
    extended = DomainTokenizer(old.schema, bpe_vocab_size=old.bpe_vocab_size)
    return extended.assemble(whole, backend), fresh


def _new_merges(
    old: DomainTokenizer,
    named: Layout,
    own: Sequence[str],
    texts: dict[str, int],
    *,
    most: int,
    least: int,
) -> list[tuple[str, str]]:
    """What the byte-pair model can learn from texts in which no token of ``named`` is spelt."""
    if not texts or not most:
        return []
    backend = vocabulary.grown(old.backend, named.vocabulary(own), named.tokens)
    escape = BytePairModel(backend, fast=False).escape
    words = count_words({escape(text): count for text, count in texts.items()})
    known = vocabulary.merges_of(backend)
    return further_merges(own, known, words, most=most, least=least, taken=named.tokens)


def _check_unspelt(tokens: Sequence[str], pieces: Sequence[str]) -> None:
    both = set(tokens) & set(pieces)
    if both:
        raise TokenizerError(
            f"the new token {min(both)} is a token of the byte-pair model already",
            why="the names of field and value are punctuation alone, as was a word of the texts",
            next_step="extend the other fields only (fields=[…]), or rename the field and fit anew",
        )


def _gained(
    old: DomainTokenizer,
    new: DomainTokenizer,
    read: Sequence[pl.Series],
    chosen: set[str],
    most_new: int | None,
) -> tuple[FieldExtension, ...]:
    """What each field gained that has an UNK token."""
    found = []
    for before, after, column in zip(old.fields, new.fields, read, strict=True):
        tokens = tuple(after.vocab[len(before.vocab) :])
        if not tokens and not len(unknown_ids(before)):
            continue
        name = before.spec.name
        then, now = (_unknown_share(one, column) for one in (before, after))
        why = _held_back(after, most_new) if now and name in chosen else ""
        found.append(FieldExtension(name, tokens, then, now, why))
    return tuple(found)


def _held_back(tokenizer: FieldTokenizer, most_new: int | None) -> str:
    """Why values of a field stay unknown, beyond their frequency."""
    spec = tokenizer.spec
    if isinstance(tokenizer, SemanticIdTokenizer):
        return "new entities need codes, which come from features: semantic_ids (--semantic-ids)"
    # Beside its values a vocabulary has MISSING, UNK and hash buckets.
    values = len(tokenizer.vocab) - 2 - spec.hash_buckets
    if most_new is None and spec.vocab_size is not None and values >= spec.vocab_size:
        return f"vocab_size {spec.vocab_size} is reached; most_new (--most-new) lets more in"
    return ""


def _unknown_share(tokenizer: FieldTokenizer, column: pl.Series) -> float:
    """Share of a column's values that are outside of the vocabulary."""
    # Where an entity has several positions, all of them say so.
    width = tokenizer.slots[0].stop
    counts = Occupancy.of_column(tokenizer, column).counts[:width]
    unknown = [index for index in unknown_ids(tokenizer).tolist() if index < width]
    present = int(counts.sum() - counts[MISSING])
    return float(counts[unknown].sum()) / max(1, present)


def _bytes_per_token(tokenizer: DomainTokenizer, texts: dict[str, int]) -> float | None:
    bpe = next((f.bpe for f in tokenizer.fields if isinstance(f, TextTokenizer)), None)
    return None if bpe is None or not texts else TextReference.of(bpe, texts).bytes_per_token


def _examples(tokens: Sequence[str]) -> str:
    # Brackets are markup to rich, and every token has them.
    shown = " ".join(tokens[:_SHOWN]).replace("[", r"\[").replace("Ġ", "␣")
    return shown + (" …" if len(tokens) > _SHOWN else "")
