from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import SchemaError
from domainformer.schema import DomainSchema, FieldType, infer_schema

ROWS = 3_000
MERCHANTS = [f"shop number {i}" for i in range(6_000)]


@pytest.fixture(scope="module")
def cards():
    """Card payments with every kind of column, and every reason to leave one out."""
    rng = np.random.default_rng(0)
    day = rng.integers(0, 800, ROWS)
    kind = rng.integers(0, 6, ROWS)
    amount = np.round(rng.lognormal(3, 1, ROWS) * np.where(rng.random(ROWS) < 0.05, -1, 1), 2)
    return pl.DataFrame(
        {
            "card": [f"{c:04d}" for c in rng.integers(0, 40, ROWS)],
            "date": [date(2020, 1, 1) + timedelta(days=int(d)) for d in day],
            "payment_ref": [f"R{i:06d}" for i in rng.permutation(ROWS)],
            "amount": amount,
            "amount_copy": amount,
            "refunded": amount < 0,
            "kind": np.array(["Fuel", "Food", "Rail", "Post", "Books", "Other"])[kind],
            "kind_code": np.array(["L1", "L2", "L3", "L4", "L5", "L6"])[kind],
            "items": rng.poisson(3, ROWS),
            "status": rng.integers(-2, 4, ROWS),
            "merchant": rng.choice(MERCHANTS, ROWS),
            "late": [None if d < 400 else "x" if d % 2 else "y" for d in day],
            "empty": [None] * ROWS,
            "constant": ["GBP"] * ROWS,
            "tags": [["a"]] * ROWS,
        },
        schema_overrides={"empty": pl.String},
    )


def kinds(found):
    return {spec.name: spec.field_type for spec in found.schema.fields}


def test_every_column_finds_its_place(cards):
    found = infer_schema(cards)
    assert (found.entity, found.time, found.label) == ("card", "date", None)
    assert kinds(found) == {
        "kind": FieldType.CATEGORICAL_FIXED,
        "status": FieldType.CATEGORICAL_FIXED,
        "items": FieldType.NUMERICAL_DISCRETE,
        "amount_sign": FieldType.SIGN,
        "amount": FieldType.NUMERICAL_CONTINUOUS,
        "date": FieldType.TEMPORAL,
        "merchant": FieldType.TEXT,
    }
    assert set(found.dropped) == {
        "payment_ref",
        "amount_copy",
        "refunded",
        "kind_code",
        "late",
        "empty",
        "constant",
        "tags",
    }
    assert found.schema.field("date").calendar_fields == ("month", "dow", "dom")
    assert found.schema.field("date").elapsed_bins == 16
    found.schema.check(cards)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("payment_ref", "numbers the events"),
        ("amount_copy", "equals amount in 100%"),
        ("refunded", "the sign of amount says the same"),
        ("kind_code", "one-to-one with kind (100%), which reads better"),
        ("late", "recorded only from 2021-02"),
        ("empty", "no value"),
        ("constant", "same value everywhere"),
        ("tags", "List(String) is not a field"),
    ],
)
def test_each_dropped_column_says_why(cards, column, reason):
    found = infer_schema(cards)
    assert reason in found.dropped[column]
    row = next(row for row in found.evidence if row.column == column)
    assert (row.role, row.reason, row.fields) == ("dropped", found.dropped[column], ())


def test_evidence_has_one_row_a_column_in_table_order(cards):
    found = infer_schema(cards)
    assert [row.column for row in found.evidence] == cards.columns
    named = [name for row in found.evidence for name in row.fields]
    assert sorted(named) == sorted(spec.name for spec in found.schema.fields)
    assert all(row.reason for row in found.evidence)


def test_the_order_of_the_fields(cards):
    steady = cards.with_columns(branch=pl.col("card").str.slice(0, 3))
    order = [spec.name for spec in infer_schema(steady).schema.fields]
    assert order[0] == "branch", "what never changes within an entity comes first"
    numbers = [FieldType.SIGN, FieldType.NUMERICAL_CONTINUOUS, FieldType.NUMERICAL_DISCRETE]
    rest = [spec.field_type for spec in infer_schema(steady).schema.fields][3:]
    assert rest == [FieldType.TEXT, *numbers, FieldType.TEMPORAL]


def test_the_order_of_the_rows_does_not_matter(cards):
    shuffled = cards.sample(fraction=1.0, shuffle=True, seed=3)
    assert infer_schema(shuffled).schema == infer_schema(cards).schema


def test_lazy_tables_and_event_tables_give_the_same(cards):
    ordered = cards.sort("card", "date", maintain_order=True)
    table = SimpleNamespace(frame=ordered, entity="card", time="date")
    expected = infer_schema(cards)
    assert infer_schema(table).schema == expected.schema == infer_schema(cards.lazy()).schema
    assert DomainSchema.infer(cards, name="inferred") == expected.schema


