"""What a path holds, and what lies in a folder to begin with."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from domainformer.errors import DataError
from domainformer.start import EventsFound, TextFound, begin, candidates, look

FRAME = pl.DataFrame({"client_id": [1, 1, 2], "kind": ["a", "b", "a"]})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "parts").mkdir()
    FRAME.write_parquet(tmp_path / "parts" / "0.parquet")
    FRAME.write_parquet(tmp_path / "parts" / "1.parquet")
    (tmp_path / "parts" / "about.txt").write_text("what lies here")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("once upon a time")
    (tmp_path / "notes.md").write_text("a text without an ending of texts")
    (tmp_path / "README.txt").write_text("no data")
    (tmp_path / ".hidden.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("parts", EventsFound, "a table of 6 rows and 2 columns: client_id, kind"),
        ("parts/0.parquet", EventsFound, "a table of 3 rows"),
        ("parts/*.parquet", EventsFound, "a table of 6 rows"),
        ("books", TextFound, "a text of 16 characters"),
        ("books/*.txt", TextFound, "a text of 16 characters"),
        ("notes.md", TextFound, "a text of 33 characters"),
    ],
)
def test_what_a_path_holds(folder, name, kind, told):
    found = look(folder / name)
    assert isinstance(found, kind)
    assert str(found).startswith(told)


@pytest.mark.parametrize("name", ["empty", "nothing", "parts/*.csv"])
def test_nothing_is_told(folder, name):
    with pytest.raises(DataError):
        look(folder / name)


def test_bytes_are_no_text_and_no_rows_no_table(folder):
    (folder / "image.bin").write_bytes(b"\xff\xfe\x00")
    FRAME.head(0).write_parquet(folder / "none.parquet")
    with pytest.raises(DataError, match="UTF-8"):
        look(folder / "image.bin")
    with pytest.raises(DataError, match="has no rows"):
        look(folder / "none.parquet")


def test_tables_come_before_texts_and_neither_is_guessed_from_what_is_none(folder):
    assert [name.rpartition("/")[2] for name in candidates(folder)] == [
        "parts",
        "books",
    ]


def test_a_meds_folder_tells_its_columns(tmp_path):
    (tmp_path / "icu" / "data").mkdir(parents=True)
    frame = pl.DataFrame(
        {
            "subject_id": [i // 6 for i in range(60)],
            "time": [datetime(2024, 1, 1 + i % 6, i % 24) for i in range(60)],
            "code": [("A", "B", "C")[i * i % 3] for i in range(60)],
            "numeric_value": [float(i % 7) for i in range(60)],
        }
    )
    frame.write_parquet(tmp_path / "icu" / "data" / "0.parquet")
    assert candidates(tmp_path) == (str(tmp_path / "icu"),)
    written = begin(tmp_path / "icu", tmp_path / "out")
    text = written.config.read_text()
    assert "entity: subject_id" in text
    assert "time: time" in text
