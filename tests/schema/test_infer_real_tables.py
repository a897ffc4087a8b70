"""The proposals for the real tables, without help: each is what an engineer would write."""

import polars as pl
import pytest

from domainformer.errors import SchemaError
from domainformer.schema import FieldType, infer_schema

pytestmark = pytest.mark.data

FIXED, ENTITY = FieldType.CATEGORICAL_FIXED, FieldType.CATEGORICAL_ENTITY
AMOUNT, SIGN = FieldType.NUMERICAL_CONTINUOUS, FieldType.SIGN
TIME, TEXT = FieldType.TEMPORAL, FieldType.TEXT

EXPECTED = {
    "finance/birmingham_cards_2014_2018.parquet": (
        "card",
        "date",
        {
            "directorate": FIXED,
            "unit": ENTITY,
            "vat": FIXED,
            "expense": FIXED,
            "merchant": TEXT,
            "amount_sign": SIGN,
            "amount": AMOUNT,
            "date": TIME,
        },
        {
            "mcc": "no value",
            "currency": "recorded only from 2017-01",
            "billed_amount": "recorded only from 2017-01",
            "expense_code": "one-to-one with expense",
            "unit_code": "one-to-one with unit",
        },
    ),
    "finance/credit_default_events.parquet": (
        "client_id",
        "month",
        {
            "repayment_status": FIXED,
            "bill_amount_sign": SIGN,
            "bill_amount": AMOUNT,
            "payment_amount": AMOUNT,
            "month": TIME,
        },
        {},
    ),
    "commerce/online_retail.parquet": (
        "customer_id",
        "timestamp",
        {
            "country": FIXED,
            "stock_code": ENTITY,
            "quantity_sign": SIGN,
            "quantity": AMOUNT,
            "unit_price": AMOUNT,
            "timestamp": TIME,
        },
        {
            "invoice": "numbers the events",
            "cancelled": "the sign of quantity says the same",
            "description": "one-to-one with stock_code",
        },
    ),
    "commerce/beauty_events.parquet": ("user_id", "position", {"item_id": ENTITY}, {}),
    "health/physionet2012_a_events.parquet": (
        "record_id",
        "minute",
        {"parameter": FIXED, "value": AMOUNT, "minute": TIME},
        {},
    ),
    "health/mimic_iv_demo_meds/data/0.parquet": (
        "subject_id",
        "time",
        {"code": ENTITY, "numeric_value_sign": SIGN, "numeric_value": AMOUNT, "time": TIME},
        {},
    ),
}


@pytest.mark.parametrize("path", EXPECTED)
def test_the_proposal_for_a_real_table(data_root, path):
    entity, time, fields, dropped = EXPECTED[path]
    table = pl.read_parquet(data_root / path)
    found = infer_schema(table)
    assert (found.entity, found.time) == (entity, time)
    assert {spec.name: spec.field_type for spec in found.schema.fields} == fields
    assert list(fields) == [spec.name for spec in found.schema.fields]
    assert set(found.dropped) == set(dropped)
    assert all(reason in found.dropped[column] for column, reason in dropped.items())
    found.schema.check(table)


def test_the_times_of_the_real_tables(data_root):
    def spec(path, name):
        return infer_schema(pl.read_parquet(data_root / path)).schema.field(name)

    cards = spec("finance/birmingham_cards_2014_2018.parquet", "date")
    assert (cards.calendar_fields, cards.elapsed_bins) == (("month", "dow", "dom"), 16)
    retail = spec("commerce/online_retail.parquet", "timestamp")
    assert (retail.calendar_fields, retail.elapsed_bins) == (("dow", "dom", "hour"), 16)
    credit = spec("finance/credit_default_events.parquet", "month")
    assert (credit.calendar_fields, credit.elapsed_bins) == (("month",), 0)
    stays = spec("health/physionet2012_a_events.parquet", "minute")
    assert (stays.calendar_fields, stays.elapsed_bins) == ((), 16)
    assert spec("health/physionet2012_a_events.parquet", "value").n_bins == 64


@pytest.mark.parametrize(
    "path", ["finance/credit_default_clients.parquet", "health/physionet2012_a_stays.parquet"]
)
def test_a_table_of_entities_is_not_a_table_of_events(data_root, path):
    with pytest.raises(SchemaError, match="another value in"):
        infer_schema(pl.read_parquet(data_root / path))
