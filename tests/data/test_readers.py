import gzip

import polars as pl
import pyarrow.parquet as pq
import pytest

from domainformer.data import readers
from domainformer.data.table import EventTable
from domainformer.errors import DataError


def events(rows=6, first=0):
    return pl.DataFrame(
        {
            "who": [i % 2 for i in range(rows)],
            "at": [7] * rows,
            "row": list(range(first, first + rows)),
        }
    )


def write(frame, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".arrows":
        frame.write_ipc_stream(path)
    else:
        frame.write_ipc(path)
    return path


@pytest.mark.parametrize("name", ["e.parquet", "e.csv", "e.arrow", "e.feather", "e.arrows"])
def test_every_format_gives_the_same_table(name, tmp_path):
    table = EventTable.read(write(events(), tmp_path / name), entity="who", time="at")
    assert table.frame.equals(EventTable.of(events(), entity="who", time="at").frame)


def test_only_the_columns_asked_for_are_kept(tmp_path):
    path = write(events().with_columns(other=pl.lit("x")), tmp_path / "e.parquet")
    table = EventTable.read(path, entity="who", time="at", columns=["row"])
    assert table.frame.columns == ["who", "at", "row"]
    with pytest.raises(DataError, match="did you mean 'row'"):
        EventTable.read(path, entity="who", time="at", columns=["roww"])


def test_damage_in_a_column_that_nobody_reads_does_no_harm(tmp_path):
    """The read is lazy: the pages of other columns are not even opened."""
    path = tmp_path / "e.parquet"
    events(2000).with_columns(zzz=pl.int_range(2000).cast(pl.String)).write_parquet(path)
    chunk = next(
        column
        for i in range(4)
        if (column := pq.read_metadata(path).row_group(0).column(i)).path_in_schema == "zzz"
    )
    raw = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError):
        readers.scan(path).collect(["zzz"])
    assert readers.scan(path).collect(["row"])[0].height == 2000


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_ties_keep_the_order_of_files_and_rows(suffix, tmp_path):
    for number in (3, 1, 2):
        write(events(4, first=number * 10), tmp_path / f"part-{number}{suffix}")
    for path in (tmp_path, tmp_path / f"part-*{suffix}"):
        table = EventTable.read(path, entity="who", time="at")
        assert table.frame["row"].to_list() == [10, 12, 20, 22, 30, 32, 11, 13, 21, 23, 31, 33]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_hive_folders_become_columns(suffix, tmp_path):
    for year, region in ((2023, "north%20east"), (2024, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "day=1" / "lake" / f"year={year}" / f"region={region}"
        write(events(2), folder / f"e{suffix}")
        (folder / "_SUCCESS").touch()
        (folder / ".e.crc").touch()
    root = tmp_path / "day=1" / "lake"
    for path in (root, root / "**" / f"*{suffix}"):
        frame = EventTable.read(path, entity="who", time="at").frame
        assert frame.columns == ["who", "at", "row", "year", "region"]  # "day" is not below root
        assert frame["year"].to_list() == [2023, 2024, 2023, 2024]
        assert frame["region"].to_list() == ["north east", None, "north east", None]
    only = EventTable.read(root, entity="year", columns=["row"]).frame
    assert only.columns == ["year", "row"]


def test_dates_in_folder_names_are_dates(tmp_path):
    for day in ("2024-01-01", "2024-01-02"):
        write(events(2).drop("at"), tmp_path / f"day={day}" / "e.parquet")
    table = EventTable.read(tmp_path, entity="who", time="day")
    assert table.time_kind == "date"
    assert table.elapsed().to_list() == [None, 86400.0, None, 86400.0]


def test_a_truncated_parquet_file_is_named(tmp_path):
    write(events(), tmp_path / "a.parquet")
    whole = write(events(), tmp_path / "b.parquet")
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError) as caught:
        EventTable.read(tmp_path, entity="who", time="at")
    for word in ("Parquet file cannot be read", str(whole), "truncated or damaged"):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["e.parquet", "e.arrow", "e.csv", "e.csv.gz"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe garbage \x80" * 9])
def test_files_that_are_something_else(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        EventTable.read(tmp_path / name, entity="who")


def test_damaged_pages_behind_a_good_footer(tmp_path):
    write(events(), tmp_path / "a.parquet")
    path = write(events(3000), tmp_path / "b.parquet")
    raw = bytearray(path.read_bytes())
    raw[4:300] = b"\xff" * 296
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"b\.parquet"):
        EventTable.read(tmp_path, entity="who", time="at")


def test_files_must_agree(tmp_path):
    write(events(), tmp_path / "a.parquet")
    write(events().with_columns(pl.col("row").cast(pl.Int16)), tmp_path / "b.parquet")
    assert EventTable.read(tmp_path, entity="who").frame["row"].dtype == pl.Int64
    write(events().with_columns(pl.col("row").cast(pl.String)), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="'row' has different types in different files"):
        EventTable.read(tmp_path, entity="who")
    write(events().drop("row"), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"no column 'row'\n.*b\.parquet"):
        EventTable.read(tmp_path, entity="who")
    write(events().with_columns(more=1), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="different columns"):
        EventTable.read(tmp_path, entity="who")
    assert EventTable.read(tmp_path, entity="who", columns=["row"]).n_events == 12


def test_paths_that_lead_nowhere(tmp_path):
    write(events(), tmp_path / "events.parquet")
    with pytest.raises(DataError, match=r"did you mean 'events\.parquet'"):
        EventTable.read(tmp_path / "event.parquet", entity="who")
    with pytest.raises(DataError, match="no files of a known format"):
        EventTable.read(tmp_path / "*.csv", entity="who")
    (tmp_path / "notes.doc").touch()
    with pytest.raises(DataError, match="known are .parquet"):
        EventTable.read(tmp_path / "notes.doc", entity="who")
    write(events(), tmp_path / "e.csv")
    with pytest.raises(DataError, match="different formats"):
        EventTable.read(tmp_path, entity="who")
    with pytest.raises(DataError, match="the entity column was not named"):
        EventTable.read(tmp_path / "e.csv")


def test_the_row_of_a_bad_time_is_counted_within_its_file(tmp_path):
    good = events(3).with_columns(at=pl.lit("2024-01-01T10:00"))
    write(good, tmp_path / "a.parquet")
    bad = good.with_columns(at=pl.Series(["2024-01-01T10:00", "yesterday", None]))
    write(bad, tmp_path / "b.parquet")
    with pytest.raises(DataError) as caught:
        EventTable.read(tmp_path, entity="who", time="at")
    assert f"{tmp_path / 'b.parquet'}, row 2" in str(caught.value)
    assert "'yesterday'" in str(caught.value)


def test_compressed_csv(tmp_path):
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(events().write_csv().encode()))
    assert EventTable.read(path, entity="who", time="at").n_events == 6


REAL = [
    ("finance/birmingham_cards_2014_2018.parquet", "card", "date", 181_335, 1_523, "date"),
    ("finance/credit_default_events.parquet", "client_id", "month", 180_000, 30_000, "date"),
    ("commerce/online_retail.parquet", "customer_id", "timestamp", 406_829, 4_372, "datetime"),
    ("commerce/beauty_events.parquet", "user_id", "position", 198_502, 22_363, "integer"),
    ("health/physionet2012_a_events.parquet", "record_id", "minute", 1_737_654, 3_997, "integer"),
]


@pytest.mark.parametrize(("file", "entity", "time", "events", "entities", "kind"), REAL)
def test_real_tables(file, entity, time, events, entities, kind, data_root):
    table = EventTable.read(data_root / file, entity=entity, time=time, columns=[])
    assert (table.n_events, table.n_entities, table.time_kind) == (events, entities, kind)
    assert table.elapsed().null_count() == entities
    assert table.elapsed().min() >= 0


def test_rows_without_a_customer_are_noted(data_root):
    table = EventTable.read(data_root / "commerce/online_retail.parquet", entity="customer_id")
    assert table.notes == ["135,080 rows without customer_id were left out"]
