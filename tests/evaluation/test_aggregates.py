import datetime as dt
import itertools

import numpy as np
import polars as pl
import pytest

from domainformer.data.table import EventTable
from domainformer.errors import SchemaError
from domainformer.evaluation import aggregate_features
from domainformer.schema import DomainSchema, FieldSpec

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("direction", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous"),
        FieldSpec("when", "temporal", elapsed_bins=8),
        FieldSpec("shop", "text"),
    ],
)


def make_frame(n=120, entities=9, seed=0):
    rng = np.random.default_rng(seed)
    start = dt.datetime(2024, 1, 1)
    amount = rng.normal(size=n).round(2)
    return pl.DataFrame(
        {
            "card": rng.integers(entities, size=n),
            "when": [start + dt.timedelta(minutes=int(m)) for m in rng.integers(500_000, size=n)],
            "kind": pl.Series(["a", "b", "c", None]).gather(rng.integers(4, size=n)),
            "amount": pl.Series(np.where(rng.random(n) < 0.1, np.nan, amount)).fill_nan(None),
            "shop": [f"shop {i}" for i in rng.integers(30, size=n)],
        }
    )


def table_of(frame):
    return EventTable.of(frame, entity="card", time="when")


TABLE = table_of(make_frame())


def plain(table, index):
    """Some features of one entity by plain Python."""
    rows = table.frame[int(table.offsets[index]) : int(table.offsets[index + 1])].to_dicts()
    end = max(table.frame["when"].to_list())
    amounts = [r["amount"] for r in rows if r["amount"] is not None]
    times = [r["when"] for r in rows]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    recent = (end - min(table.frame["when"].to_list())).total_seconds() / 4
    in_a = [r["amount"] for r in rows if r["kind"] == "a" and r["amount"] is not None]
    same = [
        a["kind"] == b["kind"]
        for a, b in itertools.pairwise(rows)
        if None not in (a["kind"], b["kind"])
    ]
    last_10 = [r["amount"] for r in rows[-10:] if r["amount"] is not None]
    return {
        "events": len(rows),
        "recency": (end - times[-1]).total_seconds(),
        "tenure": (times[-1] - times[0]).total_seconds(),
        "gap.mean": np.mean(gaps),
        "gap.last": gaps[-1],
        "events.last_1/4": sum((end - t).total_seconds() <= recent for t in times),
        "amount.mean": np.mean(amounts),
        "amount.std": np.std(amounts, ddof=1),
        "amount.missing": 1 - len(amounts) / len(rows),
        "amount.last": amounts[-1],
        "amount.first": amounts[0],
        "amount.negative": np.mean([a < 0 for a in amounts]),
        "amount.mean_of_last_10": np.mean(last_10),
        "kind.distinct": len({r["kind"] for r in rows}),
        "kind.missing": np.mean([r["kind"] is None for r in rows]),
        "kind.repeats": np.mean(same),
        "time.dow_3": np.mean([t.isoweekday() == 3 for t in times]),
        "time.hour_06": np.mean([6 <= t.hour < 12 for t in times]),
        "a.mean": np.mean(in_a) if in_a else None,
        "a.last": in_a[-1] if in_a else None,
    }  # fmt: skip


def test_features_equal_plain_python():
    features = aggregate_features(TABLE, SCHEMA)
    assert features["card"].equals(TABLE.entity_ids.rename("card"))
    which = sorted(["a", "b", "c"], key=lambda k: -(TABLE.frame["kind"] == k).sum()).index("a")
    for index in range(TABLE.n_entities):
        for name, expected in plain(TABLE, index).items():
            column = name
            if name.startswith("a."):
                column = f"amount.where_kind_{which:02d}.a.{name[2:]}"
            found = features[column][index]
            assert found == (None if expected is None else pytest.approx(expected, rel=1e-5)), name


def test_every_feature_is_a_finite_number_or_null():
    features = aggregate_features(TABLE, SCHEMA)
    assert len(set(features.columns)) == features.width
    for column in features.columns[1:]:
        values = features[column]
        assert values.dtype == pl.Float32
        assert values.is_finite().fill_null(True).all(), column


def test_no_feature_looks_ahead():
    """Features at a cut are those of a table that ends there. Twin: later events do matter."""
    frame = make_frame()
    cut = dt.datetime(2024, 7, 1)
    before = table_of(frame.filter(pl.col("when") < cut))
    later = frame.with_columns(amount=pl.when(pl.col("when") < cut).then("amount").otherwise(999.0))
    cut_later = table_of(later)
    cut_later = cut_later.filter((cut_later.frame["when"] < cut).to_numpy())
    assert aggregate_features(before, SCHEMA).equals(aggregate_features(cut_later, SCHEMA))
    assert not aggregate_features(table_of(later), SCHEMA).equals(
        aggregate_features(table_of(frame), SCHEMA)
    )


def test_the_order_of_rows_in_the_source_does_not_matter():
    frame = make_frame().unique(["card", "when"], maintain_order=True)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert aggregate_features(table_of(frame), SCHEMA).equals(
        aggregate_features(table_of(shuffled), SCHEMA)
    )


@pytest.mark.parametrize("time", ["integer", "none"])
def test_tables_without_dates(time):
    frame = make_frame().with_row_index("step").drop("when")
    schema = DomainSchema("plain", [f for f in SCHEMA.fields if f.name != "when"])
    table = EventTable.of(frame, entity="card", time="step" if time == "integer" else None)
    features = aggregate_features(table, schema)
    assert features.height == 9
    assert features["recency"].null_count() == 0


def test_entities_with_a_single_event():
    frame = make_frame(n=5, entities=1000)
    features = aggregate_features(table_of(frame), SCHEMA)
    assert features["events"].to_list() == [1.0] * 5
    assert features["gap.mean"].null_count() == 5


def test_a_missing_column_is_told():
    table = table_of(make_frame().drop("amount"))
    with pytest.raises(SchemaError, match="'amount'"):
        aggregate_features(table, SCHEMA)
