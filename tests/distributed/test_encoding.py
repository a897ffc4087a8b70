import itertools

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable, TokenStore, split_by_time
from domainformer.distributed import fit_files, tokenize_files
from domainformer.errors import DataError, SchemaError, StoreError
from domainformer.tokenizers import DomainTokenizer

from .conftest import KEYS, SCHEMA, digests, make_frame, write_files

pytestmark = pytest.mark.usefixtures("many_units")


def check_equal(store, encoded):
    """Every history of a store is that of the whole table, encoded in memory."""
    place = {name: index for index, name in enumerate(encoded.entity_ids.to_list())}
    names = store.entity_ids.to_list()
    assert sorted(names) == sorted(place)
    for index, name in enumerate(names):
        found, expected = store.history(index), encoded.history(place[name])
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.event_offsets, expected.event_offsets)
        assert np.array_equal(found.times, expected.times)
        assert (found.roles is None) == (expected.roles is None)
        assert found.roles is None or np.array_equal(found.roles, expected.roles)
    for shard in store.shards:
        assert shard.entity_ids.is_sorted()


def test_a_store_equals_the_table_in_memory(tmp_path, files, tokenizer, oracle):
    store = tokenize_files(files, tokenizer, tmp_path / "store", **KEYS)
    check_equal(TokenStore.open(store.path, verify=True), tokenizer.encode(oracle))
    assert len(store.shards) == 8
    assert store.meta == {"entity": "who", "time": "at"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_roles_land_in_the_store(tmp_path, files, tokenizer, oracle):
    cuts = {"validation_from": "2024-06-01", "test_from": "2024-09-01T12:00"}
    store = tokenize_files(files, tokenizer, tmp_path / "store", **KEYS, **cuts)
    split = split_by_time(oracle, **cuts)
    check_equal(store, tokenizer.encode(oracle, roles=split.roles))
    assert store.meta["split"]["events"] == split.record["events"]
    only = tokenize_files(files, tokenizer, tmp_path / "test", **KEYS, test_from="2024-09-01")
    assert np.unique(np.concatenate([s.roles for s in only.shards])).tolist() == [0, 2]


def test_batches_files_and_order_give_the_same_bytes(tmp_path, frame, files, tokenizer):
    expected = digests(tokenize_files(files, tokenizer, tmp_path / "0", **KEYS).path)
    distinct = frame.unique(["who", "at"], maintain_order=True)
    options = {"batch_events": 17}
    assert (
        digests(tokenize_files(files, tokenizer, tmp_path / "1", **KEYS, **options).path)
        == expected
    )
    paths = sorted(files.iterdir())[::-1]
    assert digests(tokenize_files(paths, tokenizer, tmp_path / "2", **KEYS).path) == expected
    other = write_files(frame, tmp_path / "cut", 7, group=33)
    assert digests(tokenize_files(other, tokenizer, tmp_path / "3", **KEYS).path) == expected
    # Ties keep the order of the source; without ties no order matters.
    plain = write_files(distinct, tmp_path / "plain", 2)
    mixed = write_files(distinct.sample(fraction=1, shuffle=True, seed=3), tmp_path / "mixed", 4)
    one, two = (
        digests(tokenize_files(path, tokenizer, tmp_path / f"s{i}", **KEYS).path)
        for i, path in enumerate((plain, mixed))
    )
    assert one == two != expected


def test_integer_ids_and_dates_without_splits(tmp_path, tokenizer):
    frame = make_frame(4).with_columns(
        pl.col("who").str.slice(7).cast(pl.Int16), pl.col("at").dt.date().cast(pl.String)
    )
    from domainformer.data import EventTable
    from domainformer.tokenizers import DomainTokenizer

    table = EventTable.of(frame, **KEYS)
    fitted = DomainTokenizer(tokenizer.schema, bpe_vocab_size=280).fit(table)
    store = tokenize_files(write_files(frame, tmp_path / "in", 2), fitted, tmp_path / "s", **KEYS)
    check_equal(store, fitted.encode(table))
    assert store.entity_ids.dtype == pl.Int16


def test_without_a_time_column_rows_keep_their_order(tmp_path, frame):
    from domainformer.data import EventTable
    from domainformer.schema import DomainSchema, FieldSpec
    from domainformer.tokenizers import DomainTokenizer

    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    table = EventTable.of(frame, entity="who")
    fitted = DomainTokenizer(schema).fit(table)
    folder = write_files(frame, tmp_path / "in", 3)
    store = tokenize_files(folder, fitted, tmp_path / "s", entity="who", time=None)
    check_equal(store, fitted.encode(table))


def test_progress_tells_every_stage_to_its_end(tmp_path, files, tokenizer):
    told = []
    tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, progress=told.append)
    stages = {stage: list(group) for stage, group in itertools.groupby(told, lambda p: p.stage)}
    assert list(stages) == ["group", "encode", "assemble"]
    for reports in stages.values():
        assert [report.done for report in reports] == list(range(reports[-1].total + 1))
        assert reports[0].seconds_left is None
        assert reports[-1].seconds_left == 0
        assert reports[-1].events == TokenStore.open(tmp_path / "s").n_events


