import pytest

from domainformer.schema import (
    ECOMMERCE_SCHEMA,
    FINANCE_SCHEMA,
    HEALTH_SCHEMA,
    PRESETS,
    FieldType,
)


def test_finance_has_the_97_tokens_of_the_paper():
    assert FINANCE_SCHEMA.special_token_count == 97 == 2 + 21 + (12 + 7 + 31 + 24)


@pytest.mark.parametrize(
    ("schema", "columns"),
    [
        (FINANCE_SCHEMA, {"amount", "timestamp", "description"}),
        (
            ECOMMERCE_SCHEMA,
            {"product", "category", "quantity", "unit_price", "timestamp", "description"},
        ),
        (HEALTH_SCHEMA, {"code", "value", "unit", "timestamp"}),
    ],
)
def test_presets_read_the_columns_of_the_simulated_tables(schema, columns):
    assert set(schema.columns) == columns
    assert PRESETS[schema.name] is schema
    schema.check(columns)


def test_the_kinds_that_each_domain_needs():
    assert ECOMMERCE_SCHEMA.field("product").field_type is FieldType.CATEGORICAL_ENTITY
    assert HEALTH_SCHEMA.field("code").field_type is FieldType.CATEGORICAL_FIXED
    assert HEALTH_SCHEMA.field("value_sign").source == "value"
