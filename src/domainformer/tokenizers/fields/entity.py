"""Identities such as products or merchants, one token each."""

from __future__ import annotations

from typing import ClassVar

from domainformer.tokenizers.fields.categorical import CategoricalTokenizer


class EntityIdTokenizer(CategoricalTokenizer):
    """One of many things with an identity (a product, a merchant), one token per frequent thing.

    Plain ids: like a category, with a long tail, so ``vocab_size``, ``min_frequency`` and
    ``hash_buckets`` of the spec matter more here. With ``semantic_levels`` the field is told in
    codes that like things share instead (see `tokenizers.semantic.SemanticIdTokenizer`).

    Args:
        spec: A field of type CATEGORICAL_ENTITY.

    Example:
        >>> import polars as pl
        >>> from domainformer.schema import FieldSpec
        >>> spec = FieldSpec("product", "categorical_entity", vocab_size=1, hash_buckets=2)
        >>> EntityIdTokenizer(spec).fit(pl.Series(["mug", "mug", "cup"])).vocab[2:]
        ['[PRODUCT=mug]', '[PRODUCT_HASH=00]', '[PRODUCT_HASH=01]']
    """

    kind: ClassVar[str] = "entity"
