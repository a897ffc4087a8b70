"""Semantic ids as fields of a schema: which fields want them, and whether given ones fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer

if TYPE_CHECKING:
    from domainformer.schema import DomainSchema


def checked_semantic_ids(
    schema: DomainSchema, given: Mapping[str, Any] | None
) -> dict[str, SemanticIdTokenizer]:
    """The given tokenizers under the specs of the schema.

    Args:
        schema: The fields.
        given: Fitted tokenizers by the names of fields.

    Raises:
        TokenizerError: A field does not exist or wants no semantic ids, or they do not fit it.
    """
    wanted = {spec.name: spec for spec in schema.fields if spec.semantic_levels}
    checked = {}
    for name, tokenizer in (given or {}).items():
        if name not in wanted:
            raise TokenizerError(
                f"the schema {schema.name!r} has no field {name!r} with semantic ids",
                why=f"semantic_levels is set for: {', '.join(wanted) or 'no field'}",
                next_step=nearest(name, wanted) or "set semantic_levels in the field's spec",
            )
        if not isinstance(tokenizer, SemanticIdTokenizer):
            raise TokenizerError(
                f"a SemanticIdTokenizer is expected, not {type(tokenizer).__name__}",
                where=f"semantic_ids[{name!r}]",
                next_step="pass the .tokenizer of what fit_semantic_ids gave",
            )
        checked[name] = tokenizer.for_field(wanted[name])
    return checked


def fitted_semantic_ids(
    schema: DomainSchema, table: EventTable | pl.DataFrame, given: Mapping[str, Any] | None
) -> dict[str, SemanticIdTokenizer]:
    """The given tokenizers, and for all other fields that want one a fit on the table itself.

    The features are the table's other columns and its histories, the codes those of residual
    k-means, which needs numpy alone and no settings.

    Args:
        schema: The fields.
        table: Training events.
        given: Fitted tokenizers by the names of fields.

    Raises:
        TokenizerError: As by `checked_semantic_ids`, or the ids have collapsed.
    """
    from domainformer.tokenizers.semantic.fit import fit_semantic_ids

    checked = checked_semantic_ids(schema, given)
    for spec in schema.fields:
        if spec.semantic_levels and spec.name not in checked:
            checked[spec.name] = fit_semantic_ids(table, spec, method="kmeans").tokenizer
    return checked
