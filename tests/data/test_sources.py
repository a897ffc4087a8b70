import datetime as dt

import polars as pl
import pytest

from domainformer.data import EventTable, combine_sources
from domainformer.errors import DataError, SchemaError
from domainformer.schema import DomainSchema, FieldSpec

CARDS = pl.DataFrame(
    {"who": [2, 1, 1], "day": [4, 5, 3], "amount": [1, 2, 3], "shop": ["a", "b", "c"]}
)
APP = pl.DataFrame({"who": [1, 2], "day": [3, 9], "amount": [0.5, None], "screen": ["x", "y"]})


def combine(tables, **options):
    return combine_sources(tables, entity="who", time="day", **options).frame


def test_rows_are_sorted_and_ties_keep_the_order_of_the_tables():
    frame = combine({"cards": CARDS, "app": APP})
    assert frame.columns == ["source", "who", "day", "amount", "shop", "screen"]
    assert frame.rows() == [
        ("cards", 1, 3, 3.0, "c", None),
        ("app", 1, 3, 0.5, None, "x"),
        ("cards", 1, 5, 2.0, "b", None),
        ("cards", 2, 4, 1.0, "a", None),
        ("app", 2, 9, None, None, "y"),
    ]


def test_any_kind_of_table_is_taken():
    tables = {"cards": EventTable.of(CARDS, entity="who", time="day"), "app": APP.to_pandas()}
    arrow = {"cards": CARDS.lazy(), "app": APP.to_arrow()}
    assert combine(tables).equals(combine({"cards": CARDS, "app": APP}))
    assert combine(arrow).equals(combine({"cards": CARDS, "app": APP}))


def test_columns_of_types_that_do_not_fit_stay_apart():
    app = APP.with_columns(amount=pl.lit("much"))
    frame = combine({"cards": CARDS, "app": app})
    assert frame["cards.amount"].dtype == pl.Int64
    assert frame["app.amount"].to_list() == [None, "much", None, None, "much"]
    assert "amount" not in frame.columns


def test_a_schema_can_ask_for_a_column_of_one_source():
    schema = DomainSchema(
        "bank",
        [
            FieldSpec("paid", "numerical_discrete", column="cards.amount"),
            FieldSpec("shown", "numerical_continuous", column="app.amount"),
        ],
        sources={"cards": {"fields": ["paid"]}, "app": {"fields": ["shown"]}},
        source_column="table",
    )
    frame = combine({"cards": CARDS, "app": APP}, schema=schema)
    assert frame["cards.amount"].dtype == pl.Int64
    assert frame["table"].to_list() == ["cards", "app", "cards", "cards", "app"]
    schema.check(frame)
    # A source without a table is not an error: its columns are there, and empty.
    schema.check(combine({"cards": CARDS}, schema=schema))


def test_tables_are_checked_against_their_source():
    schema = DomainSchema(
        "bank",
        [FieldSpec("amount", "sign"), FieldSpec("screen", "text")],
        sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}},
    )
    with pytest.raises(SchemaError, match="did you mean 'cards'"):
        combine({"crads": CARDS}, schema=schema)
    with pytest.raises(SchemaError, match="of app: there is no column 'screen'"):
        combine({"cards": CARDS, "app": CARDS}, schema=schema)


def test_types_that_can_be_told_in_one_are_one():
    some = pl.DataFrame({"who": ["a"], "day": [dt.datetime(2024, 1, 1)], "kind": ["x"], "n": [1]})
    other = some.with_columns(
        pl.col("day").cast(pl.Datetime("ms")),
        pl.col("kind").cast(pl.Categorical),
        pl.col("n").cast(pl.UInt8),
    )
    frame = combine({"a": some, "b": other, "c": other.with_columns(n=pl.lit(None))})
    assert frame["kind"].to_list() == ["x"] * 3
    assert frame["n"].to_list() == [1, 1, None]
    assert frame["n"].dtype == pl.Int64


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "there are no tables to combine"),
        ({"cards": CARDS.drop("day")}, "there is no column 'day'"),
        ({"cards": CARDS.with_columns(source=1)}, "there is a column 'source' already"),
        (
            {"a": CARDS, "b": APP.cast({"who": pl.String})},
            "'who' has types that cannot be compared",
        ),
        ({"a": CARDS.with_columns(amount=1 << 60), "b": APP}, "whole numbers that Float64 cannot"),
        (
            {
                "a": CARDS.with_columns(amount=pl.lit((1 << 63) + 1, pl.UInt64)),
                "b": CARDS.with_columns(amount=1),
            },
            "whole numbers that Int64 cannot",
        ),
        ({"a": 3}, "the table of source 'a' has the type int"),
    ],
)
def test_what_cannot_be_combined_is_told(tables, message):
    with pytest.raises(DataError, match=message):
        combine(tables)