def test_a_label_never_becomes_a_field(cards):
    answer = pl.col("card").cast(pl.Int32) % 2
    named = infer_schema(cards.with_columns(churned=answer), label="churned")
    assert named.label == "churned"
    assert "churned" not in named.schema.columns
    guessed = infer_schema(cards.with_columns(label=answer))
    assert guessed.label == "label"
    assert guessed.schema == named.schema
    moving = infer_schema(cards.with_columns(label=pl.col("items") % 2))
    assert moving.label is None, "what changes from event to event is no label of the entity"


def test_rows_without_entity_are_left_out_and_told(cards):
    gaps = cards.with_columns(card=pl.when(pl.col("items") > 1).then("card"))
    found = infer_schema(gaps)
    assert any("rows without card" in note for note in found.notes)
    assert found.evidence[0].profile.rows < ROWS


def test_single_rows_are_told_when_the_entity_is_given(cards):
    found = infer_schema(cards.with_row_index("nth"), entity="nth", time="date")
    assert any("no histories" in note for note in found.notes)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("n", [1, 2, 3], FieldType.NUMERICAL_DISCRETE),
        ("n", [0, 1], FieldType.CATEGORICAL_FIXED),
        ("order_status", [1, 2, 3], FieldType.CATEGORICAL_FIXED),
        ("n", [-2, 0, 1, 2], FieldType.CATEGORICAL_FIXED),
        ("icu_type", [1.0, 2.0, 3.0, None], FieldType.CATEGORICAL_FIXED),
        ("rate", [0.05, 0.2, 0.0], FieldType.CATEGORICAL_FIXED),
        ("flag", [True, False], FieldType.CATEGORICAL_FIXED),
        ("n", [*range(65)], FieldType.NUMERICAL_CONTINUOUS),
        ("item_id", [*range(600)], FieldType.CATEGORICAL_ENTITY),
        ("item_id", [*range(60)], FieldType.CATEGORICAL_FIXED),
        ("part", [f"P{i}" for i in range(600)], FieldType.CATEGORICAL_ENTITY),
        ("branch", [f"high street {i}" for i in range(600)], FieldType.CATEGORICAL_ENTITY),
        ("description", [f"high street {i}" for i in range(600)], FieldType.TEXT),
        ("branch", [f"high street {i}" for i in range(2_000)], FieldType.TEXT),
        ("booked", [date(2020, 1, 1) + timedelta(days=3 * i) for i in range(99)], "temporal"),
    ],
)
def test_what_one_column_becomes(column, values, expected):
    count = 9_000
    table = pl.DataFrame(
        {
            "user_id": [i // 90 for i in range(count)],
            "step": [i * i for i in range(count)],
            column: [values[(i * 7919) % len(values)] for i in range(count)],
        }
    )
    assert kinds(infer_schema(table))[column] == expected


def test_the_vocabulary_of_codes_is_capped():
    count = 25_000
    table = pl.DataFrame(
        {
            "user_id": [i // 50 for i in range(2 * count)],
            "step": [i % 50 for i in range(2 * count)],
            "sku": [f"P{(i * 7919) % count}" for i in range(2 * count)],
        }
    )
    spec = infer_schema(table).schema.field("sku")
    assert (spec.field_type, spec.vocab_size) == (FieldType.CATEGORICAL_ENTITY, 20_000)


def history(times, **columns):
    table = {"user_id": [i // 50 for i in range(200)], "when": times, "kind": ["a", "b"] * 100}
    return infer_schema(pl.DataFrame({**table, **columns}), time="when")


def test_months_only_where_one_comes_back():
    short = history([date(2024, 1, 1) + timedelta(days=i * i % 300) for i in range(200)])
    assert short.schema.field("when").calendar_fields == ("dow", "dom")
    long = history([date(2024, 1, 1) + timedelta(days=i * i % 800) for i in range(200)])
    assert long.schema.field("when").calendar_fields == ("month", "dow", "dom")
    assert "no month" in short.evidence[1].reason


def test_a_position_orders_but_is_no_field():
    found = history([i % 50 for i in range(200)])
    assert found.schema.columns == ("kind",)
    assert found.time == "when"
    assert "one step" in found.evidence[1].reason


def test_unix_seconds_get_a_hint():
    found = history([1_700_000_000 + i * i * 60 for i in range(200)])
    assert found.schema.field("when").calendar_fields == ()
    assert "Unix" in found.evidence[1].reason


def test_a_second_date_that_repeats_the_time_goes():
    times = [date(2024, 1, 1) + timedelta(days=i * i % 300) for i in range(200)]
    assert "equals when" in history(times, posted=times).dropped["posted"]


def test_fine_bins_where_a_label_tells_the_scale():
    count = 4_000
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 4, count)
    table = pl.DataFrame(
        {
            "patient_id": np.arange(count) // 40,
            "minute": np.arange(count) * 3 % 977,
            "parameter": np.array(["HR", "Temp", "pH", "GCS"])[kind],
            "value": np.array([80.0, 37.0, 7.4, 900.0])[kind] * rng.lognormal(0, 0.1, count),
        }
    )
    found = infer_schema(table)
    assert found.schema.field("value").n_bins == 64
    assert "parameter tells the scale" in found.evidence[3].reason
    assert found.schema.fields[0].name == "parameter"


def test_colliding_names_are_parted():
    rng = np.random.default_rng(2)
    table = pl.DataFrame(
        {
            "user_id": [i // 50 for i in range(200)],
            "t": rng.integers(0, 900, 200),
            "Amount": rng.normal(9, 1, 200),
            "amount": rng.normal(5, 1, 200),
            "--": rng.choice(["a", "b"], 200),
            "pad": rng.choice([f"some words {i}" for i in range(150)], 200),
        }
    )
    schema = infer_schema(table).schema
    assert set(schema.columns) == {"t", "Amount", "amount", "--", "pad"}
    assert schema.field("amount_2").column == "amount"
    schema.check(table)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (pl.DataFrame({"a": [], "b": []}), {}, "the table is empty"),
        (pl.DataFrame({"a": [1, 2]}), {}, "only one column"),
        (pl.DataFrame({"a": [None, None], "b": [None, None]}), {}, "every value of the table"),
        (pl.DataFrame({"user_id": [1, 1, 2, 2], "t": [1, 2, 1, 2]}), {}, "says anything"),
        (pl.DataFrame({"user_id": [1, 1, 2], "t": [1, 2, 3], "c": [7] * 3}), {}, "same value"),
        (pl.DataFrame({"u": [1, 1], "t": [1, 2]}), {"entity": "user"}, "no column 'user'"),
        (pl.DataFrame({"u": [1, 1], "t": [1, 2]}), {"entity": "u", "time": "tt"}, "mean 't'"),
        (pl.DataFrame({"u": [1, 1], "t": [1, 2]}), {"entity": "u", "time": "u"}, "both"),
        (pl.DataFrame({"u": [1, 1], "t": ["1", "2"]}), {"entity": "u", "time": "t"}, "as text"),
        (pl.DataFrame({"u": [None, None], "t": [1, 2]}), {"entity": "u", "time": "t"}, "no value"),
        ({"a": [1]}, {}, "a table is expected"),
        (pl.scan_parquet("nowhere.parquet"), {}, "cannot be read"),
    ],
)
def test_bad_tables_are_refused_clearly(table, options, message):
    with pytest.raises(SchemaError) as caught:
        infer_schema(table, **options)
    assert message in str(caught.value)


CELLS = {
    pl.String: st.none() | st.text(max_size=4),
    pl.Int64: st.none() | st.integers(-(2**63), 2**63 - 1),
    pl.UInt8: st.none() | st.integers(0, 255),
    pl.Float64: st.none() | st.floats(),
    pl.Boolean: st.none() | st.booleans(),
    pl.Date: st.none() | st.dates(),
    pl.Datetime: st.none() | st.datetimes(),
    pl.Null: st.none(),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(2, 30))
    columns = {"user_id": [i // 3 for i in range(rows)], "step": draw_list(draw, pl.UInt8, rows)}
    series = [pl.Series(name, values) for name, values in columns.items()]
    for i in range(draw(st.integers(1, 5))):
        dtype = draw(st.sampled_from(list(CELLS)))
        name = f"{draw(st.text(max_size=3))}{i}"
        series.append(pl.Series(name, draw_list(draw, dtype, rows), dtype=dtype))
    return pl.DataFrame(series)


def draw_list(draw, dtype, rows):
    return draw(st.lists(CELLS[dtype], min_size=rows, max_size=rows))


@given(tables())
@settings(deadline=None, max_examples=60)
def test_any_table_gives_a_schema_that_fits_it_or_a_clear_error(table):
    try:
        found = infer_schema(table, entity="user_id", time="step")
    except SchemaError as error:
        if "says anything" in error.what:
            return
        raise
    found.schema.check(table)
    assert DomainSchema.from_yaml(found.schema.to_yaml()) == found.schema
    decided = {row.column: row.role for row in found.evidence}
    assert set(decided) == set(table.columns)
    assert set(found.dropped) == {c for c, role in decided.items() if role == "dropped"}
