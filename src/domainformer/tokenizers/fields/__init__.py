"""One tokenizer per kind of field: a column of a table to small integers, and back.

Start at `tokenizers.base` (what every field tokenizer can do) and `shapes` (bins and lookup tables,
which almost all of them are), then read the kind you need: `numeric` (sign, magnitude, whole
numbers), `categorical`, `entity`, `calendar`, `elapsed`, `text` with its `bytepair` model.
`columns` reads table columns as arrays; semantic ids of entities are a package of their own,
`tokenizers.semantic`. A new kind is one file here, a line in `field_tokenizers` and a row in the
component table of the tests.

May import: schema, errors, `tokenizers.base`, numpy, polars, pyarrow and Hugging Face's
``tokenizers``; never torch or transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domainformer.errors import ArtifactError
from domainformer.schema.fields import FieldType
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.fields.bytepair import BytePairModel, train_bpe, unescape
from domainformer.tokenizers.fields.calendar import CalendarPlan, CalendarTokenizer
from domainformer.tokenizers.fields.categorical import CategoricalTokenizer, hash_bucket
from domainformer.tokenizers.fields.elapsed import ElapsedTimeTokenizer, TimeKind
from domainformer.tokenizers.fields.entity import EntityIdTokenizer
from domainformer.tokenizers.fields.numeric import (
    DiscreteTokenizer,
    MagnitudeBucketTokenizer,
    SignTokenizer,
)
from domainformer.tokenizers.fields.shapes import BinTokenizer, Codes, LookupTokenizer
from domainformer.tokenizers.fields.source import SourceTokenizer
from domainformer.tokenizers.fields.text import TextCodes, TextTokenizer
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

__all__ = [
    "field_tokenizers",
    "restore",
    "SignTokenizer",
    "MagnitudeBucketTokenizer",
    "DiscreteTokenizer",
    "CategoricalTokenizer",
    "EntityIdTokenizer",
    "SemanticIdTokenizer",
    "CalendarTokenizer",
    "ElapsedTimeTokenizer",
    "TextTokenizer",
    "SourceTokenizer",
    "BinTokenizer",
    "LookupTokenizer",
    "Codes",
    "CalendarPlan",
    "TextCodes",
    "TimeKind",
    "BytePairModel",
    "train_bpe",
    "unescape",
    "hash_bucket",
]

_BY_TYPE: dict[FieldType, type[FieldTokenizer]] = {
    FieldType.SIGN: SignTokenizer,
    FieldType.NUMERICAL_CONTINUOUS: MagnitudeBucketTokenizer,
    FieldType.NUMERICAL_DISCRETE: DiscreteTokenizer,
    FieldType.CATEGORICAL_FIXED: CategoricalTokenizer,
    FieldType.CATEGORICAL_ENTITY: EntityIdTokenizer,
    FieldType.TEXT: TextTokenizer,
}
_TEMPORAL: tuple[type[FieldTokenizer], ...] = (CalendarTokenizer, ElapsedTimeTokenizer)
_APART: tuple[type[FieldTokenizer], ...] = (SemanticIdTokenizer, SourceTokenizer)
_BY_KIND = {cls.kind: cls for cls in (*_BY_TYPE.values(), *_TEMPORAL, *_APART)}


def field_tokenizers(spec: FieldSpec, *, time_kind: TimeKind = "datetime") -> list[FieldTokenizer]:
    """The tokenizers of one field, in token order, not fitted yet.

    One for most fields; a TEMPORAL field has its calendar parts (which read the time column) and
    then its elapsed time (which reads `EventTable.elapsed`), as far as the spec asks for them.

    Args:
        spec: The field.
        time_kind: What the table's times are, for the resolution of elapsed time.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> [t.kind for t in field_tokenizers(FieldSpec("time", "temporal", elapsed_bins=8))]
        ['calendar', 'elapsed']
    """
    if spec.semantic_levels:
        return [SemanticIdTokenizer(spec)]
    if spec.field_type is not FieldType.TEMPORAL:
        return [_BY_TYPE[spec.field_type](spec)]
    tokenizers: list[FieldTokenizer] = []
    if spec.calendar_fields:
        tokenizers.append(CalendarTokenizer(spec))
    if spec.elapsed_bins:
        tokenizers.append(ElapsedTimeTokenizer(spec, time_kind=time_kind))
    return tokenizers


def restore(spec: FieldSpec, state: dict[str, Any]) -> FieldTokenizer:
    """A field tokenizer from its spec and what its `state` gave (text: `bind` the model after).

    Raises:
        ArtifactError: The state is not one of a field tokenizer.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> restore(FieldSpec("amount", "sign"), {"kind": "sign"}).vocab[1]
        '[AMOUNT=NEG]'
    """
    try:
        return _BY_KIND[state["kind"]].from_state(spec, state)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the saved tokenizer of field {spec.name!r} cannot be read",
            why=f"{type(error).__name__}: {error}",
            next_step="the file was changed or written by another version: fit and save again",
        ) from error
