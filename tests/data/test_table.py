import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.keys import NULL_TIME
from domainformer.data.table import EventTable
from domainformer.errors import DataError


def small():
    return pl.DataFrame(
        {
            "card": ["b", "a", "b", None, "a"],
            "day": [dt.date(2024, 1, d) for d in (5, 9, 4, 1, 9)],
            "amount": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )


def test_sorted_with_ties_in_source_order_and_null_entities_left_out():
    table = EventTable.of(small(), entity="card", time="day")
    assert table.frame["amount"].to_list() == [2.0, 5.0, 3.0, 1.0]
    assert table.offsets.tolist() == [0, 2, 4]
    assert table.entity_ids.to_list() == ["a", "b"]
    assert table.time_kind == "date"
    assert table.notes == ["1 rows without card were left out"]
    assert table.elapsed().to_list() == [None, 0.0, None, 86400.0]


rows = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 4)), st.one_of(st.none(), st.integers(-3, 3))),
    min_size=1,
    max_size=40,
).filter(lambda rows: any(e is not None for e, _ in rows) and any(t is not None for _, t in rows))


@given(rows)
@settings(max_examples=80, deadline=None)
def test_order_offsets_and_elapsed_equal_a_slow_reference(rows):
    frame = pl.DataFrame(
        {"who": [e for e, _ in rows], "at": [t for _, t in rows], "row": range(len(rows))},
        schema={"who": pl.Int64, "at": pl.Int64, "row": pl.Int64},
    )
    table = EventTable.of(frame, entity="who", time="at")
    kept = [(e, t is not None, t or 0, i) for i, (e, t) in enumerate(rows) if e is not None]
    kept.sort()
    assert table.frame["row"].to_list() == [i for *_, i in kept]
    expected, previous = [], None
    for entity, known, time, _ in kept:
        same = previous is not None and previous[0] == entity
        both = same and known and previous[1]
        expected.append(float(time - previous[2]) if both else None)
        previous = (entity, known, time)
    assert table.elapsed().to_list() == expected
    ids = [entity for entity, *_ in kept]
    assert table.entity_ids.to_list() == sorted(set(ids))
    assert table.lengths.tolist() == [ids.count(entity) for entity in sorted(set(ids))]


@given(rows, st.integers(0, 2**40 - 1))
@settings(max_examples=50, deadline=None)
def test_filter_keeps_offsets_right(rows, bits):
    frame = pl.DataFrame(
        {"who": [e for e, _ in rows], "at": [t for _, t in rows]},
        schema={"who": pl.Int64, "at": pl.Int64},
    )
    table = EventTable.of(frame, entity="who", time="at")
    mask = np.array([bits >> i & 1 for i in range(table.n_events)], dtype=bool)
    part = table.filter(mask)
    assert part.frame.equals(table.frame.filter(pl.Series(mask)))
    again = part.frame.group_by("who", maintain_order=True).len()
    assert part.entity_ids.to_list() == again["who"].to_list()
    assert part.lengths.tolist() == again["len"].to_list()


def test_take_entities_keeps_the_tables_order_and_checks_the_range():
    table = EventTable.of(pl.DataFrame({"who": [3, 1, 2], "x": [1, 2, 3]}), entity="who")
    assert table.take_entities([2, 0, 2]).entity_ids.to_list() == [1, 3]
    with pytest.raises(DataError, match="no such entity"):
        table.take_entities([3])


