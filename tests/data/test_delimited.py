import polars as pl
import pytest

from domainformer.data.table import EventTable
from domainformer.errors import DataError


def read(tmp_path, content, **options):
    path = tmp_path / "cards.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return EventTable.read(path, **{"entity": "id", **options})


def test_types_are_those_of_all_cells(tmp_path):
    text = (
        "id,card,n,x,ok,day,at,us_date,mixed\n"
        "1,0042,1, 1.5 ,true,2024-05-31,2024-05-31T10:00Z,05/04/2024,a1\n"
        "2,0007,-2,-4e2,False,,2024-05-31 10:00:00.25,05/05/2024,7\n"
    )
    frame = read(tmp_path, text).frame
    assert frame.schema == {
        "id": pl.Int64,
        "card": pl.String,
        "n": pl.Int64,
        "x": pl.Float64,
        "ok": pl.Boolean,
        "day": pl.Date,
        "at": pl.Datetime("us"),
        "us_date": pl.String,
        "mixed": pl.String,
    }
    assert frame["x"].to_list() == [1.5, -400.0]
    assert frame["card"].to_list() == ["0042", "0007"]


def test_times_are_parsed_and_ambiguous_ones_refused(tmp_path):
    assert read(tmp_path, "id,t\n1,2024-05-31\n", time="t").time_kind == "date"
    with pytest.raises(DataError, match=r"cards\.csv, row 1\n.*'05/04/2024'"):
        read(tmp_path, "id,t\n1,05/04/2024\n", time="t")
    text = "id,t\n" + "1,2024-05-31\n" * 1200 + "1,soon\n"
    with pytest.raises(DataError, match=r"row 1,201\n.*'soon'"):
        read(tmp_path, text, time="t")


def test_a_cell_of_another_type_is_named(tmp_path):
    text = "id,amount\n" + "1,2.50\n" * 150 + "1,7 EUR\n"
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    for word in ("'amount' holds numbers and text", "cards.csv, row 151", "'7 EUR'", "text=["):
        assert word in str(caught.value)
    assert read(tmp_path, text, text=["amount"]).frame["amount"].dtype == pl.String
    with pytest.raises(DataError, match="did you mean 'amount'"):
        read(tmp_path, text, text=["amonut"])


@pytest.mark.parametrize("cells", [["1", "2", "abc", "3"], ["1.5", "2", "abc", "3", "x", "7"]])
def test_one_odd_cell_or_text_among_fractions_is_an_error_however_small_the_file(cells, tmp_path):
    with pytest.raises(DataError, match=r"row 3\n.*'abc'"):
        read(tmp_path, "id,amount\n" + "".join(f"1,{cell}\n" for cell in cells))


def test_codes_that_are_often_numbers_stay_text(tmp_path):
    text = "id,stock\n" + "1,22423\n1,85123A\n1,POST\n" * 30
    assert read(tmp_path, text).frame["stock"].dtype == pl.String


def test_words_for_missing_numbers(tmp_path):
    table = read(tmp_path, "id,amount\n" + "1,2.5\n" * 150 + "1,nan\n1,NULL\n")
    assert table.frame["amount"].null_count() == 2
    assert table.notes == ["amount: 2 cells ('NULL', 'nan') were read as missing"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_and_a_byte_order_mark(tmp_path, separator):
    text = "\ufeffid,name\n1,a\n2,b\n".replace(",", separator)
    assert read(tmp_path, text).frame.columns == ["id", "name"]


def test_quoted_cells(tmp_path):
    text = 'id,note\n1,"a, ""b""\nc"\n2,""\n3,\n'
    assert read(tmp_path, text).frame["note"].to_list() == ['a, "b"\nc', "", None]


def test_rows_too_long_doubled_names_and_other_encodings(tmp_path):
    with pytest.raises(DataError, match="a row has 3 cells and the header 2\n.*line 3"):
        read(tmp_path, "id,a\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match="'a' occurs twice"):
        read(tmp_path, "id,a,a\n1,2,3\n")
    with pytest.raises(DataError, match="not text in UTF-8"):
        read(tmp_path, "id,a\n1,café\n".encode("latin1"))
    with pytest.raises(DataError, match="no rows"):
        read(tmp_path, "id,a\n")
    with pytest.raises(DataError, match="did you mean 'id'"):
        read(tmp_path, "id,a\n1,2\n", entity="idd")