def test_outputs_cuts_and_columns_that_cannot_be_used(tmp_path, files, tokenizer):
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        tokenize_files(files, tokenizer, tmp_path / "there", **KEYS)
    with pytest.raises(DataError, match="wrong order"):
        tokenize_files(
            files,
            tokenizer,
            tmp_path / "s",
            **KEYS,
            validation_from="2025-01-01",
            test_from="2024-01-01",
        )
    with pytest.raises(DataError, match="the test part would be empty"):
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, test_from="2099-01-01")
    assert not (tmp_path / "s").exists()
    with pytest.raises(DataError, match="no engine 'rai'"):
        tokenize_files(files, tokenizer, tmp_path / "t", **KEYS, engine="rai")
    with pytest.raises(DataError, match="workers is 0"):
        tokenize_files(files, tokenizer, tmp_path / "t", **KEYS, workers=0)
    with pytest.raises(DataError, match="memory budget"):
        tokenize_files(files, tokenizer, tmp_path / "u", **KEYS, memory="1kB")
    with pytest.raises(SchemaError, match="time since"):
        tokenize_files(files, tokenizer, tmp_path / "u", entity="who", time=None)
    with pytest.raises(DataError, match="no column 'whom'"):
        tokenize_files(files, tokenizer, tmp_path / "u", entity="whom", time="at")


def test_empty_ids_and_times_are_told(tmp_path, frame, tokenizer):
    nobody = frame.with_columns(pl.lit(None, pl.String).alias("who"))
    with pytest.raises(DataError, match="entity column 'who' is empty"):
        tokenize_files(write_files(nobody, tmp_path / "a", 1), tokenizer, tmp_path / "s", **KEYS)
    never = frame.with_columns(pl.lit(None, pl.Datetime("us")).alias("at"))
    with pytest.raises(DataError, match="time column 'at' is empty"):
        tokenize_files(write_files(never, tmp_path / "b", 1), tokenizer, tmp_path / "t", **KEYS)


def test_columns_and_times_that_are_empty_in_whole_files(tmp_path, oracle, frame):
    """A column of nulls has no type of its own, and a blank is a time that is not known."""
    days = frame.with_columns(
        pl.lit(None).alias("kind"), pl.col("at").dt.strftime("%Y-%m-%d").fill_null("")
    )
    blank = days.head(100).with_columns(pl.lit(" ").alias("at"))
    folder = write_files(pl.concat([blank, days]), tmp_path / "in", 31)
    events = EventTable.of(pl.concat([blank, days]), **KEYS)
    fitted = DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(events)
    check_equal(tokenize_files(folder, fitted, tmp_path / "s", **KEYS), fitted.encode(events))


def test_columns_that_no_field_reads_are_told_before_anything_is_read(tmp_path, frame, tokenizer):
    lists = frame.with_columns(pl.concat_list("kind").alias("kind"))
    with pytest.raises(SchemaError, match="'kind' is List"):
        tokenize_files(write_files(lists, tmp_path / "in", 1), tokenizer, tmp_path / "s", **KEYS)
    assert not (tmp_path / "s.partial").exists()


def test_entities_that_folders_name(tmp_path, frame, tokenizer):
    parts = []
    for who in (3, 20):
        part = frame.head(50 * who).drop("who")
        parts.append(part.with_columns(who=pl.lit(who)))
        (tmp_path / "in" / f"who={who}").mkdir(parents=True)
        part.write_parquet(tmp_path / "in" / f"who={who}" / "a.parquet")
    events = EventTable.of(pl.concat(parts), **KEYS)
    fitted = fit_files(tmp_path / "in", SCHEMA, **KEYS, bpe_vocab_size=300)
    assert fitted.fingerprint == DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(events).fingerprint
    store = tokenize_files(tmp_path / "in", tokenizer, tmp_path / "s", **KEYS)
    check_equal(store, tokenizer.encode(events))
