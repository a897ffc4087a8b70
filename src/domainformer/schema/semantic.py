"""How the tokens of a semantic id are spelt, and which of its options fit together.

A semantic id says an entity in ``levels`` codes and a number that tells apart what shares them::

    product 8741   [PRODUCT_1=017] [PRODUCT_2=203] [PRODUCT_3=004] [PRODUCT_N=02]
    null           [PRODUCT_1_MISSING] …                           [PRODUCT_N_MISSING]
    never seen     [PRODUCT_1_UNK] …                               [PRODUCT_N_UNK]

Each position has tokens of its own, so an id alone tells where it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

MAX_LEVELS, MAX_CODES = 8, 65536
_EXCLUDED = ("vocab_size", "min_frequency", "hash_buckets")


def semantic_positions(levels: int) -> tuple[str, ...]:
    """The names of the positions as tokens carry them.

    Example:
        >>> semantic_positions(3)
        ('1', '2', '3', 'N')
    """
    return (*(str(level) for level in range(1, levels + 1)), "N")


def semantic_tokens(prefix: str, position: str, count: int) -> tuple[str, ...]:
    """The tokens of one position: missing, unknown, and its values from 0 on.

    Args:
        prefix: The field's prefix (see `token_prefix`).
        position: One of `semantic_positions`.
        count: Number of values.

    Example:
        >>> semantic_tokens("PRODUCT", "1", 2)
        ('[PRODUCT_1_MISSING]', '[PRODUCT_1_UNK]', '[PRODUCT_1=00]', '[PRODUCT_1=01]')
        >>> semantic_tokens("PRODUCT", "3", 256)[-1]
        '[PRODUCT_3=255]'
    """
    stem = f"[{prefix}_{position}"
    digits = max(2, len(str(count - 1)))
    values = (f"{stem}={value:0{digits}d}]" for value in range(count))
    return (f"{stem}_MISSING]", f"{stem}_UNK]", *values)


def semantic_stems(prefix: str, levels: int) -> frozenset[str]:
    """The beginnings of all tokens of a semantic id, up to ``=`` or ``]``."""
    stems = (f"[{prefix}_{position}" for position in semantic_positions(levels))
    return frozenset(
        text for stem in stems for text in (f"{stem}=", f"{stem}_MISSING]", f"{stem}_UNK]")
    )


def semantic_unknown_tokens(prefix: str, levels: int) -> tuple[str, ...]:
    """What stands at each position for an entity without codes; nothing where levels are 0."""
    if not levels:
        return ()
    return tuple(f"[{prefix}_{position}_UNK]" for position in semantic_positions(levels))


def code_problems(spec: FieldSpec) -> list[str]:
    """What is wrong with a field's semantic options, besides being out of range."""
    if spec.field_type.value != "categorical_entity":
        return []
    defaults = type(spec).model_fields
    if not spec.semantic_levels:
        if spec.semantic_codes != defaults["semantic_codes"].default:
            return ["semantic_codes: without semantic_levels there are no codes (3 is usual)"]
        return []
    return [
        f"{option}: a semantic id has no use for it, every entity has its own id (leave it out)"
        for option in _EXCLUDED
        if getattr(spec, option) != defaults[option].default
    ]
