import datetime as dt

import polars as pl
import pytest

from domainformer.data.meds import is_meds, read_meds
from domainformer.data.table import EventTable
from domainformer.errors import DataError

NOW = dt.datetime(2180, 3, 23, 11, 51)


def patients():
    return pl.DataFrame(
        {
            "subject_id": [2, 1, 1, 1, 1],
            "time": [NOW, NOW, None, NOW, NOW],
            "code": ["B", "A", "GENDER//F", "C", "A"],
            "numeric_value": [None, 1.5, None, 2.0, 1.5],
        },
        schema_overrides={"numeric_value": pl.Float32, "code": pl.Categorical},
    )


def write(folder, frame, shard="data/train/0.parquet"):
    path = folder / shard
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return folder


def test_a_folder_with_static_rows_first_and_other_files_beside(tmp_path):
    write(tmp_path, patients().head(1))
    write(tmp_path, patients().slice(1), "data/held_out/0.parquet")
    write(tmp_path, pl.DataFrame({"subject_id": [1]}), "metadata/subject_splits.parquet")
    table = read_meds(tmp_path)
    assert table.frame["code"].to_list() == ["GENDER//F", "A", "C", "A", "B"]
    assert table.time_kind == "datetime"
    assert table.notes == ["1 events have no time; they come first within their patient"]
    for again in (EventTable.read(tmp_path), EventTable.read(tmp_path, entity="subject_id")):
        assert again.fingerprint() == table.fingerprint()


def test_exact_duplicates_go_on_request(tmp_path):
    table = read_meds(write(tmp_path, patients()), drop_duplicates=True)
    assert table.frame["code"].to_list() == ["GENDER//F", "A", "C", "B"]
    assert table.notes[0] == "1 exact duplicates were left out"


def test_one_file_and_chosen_columns(tmp_path):
    write(tmp_path, patients().with_columns(more=pl.lit(1)))
    table = read_meds(tmp_path / "data/train/0.parquet", columns=[])
    assert table.frame.columns == ["subject_id", "time", "code"]


def test_what_is_not_meds(tmp_path):
    assert not is_meds(tmp_path)
    write(tmp_path, patients().drop("code"))
    assert not is_meds(tmp_path)
    with pytest.raises(DataError, match=r"no MEDS table: 'code' should be a string"):
        read_meds(tmp_path)
    write(tmp_path, patients().with_columns(pl.col("time").dt.to_string()))
    with pytest.raises(DataError, match="'time' should be a timestamp"):
        read_meds(tmp_path)
    codes = pl.Series("code", ["A", None, "B", "C", "D"])
    write(tmp_path, patients().with_columns(codes))
    with pytest.raises(DataError, match=r"1 events have no code\n.*0\.parquet, row 2"):
        read_meds(tmp_path)


def test_values_are_optional(tmp_path):
    assert read_meds(write(tmp_path, patients().drop("numeric_value"))).n_events == 5


def test_the_mimic_demo(data_root):
    folder = data_root / "health/mimic_iv_demo_meds"
    table = EventTable.read(folder)
    assert (table.n_events, table.n_entities, int(table.lengths.max())) == (916_166, 100, 51_975)
    assert table.frame["code"].n_unique() == 7_035
    first = table.frame["time"].gather(table.offsets[:-1])
    assert first.null_count() == 100
    assert "82,516 exact duplicates were left out" in read_meds(folder, drop_duplicates=True).notes
