from datetime import date, datetime

import polars as pl
import pytest

from domainformer.errors import SchemaError
from domainformer.schema import roles

IDS = [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user_id": IDS, "item_id": IDS}, "user_id"),
        ({"CustomerID": IDS, "InvoiceNo": IDS, "StockCode": IDS}, "CustomerID"),
        ({"CustomerID": [1.0, 1.0, None, 2.0, 2.0, 2.0], "x": IDS}, "CustomerID"),
        ({"card": list("aabbcc"), "unit": list("aabbcc")}, "card"),
        ({"record_id": IDS, "parameter": list("aabbcc")}, "record_id"),
        ({"subject_id": IDS, "code": list("aabbcc")}, "subject_id"),
        ({"id": IDS, "amount": IDS}, "id"),
        ({"account number": IDS, "transaction_id": [*range(6)]}, "account number"),
    ],
)
def test_plain_names_are_guessed(columns, expected):
    assert roles.guess_entity(pl.DataFrame(columns)) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"customer_id": IDS, "account_id": IDS}, "customer_id, account_id"),
        ({"a": IDS, "b": IDS}, "no name and shape"),
        ({"customer_id": [1] * 6, "b": IDS}, "no name and shape"),
        ({"customer_id": [1.5, 2, 3, 4, 4, 4], "b": IDS}, "no name and shape"),
        ({"customer_id": [*range(6)], "b": IDS}, "another value in (almost) every row"),
    ],
)
def test_what_is_not_plain_is_asked_for(columns, message):
    with pytest.raises(SchemaError) as caught:
        roles.guess_entity(pl.DataFrame(columns))
    assert message in str(caught.value)
    assert "--entity" in str(caught.value)


DAYS = [date(2024, 1, d) for d in range(1, 7)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"date": DAYS, "birth_date": DAYS}, "date"),
        ({"InvoiceDate": DAYS, "quantity": IDS}, "InvoiceDate"),
        ({"month": DAYS, "minute": IDS}, "month"),
        ({"minute": IDS, "value": IDS}, "minute"),
        ({"position": IDS, "item_id": IDS}, "position"),
        ({"time": [datetime(2024, 1, 1)] * 6, "posted": DAYS}, "time"),
    ],
)
def test_times_are_guessed(columns, expected):
    assert roles.guess_time(pl.DataFrame({"who": IDS, **columns}), "who") == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"order_date": DAYS, "ship_date": DAYS}, "order_date, ship_date"),
        ({"amount": IDS}, "time=None"),
        ({"date": ["2024-01-01"] * 6}, "str.to_datetime()"),
    ],
)
def test_unclear_times_are_asked_for(columns, message):
    with pytest.raises(SchemaError) as caught:
        roles.guess_time(pl.DataFrame({"who": IDS, **columns}), "who")
    assert message in str(caught.value)


def test_labels_are_guessed_only_by_their_plain_names():
    frame = pl.DataFrame({"label": IDS, "kind": IDS})
    assert roles.guess_label(frame, ["label", "kind"]) == "label"
    assert roles.guess_label(frame, ["kind"]) is None


def test_identifier_names():
    yes = ("item_id", "StockCode", "sku", "mcc", "invoice", "InvoiceNo", "zip")
    no = ("num_items", "amount", "number", "idle_minutes", "", "--")
    assert all(roles.is_identifier_name(name) for name in yes)
    assert not any(roles.is_identifier_name(name) for name in no)
