import polars as pl
import pytest

from domainformer.data.table import EventTable
from domainformer.errors import DataError
from domainformer.evaluation import read_labels

ROWS = pl.DataFrame({"card": [2, 2, 1, 3], "day": [1, 2, 3, 4], "churned": [1, 1, 0, None]})


def test_one_label_per_entity_in_order_of_appearance():
    assert read_labels(ROWS, "card", "churned").rows() == [(2, 1), (1, 0), (3, None)]


def test_an_event_table_knows_its_entity():
    table = EventTable.of(ROWS, entity="card", time="day")
    assert read_labels(table, None, "churned").rows() == [(1, 0), (2, 1), (3, None)]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_file(tmp_path, suffix):
    path = tmp_path / f"labels.{suffix}"
    getattr(ROWS, f"write_{suffix}")(path)
    assert read_labels(path, "card", "churned").rows() == [(2, 1), (1, 0), (3, None)]


def test_a_label_that_varies_is_refused():
    rows = pl.DataFrame({"card": [1, 1, 2], "churned": [0, 1, 0]})
    with pytest.raises(DataError, match=r"varies within 1 entities[\s\S]*entity 1[\s\S]*0, 1"):
        read_labels(rows, "card", "churned")


def test_a_label_known_on_some_rows_only_counts():
    rows = pl.DataFrame({"card": [1, 1, 2], "churned": [None, 1, 0]})
    assert read_labels(rows, "card", "churned").rows() == [(1, 1), (2, 0)]


@pytest.mark.parametrize(
    ("source", "entity", "column", "message"),
    [
        (ROWS, "card", "chruned", "did you mean 'churned'"),
        (ROWS, None, "churned", "entity column is not given"),
        (ROWS.with_columns(churned=pl.lit(None)), "card", "churned", "null in every row"),
        ("nowhere.parquet", "card", "churned", "no file"),
    ],
)
def test_bad_input(source, entity, column, message):
    with pytest.raises(DataError, match=message):
        read_labels(source, entity, column)


def test_a_damaged_file(tmp_path):
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(path, "card", "churned")