def test_a_mask_of_another_length_and_an_expression():
    table = EventTable.of(small(), entity="card", time="day")
    assert table.filter(pl.col("amount") > 2).frame["amount"].to_list() == [5.0, 3.0]
    with pytest.raises(DataError, match="mask does not fit"):
        table.filter(np.ones(3, dtype=bool))


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame.lazy(),
        lambda frame: frame.to_pandas(),
        lambda frame: frame.to_pandas().set_index("card"),
        lambda frame: frame.to_arrow(),
        lambda frame: frame.with_columns(pl.col("card").cast(pl.Categorical)),
        lambda frame: pl.concat([frame.head(2), frame.slice(2)], rechunk=False),
    ],
    ids=["lazy", "pandas", "pandas index", "arrow", "categorical", "chunks"],
)
def test_the_same_table_from_every_library(convert):
    expected = EventTable.of(small(), entity="card", time="day")
    table = EventTable.of(convert(small()), entity="card", time="day")
    assert table.frame["amount"].to_list() == expected.frame["amount"].to_list()
    assert table.entity_ids.to_list() == ["a", "b"]
    assert table.time_kind == "date"
    assert (table.time_values == expected.time_values).all()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_every_time_unit_becomes_microseconds(unit, tmp_path):
    moments = [dt.datetime(2011, 5, 18, 12, 0, 1), dt.datetime(2011, 5, 18, 12, 0, 2), None]
    data = pa.table({"who": [1, 1, 1], "at": pa.array(moments, pa.timestamp(unit))})
    import pyarrow.parquet as pq

    pq.write_table(data, tmp_path / "t.parquet")
    for table in (
        EventTable.of(data, entity="who", time="at"),
        EventTable.read(tmp_path / "t.parquet", entity="who", time="at"),
    ):
        assert table.frame["at"].dtype == pl.Datetime("us")
        assert table.time_values.tolist() == [NULL_TIME, 1305720001000000, 1305720002000000]
        assert table.elapsed().to_list() == [None, None, 1.0]
        assert table.time_kind == "datetime"


def test_zones_become_utc_and_autumn_does_not_run_backwards():
    clocks = ["2023-10-29T00:30:00Z", "2023-10-29T01:30:00Z"]  # 01:30 twice in London
    at = pl.Series("at", clocks).str.to_datetime(time_zone="Europe/London")
    table = EventTable.of(pl.DataFrame({"who": [1, 1], "at": at}), entity="who", time="at")
    assert table.elapsed().to_list() == [None, 3600.0]
    assert "converted from Europe/London to UTC" in table.notes[0]


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([2**63 + 1, 2**64 - 1], dtype=pl.UInt64),
        pl.Series(["x", "y"], dtype=pl.Enum(["y", "x"])),
        pl.Series([b"\xff", b"\x00"]),
        pl.Series([True, False]),
        pl.Series([-1, 1], dtype=pl.Int8),
        pl.Series([1.0, 2.0]),
    ],
    ids=str,
)
def test_entity_types(ids):
    table = EventTable.of(pl.DataFrame({"who": ids, "x": [0, 1]}), entity="who")
    assert table.n_entities == 2
    assert set(table.entity_ids.to_list()) == set(ids.to_list())


def test_midnights_are_dates_but_keep_their_type():
    at = [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)]
    table = EventTable.of(pl.DataFrame({"who": [1, 1], "at": at}), entity="who", time="at")
    assert table.time_kind == "date"
    assert table.frame["at"].dtype == pl.Datetime("us")


def test_pandas_integers_with_gaps_come_back_whole():
    data = pd.DataFrame({"who": [7.0, float("nan"), 8.0], "at": [1.0, 2.0, float("nan")]})
    table = EventTable.of(data, entity="who", time="at")
    assert table.entity_ids.to_list() == [7, 8]
    assert table.frame["at"].to_list() == [1, None]


def test_decimals_have_a_fingerprint():
    amounts = pl.Series("amount", ["1.50", None], dtype=pl.String).cast(pl.Decimal(12, 2))
    frame = pl.DataFrame([pl.Series("who", [1, 1]), amounts])
    other = frame.with_columns(pl.col("amount").fill_null(0))
    assert EventTable.of(frame, entity="who").fingerprint() == (
        EventTable.of(frame.clone(), entity="who").fingerprint()
    )
    assert EventTable.of(frame, entity="who").fingerprint() != (
        EventTable.of(other, entity="who").fingerprint()
    )


