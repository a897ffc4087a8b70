"""Schemas for three domains; they fit the tables that ``simulate`` makes, and many real ones."""

from __future__ import annotations

from types import MappingProxyType

from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.schema.schema import DomainSchema

#: Card or account transactions: sign 2 + magnitude 21 + calendar 74 = 97 special tokens, then the
#: text of the description (Braithwaite et al. 2025, "Your spending needs attention",
#: arXiv 2507.23267).
FINANCE_SCHEMA = DomainSchema(
    "finance",
    [
        FieldSpec("amount_sign", FieldType.SIGN, column="amount"),
        FieldSpec("amount", FieldType.NUMERICAL_CONTINUOUS, n_bins=21),
        FieldSpec("timestamp", FieldType.TEMPORAL),
        FieldSpec("description", FieldType.TEXT),
    ],
)

#: Lines of shopping baskets; the lines of one basket share their time, so elapsed time is zero.
ECOMMERCE_SCHEMA = DomainSchema(
    "ecommerce",
    [
        FieldSpec("category", FieldType.CATEGORICAL_FIXED),
        FieldSpec("product", FieldType.CATEGORICAL_ENTITY, min_frequency=2, hash_buckets=64),
        FieldSpec("quantity", FieldType.NUMERICAL_DISCRETE, vocab_size=32),
        FieldSpec("unit_price", FieldType.NUMERICAL_CONTINUOUS),
        FieldSpec("timestamp", FieldType.TEMPORAL, elapsed_bins=16),
        FieldSpec("description", FieldType.TEXT),
    ],
)

#: Clinical measurements: what was measured, its unit, its value, and when.
HEALTH_SCHEMA = DomainSchema(
    "health",
    [
        FieldSpec("code", FieldType.CATEGORICAL_FIXED),
        FieldSpec("unit", FieldType.CATEGORICAL_FIXED),
        FieldSpec("value_sign", FieldType.SIGN, column="value"),
        FieldSpec("value", FieldType.NUMERICAL_CONTINUOUS),
        FieldSpec("timestamp", FieldType.TEMPORAL, elapsed_bins=16),
    ],
)

#: The presets by name.
PRESETS: MappingProxyType[str, DomainSchema] = MappingProxyType(
    {schema.name: schema for schema in (FINANCE_SCHEMA, ECOMMERCE_SCHEMA, HEALTH_SCHEMA)}
)
