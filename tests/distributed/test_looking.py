"""Validation and drift of files in parts against the whole table in memory."""

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.data.event_files import EventFiles
from domainformer.distributed import Means, anysize, drift_table, looking, validate_table
from domainformer.errors import DataError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, drift, validate_tokenizer

KEYS = {"entity": "who", "time": "at"}
STREAM = Means(memory="32MB")


@pytest.fixture
def in_parts(monkeypatch, many_units):
    """Batches of a few rows; and no way to read the whole table."""
    read = EventFiles.read

    def small(self, portion, seen, *, batch_rows=90):
        return read(self, portion, seen, batch_rows=batch_rows)

    def forbidden(*_, **__):
        raise AssertionError("the whole table was read")

    monkeypatch.setattr(EventFiles, "read", small)
    monkeypatch.setattr(looking, "BATCH_EVENTS", 100)
    monkeypatch.setattr(EventTable, "read", forbidden)
    monkeypatch.setattr(anysize, "read_table", forbidden)
    monkeypatch.setattr(looking, "read_table", forbidden)


@pytest.fixture
def shifted(frame, tmp_path):
    """Other events than those of the fit: new kinds, larger amounts, longer gaps, more nulls."""
    rng = np.random.default_rng(7)
    late = frame.with_columns(
        pl.col("amount") * 40,
        pl.when(pl.Series(rng.random(frame.height)) < 0.3)
        .then(pl.lit("mug"))
        .otherwise(pl.col("kind"))
        .alias("kind"),
        pl.col("at") + pl.duration(days=900),
        pl.col("note") + " xyzzy",
    ).sample(fraction=0.7, seed=3)
    folder = tmp_path / "late"
    folder.mkdir()
    for number, part in enumerate(late.iter_slices(500)):
        part.write_parquet(folder / f"{number:02}.parquet", row_group_size=100)
    return late, folder


def test_validation_of_files_is_that_of_the_table(tokenizer, oracle, files, in_parts):
    for events, seed in ((150, 0), (40, 5)):
        whole = validate_tokenizer(tokenizer, oracle, events=events, seed=seed)
        parts = validate_table(files, tokenizer, **KEYS, events=events, seed=seed, means=STREAM)
        assert whole.ok
        assert parts == whole


def test_another_sample_would_be_seen(tokenizer, oracle, files, in_parts):
    """The twin: the comparison tells samples apart."""
    whole = validate_tokenizer(tokenizer, oracle, events=150, seed=1)
    parts = validate_table(files, tokenizer, **KEYS, events=150, seed=0, means=STREAM)
    assert parts != whole


def test_drift_of_files_is_that_of_the_table(tokenizer, shifted, files, in_parts):
    late, folder = shifted
    whole = drift(tokenizer, EventTable.of(late, **KEYS))
    assert whole.verdict == "refit"
    assert any(one.outside for one in whole.slots)
    assert drift_table(folder, tokenizer, **KEYS, means=STREAM) == whole
    same = drift_table(files, tokenizer, **KEYS, means=STREAM)
    assert same.verdict == "fine"


def test_drift_against_a_reference_of_files(tokenizer, oracle, shifted, files, in_parts):
    late, folder = shifted
    whole = drift(tokenizer, EventTable.of(late, **KEYS), reference=oracle)
    parts = drift_table(folder, tokenizer, **KEYS, reference=files, means=STREAM)
    assert parts == whole


def test_drift_without_gaps_needs_no_grouping(frame, shifted, in_parts, monkeypatch):
    schema = DomainSchema(
        "s",
        [
            FieldSpec("kind", "categorical_fixed"),
            FieldSpec("amount", "numerical_continuous"),
            FieldSpec("at", "temporal"),
        ],
    )
    monkeypatch.setattr(looking, "group", lambda *_: pytest.fail("events were grouped"))
    fitted = DomainTokenizer(schema).fit(EventTable.of(frame, **KEYS))
    late, folder = shifted
    expected = drift(fitted, EventTable.of(late, **KEYS))
    assert drift_table(folder, fitted, **KEYS, means=STREAM) == expected


@pytest.mark.parametrize("gaps", [4, 0])
def test_days_as_text_are_dates_in_parts_too(tmp_path, in_parts, gaps):
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + rng.integers(0, 400, 900)
    frame = pl.DataFrame({"who": rng.integers(0, 90, 900), "at": days.astype(str)})
    frame = frame.with_columns(pl.Series("kind", rng.choice(["a", "b"], 900)))
    schema = DomainSchema(
        "s",
        [FieldSpec("kind", "categorical_fixed"), FieldSpec("at", "temporal", elapsed_bins=gaps)],
    )
    for number, part in enumerate(frame.iter_slices(300)):
        part.write_parquet(tmp_path / f"{number}.parquet", row_group_size=100)
    table = EventTable.of(frame, **KEYS)
    fitted = DomainTokenizer(schema).fit(table)
    assert drift_table(tmp_path, fitted, **KEYS, means=STREAM) == drift(fitted, table)
    found = validate_table(tmp_path, fitted, **KEYS, events=100, means=STREAM)
    assert found == validate_tokenizer(fitted, table, events=100)
    assert found.ok


def test_small_tables_are_read_whole(tokenizer, oracle, frame, tmp_path, monkeypatch):
    frame.write_parquet(tmp_path / "one.parquet")
    monkeypatch.setattr(looking, "open_files", lambda *_, **__: pytest.fail("it was streamed"))
    path = tmp_path / "one.parquet"
    assert validate_table(path, tokenizer, **KEYS, events=50) == validate_tokenizer(
        tokenizer, oracle, events=50
    )
    assert drift_table(path, tokenizer, **KEYS) == drift(tokenizer, oracle)


def test_what_cannot_be_looked_at_is_told(tokenizer, files, tmp_path):
    with pytest.raises(DataError, match="0 events"):
        validate_table(files, tokenizer, **KEYS, events=0, means=STREAM)
    pl.DataFrame(
        {"who": [None, None], "at": [None, None], "kind": ["a", "b"], "amount": [1.0, 2.0],
         "note": ["", ""]},
        schema_overrides={"who": pl.String, "at": pl.Datetime},
    ).write_parquet(tmp_path / "empty.parquet")  # fmt: skip
    for look in (validate_table, drift_table):
        with pytest.raises(DataError, match="empty"):
            look(tmp_path / "empty.parquet", tokenizer, **KEYS, means=STREAM)
    with pytest.raises(DataError, match="no events"):
        drift(tokenizer, iter(()))