def test_the_fingerprint_sees_every_value_and_no_layout():
    table = EventTable.of(small(), entity="card", time="day")
    chunked = pl.concat([small().head(2), small().slice(2)], rechunk=False)
    same = EventTable.of(chunked.select("amount", "day", "card"), entity="card", time="day")
    assert same.fingerprint() == table.fingerprint()
    changes = [
        small().with_columns(pl.col("amount").replace(5.0, 5.5)),
        small().with_columns(pl.col("amount").replace(5.0, None)),
        small().with_columns(pl.col("card").replace("b", "c")),
        small().rename({"amount": "cost"}),
    ]
    others = {EventTable.of(c, entity="card", time="day").fingerprint() for c in changes}
    assert len(others | {table.fingerprint()}) == 5
    split = [pl.DataFrame({"who": [1, 1], "t": texts}) for texts in (["ab", "c"], ["a", "bc"])]
    assert len({EventTable.of(s, entity="who").fingerprint() for s in split}) == 2


@pytest.mark.parametrize(
    ("data", "entity", "time", "words"),
    [
        (small(), "crad", "day", ["no column 'crad'", "did you mean 'card'"]),
        (small(), "card", "dya", ["no column 'dya'", "did you mean 'day'"]),
        (small(), "card", "card", ["both the entity and the time"]),
        (small(), "amount", "amount", ["both the entity and the time"]),
        (small().head(0), "card", "day", ["no rows"]),
        (small().with_columns(card=pl.lit(None)), "card", "day", ["'card' is empty in every row"]),
        (small().with_columns(day=pl.lit(None)), "card", "day", ["'day' is empty in every row"]),
        (small().with_columns(day=pl.lit("  ")), "card", "day", ["'day' is empty in every row"]),
        (small(), "card", "amount", None),
        (
            small().with_columns(amount=pl.col("amount") + 0.5),
            "card",
            "amount",
            ["not whole", "row 1", "1.5"],
        ),
        (small().with_columns(amount=pl.col("amount") / 2), "amount", "day", ["row 1", "0.5"]),
        (small().with_columns(day=pl.lit(value=True)), "card", "day", ["not a time", "Boolean"]),
        (
            small().with_columns(day=pl.col("day").dt.strftime("%d/%m/%Y")),
            "card",
            "day",
            ["not an ISO 8601 time", "row 1", "05/01/2024", "5 such rows"],
        ),
        (small().with_columns(card=pl.concat_list("amount")), "card", "day", ["List"]),
        (
            small().with_columns(day=pl.Series([2**64 - 1] * 5, dtype=pl.UInt64)),
            "card",
            "day",
            ["too large for 64 bits"],
        ),
        (
            small().with_columns(
                day=pl.Series([2**62] * 5).cast(pl.Datetime("ms")),
            ),
            "card",
            "day",
            ["no calendar reaches"],
        ),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a", None, ["'a' occurs twice"]),
        (pa.table([[1], [2]], names=["a", "a"]), "a", None, ["'a' occurs twice"]),
        (
            pd.DataFrame({"a": [1, 1, 1], "b": [1, "x", 2]}),
            "a",
            None,
            ["'b' holds values of mixed types", "row 2", "'x'"],
        ),
        (pl.DataFrame({"a": [1], "b": [object()]}), "a", None, ["Python objects"]),
        ([1, 2], "a", None, ["the type list"]),
    ],
)
def test_bad_tables_are_named(data, entity, time, words):
    if words is None:  # whole floats are fine as times
        assert EventTable.of(data, entity=entity, time=time).time_kind == "integer"
        return
    with pytest.raises(DataError) as caught:
        EventTable.of(data, entity=entity, time=time)
    for word in words:
        assert word in str(caught.value)


def test_wrong_units_are_noted():
    seconds = pl.Series([1_700_000_000, 1_700_000_500])
    table = EventTable.of(pl.DataFrame({"w": [1, 1], "at": seconds}), entity="w", time="at")
    assert "since 1970" in table.notes[0]
    as_ms = seconds.cast(pl.Datetime("ms"))  # the classic: seconds read as milliseconds
    table = EventTable.of(pl.DataFrame({"w": [1, 1], "at": as_ms}), entity="w", time="at")
    assert "January 1970" in table.notes[0]


def test_one_entity_one_event_and_no_time():
    table = EventTable.of(pl.DataFrame({"who": ["only"]}), entity="who")
    assert (table.n_events, table.n_entities, table.time_kind) == (1, 1, "none")
    assert table.elapsed().to_list() == [None]
    assert table.time_values.tolist() == [0]
    assert len(table) == 1
