"""Codes with and without values, of real patients, through the tokenizer and back."""

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable, read_meds
from domainformer.schema import DomainSchema, FieldSpec, Source
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "meds",
    [
        FieldSpec("code", "categorical_entity"),
        FieldSpec("time", "temporal", calendar_fields=("hour",), elapsed_bins=8, optional=True),
        FieldSpec("lab_sign", "sign", column="numeric_value", optional=True),
        FieldSpec("lab", "numerical_continuous", column="numeric_value", n_bins=32, optional=True),
        FieldSpec("sign", "sign", column="numeric_value", optional=True),
        FieldSpec("value", "numerical_continuous", column="numeric_value", optional=True),
    ],
    sources={
        "lab": Source(["code", "time", "lab_sign", "lab"]),
        "medication": Source(["code", "time"]),
        "other": Source(["code", "time", "sign", "value"]),
    },
)


@pytest.fixture(scope="module")
def meds(data_root):
    table = read_meds(data_root / "health" / "mimic_iv_demo_meds").take_entities(range(30))
    kind = pl.col("code").str.split("//").list.first().str.to_lowercase()
    frame = table.frame.with_columns(
        source=pl.when(kind.is_in(["lab", "medication"])).then(kind).otherwise(pl.lit("other"))
    )
    return EventTable.of(frame, entity="subject_id", time="time")


def test_codes_with_values_come_back(meds):
    tokenizer = DomainTokenizer(SCHEMA).fit(meds)
    encoded = tokenizer.encode(meds)
    missing = [slot.missing for slot in tokenizer.slots]
    assert not np.isin(encoded.ids, missing).any()  # no value, no token

    decoded = tokenizer.decode(encoded.ids, intervals=True)
    frame = meds.frame
    assert decoded["code"].equals(frame["code"])
    assert decoded["source"].equals(frame["source"])
    # A medication has no value in its sub-schema, so none is read or given back.
    shown = frame["numeric_value"].cast(pl.Float64)
    shown = shown.set(frame["source"] == "medication", None)
    value, low, high = (decoded[f"numeric_value{end}"] for end in ("", "_low", "_high"))
    assert value.is_null().equals(shown.is_null().alias("numeric_value"))
    inside = ((low <= shown) & (shown <= high)).drop_nulls()
    assert inside.all()
    assert len(inside) > 80_000

    # What was decoded is encoded to the same ids: nothing more is lost on the way.
    again = frame.with_columns(numeric_value=value)
    same = tokenizer.encode(EventTable.of(again, entity="subject_id", time="time"))
    assert np.array_equal(same.ids, encoded.ids)

    events = frame[::9973]
    for event, place in zip(
        events.iter_rows(named=True), range(0, frame.height, 9973), strict=True
    ):
        start, stop = encoded.event_offsets[place : place + 2]
        before = frame["time"][place - 1] if place else None
        first = place in meds.offsets
        previous = None if first else (float("nan") if before is None else before)
        assert tokenizer.encode_event(event, previous) == encoded.ids[start:stop].tolist()
