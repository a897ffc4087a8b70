"""A first look at tables that may be too large to read, and which way they are taken."""

from __future__ import annotations

import polars as pl
import pytest

from domainformer.distributed import Means, fit_table
from domainformer.distributed.glance import glance
from domainformer.errors import DataError


def frame(start, rows):
    numbers = list(range(start, start + rows))
    return pl.DataFrame({"card_id": [n // 5 for n in numbers], "time": numbers, "value": numbers})


@pytest.fixture
def folder(tmp_path):
    for year, rows in ((2023, 3_000), (2024, 1_000)):
        part = tmp_path / "events" / f"year={year}"
        part.mkdir(parents=True)
        frame(year * 10_000, rows).write_parquet(part / "0.parquet", row_group_size=500)
    return tmp_path / "events"


def test_a_sample_comes_from_everywhere(folder):
    seen = glance(folder, entity="card_id", time="time", events=320)
    assert (seen.n_rows, seen.n_files, seen.streamable) == (4_000, 2, True)
    assert 300 <= seen.sample.n_events <= 340
    years = seen.sample.frame["year"].value_counts().sort("year")
    assert years["year"].cast(pl.Int64).to_list() == [2023, 2024]
    assert years["count"].min() >= 60
    values = seen.sample.frame["value"]
    assert values.min() == 20_230_000
    assert values.max() == 20_240_999


def test_a_small_table_is_its_own_sample(folder):
    assert glance(folder, entity="card_id", time="time").sample.n_events == 4_000


def test_columns_are_taken_from_a_model_or_guessed(folder):
    known = {"entity": "card_id", "time": "time"}
    assert glance(folder, known=known).entity == "card_id"
    guessed = glance(folder)
    assert (guessed.entity, guessed.time) == ("card_id", "time")


def test_size_and_means_decide(folder, tmp_path):
    said = []
    several = glance(folder, entity="card_id", time="time")
    assert several.is_large("1GB")
    file = tmp_path / "one.parquet"
    frame(0, 2_000).write_parquet(file)
    one = glance(file, entity="card_id", time="time")
    assert not one.is_large("64MB")
    assert not Means().stream(one, cut=False)
    assert Means(workers=2).stream(one, cut=False)
    assert Means(say=said.append).stream(one, cut=True)
    assert said == ["streaming 2,000 rows of one file"]
    csv = tmp_path / "one.csv"
    frame(0, 10).write_csv(csv)
    assert not glance(csv, entity="card_id", time="time").is_large("32MB")


def test_what_cannot_be_read_is_told(tmp_path):
    empty = tmp_path / "empty.parquet"
    frame(0, 0).write_parquet(empty)
    with pytest.raises(DataError, match="no rows"):
        glance(empty, entity="card_id")
    empty.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read") as caught:
        glance(empty, entity="card_id")
    assert caught.value.next_step


def test_types_that_do_not_go_together_are_told(tmp_path):
    frame(0, 20).with_columns(pl.concat_list("value")).write_parquet(tmp_path / "1.parquet")
    frame(20, 20).with_columns(pl.col("value").cast(pl.String)).write_parquet(
        tmp_path / "2.parquet"
    )
    with pytest.raises(DataError, match="different types in different files"):
        glance(tmp_path, entity="card_id", time="time", events=32)


def test_what_lies_beside_the_data_of_a_meds_folder_is_not_read(tmp_path):
    events = frame(0, 40).select(
        pl.col("card_id").alias("subject_id"),
        pl.from_epoch("time").alias("time"),
        pl.lit("HR").alias("code"),
        pl.col("value").cast(pl.Float32).alias("numeric_value"),
    )
    for place, table in (("data/train", events), ("metadata", events.select("code"))):
        (tmp_path / "in" / place).mkdir(parents=True)
        table.write_parquet(tmp_path / "in" / place / "0.parquet")
    whole = fit_table(tmp_path / "in", tmp_path / "whole")
    streamed = fit_table(tmp_path / "in", tmp_path / "s", means=Means(work=tmp_path / "w"))
    assert streamed.fingerprint == whole.fingerprint
