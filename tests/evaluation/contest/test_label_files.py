"""A table of labels as users have it: other formats, other names of entities, rows too many."""

import datetime as dt

import polars as pl
import pytest

from domainformer.config import build
from domainformer.errors import DataError
from domainformer.evaluation.contest.config import TaskConfig
from domainformer.evaluation.contest.tasks import make_task

CLIENTS = [f"{number:03d}" for number in range(1, 9)]


@pytest.fixture
def folder(tmp_path):
    days = [dt.date(2020, 1, 1), dt.date(2020, 1, 2)]
    events = pl.DataFrame({"client": CLIENTS * 2, "day": [d for d in days for _ in CLIENTS]})
    events = events.with_columns(kind=pl.lit("food"), amount=pl.lit(1.0))
    events.write_parquet(tmp_path / "events.parquet")
    return tmp_path


def labels(entities=CLIENTS):
    half = len(entities) // 2
    age = ["20"] * (len(entities) - 1) + ["20.5"]
    return pl.DataFrame({"client": entities, "gone": ["no", "yes"] * half, "age": age})


def task_of(folder, **label):
    label = {"column": "gone", "folds": 2} | label
    return make_task(
        build(
            TaskConfig,
            {
                "table": str(folder / "events.parquet"),
                "entity": "client",
                "time": "day",
                "label": label,
            },
        )
    )


@pytest.mark.parametrize("name", ["labels.csv", "LABELS.CSV", "labels.tsv", "labels.arrow"])
def test_labels_are_read_as_events_are_in_any_format(folder, name):
    """Twin: of numbers, 001 would be 1 and no client of the events."""
    path = folder / name
    if path.suffix == ".arrow":
        labels().write_ipc(path)
    else:
        labels().write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    task = task_of(folder, table=str(path))
    assert task.examples["entity"].to_list() == CLIENTS
    assert task.record["entities_without_events"] == 0
    assert task.static["age"].to_list()[-1] in (20.5, "20.5")


def test_rows_without_an_entity_are_left_out(folder):
    more = pl.concat([labels(), labels([None, None])])
    more.write_parquet(folder / "labels.parquet")
    assert task_of(folder, table=str(folder / "labels.parquet")).examples.height == 8


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64, pl.Categorical])
def test_labels_of_other_entities_are_refused(folder, dtype):
    other = labels([str(number) for number in range(100, 108)])
    other.with_columns(pl.col("client").cast(dtype)).write_parquet(folder / "labels.parquet")
    with pytest.raises(DataError, match="labels name no entity of the events"):
        task_of(folder, table=str(folder / "labels.parquet"))


def test_names_that_cannot_be_numbers_are_refused(folder):
    numbered = pl.read_parquet(folder / "events.parquet").with_columns(pl.col("client").cast(int))
    numbered.write_parquet(folder / "events.parquet")
    labels([f"c{one}" for one in CLIENTS]).write_parquet(folder / "labels.parquet")
    with pytest.raises(DataError, match=r"c001.*Int64"):
        task_of(folder, table=str(folder / "labels.parquet"))


def test_files_that_cannot_be_read_are_told(folder):
    (folder / "labels.parquet").write_text("no table")
    with pytest.raises(DataError, match="cannot be read"):
        task_of(folder, table=str(folder / "labels.parquet"))
    labels([*CLIENTS, CLIENTS[0], CLIENTS[1]]).write_csv(folder / "twice.csv")
    with pytest.raises(DataError, match="two rows"):
        task_of(folder, table=str(folder / "twice.csv"))


def test_a_sum_needs_numbers(folder):
    config = {
        "table": str(folder / "events.parquet"),
        "entity": "client",
        "time": "day",
        "cuts": {"train": ["2020-01-01"], "test": "2020-01-02", "horizon": 1, "label": "sum"},
    }
    config["cuts"]["column"] = "kind"
    with pytest.raises(DataError, match="no sum of 'kind'"):
        make_task(build(TaskConfig, config))
