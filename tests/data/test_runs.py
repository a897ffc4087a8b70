import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data import runs as runs_module
from domainformer.data.event_files import EventFiles, Seen
from domainformer.data.grouping import write_runs
from domainformer.data.runs import RunSlices, SharedDictionary, compacted, joined, run_slices

SLICES = 16
WORDS = st.none() | st.sampled_from(["", "tea", "cake", "bread", "ü", "a longer text"])


def write_run(folder, name, columns, parts):
    """A run as `grouping` writes it, whose events lie in the given parts, which are sorted."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    path = str(folder / f"{name}.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    ends = np.searchsorted(parts, np.arange(SLICES + 1))
    np.save(folder / f"{name}.npy", ends.astype(np.int64))


def some_runs(folder, seed=0, runs=5, nulls=True):
    """Runs of a number, a text that every run has by a dictionary, and one that some have so."""
    rng = np.random.default_rng(seed)
    rows = []
    for run in range(runs):
        n = int(rng.integers(40, 80))
        parts = np.sort(rng.integers(0, SLICES, n))
        words = [f"word {w}" for w in rng.integers(0, 9 + 5 * run, n)]
        if nulls:
            words = [None if rng.random() < 0.2 else word for word in words]
        notes = pa.array([f"note {i}" for i in rng.integers(0, 20, n)])
        nothing = pa.DictionaryArray.from_arrays(pa.nulls(n, pa.int32()), pa.array([], pa.string()))
        columns = {
            "number": pa.array(rng.normal(size=n)),
            "word": pa.array(words).dictionary_encode(),
            "note": notes.dictionary_encode() if run % 2 else notes,
            "nothing": nothing,
        }
        write_run(folder, f"run-{run}", columns, parts)
        plain = {name: column.to_pylist() for name, column in columns.items()}
        rows += [(run, int(p), {k: v[i] for k, v in plain.items()}) for i, p in enumerate(parts)]
    return [f"run-{run}" for run in range(runs)], rows


def expected(rows, shard, n_shards):
    """Every event whose part belongs to the shard, one by one, run after run."""
    width = SLICES // n_shards
    found = [event for _, part, event in rows if part // width == shard]
    return {name: [event[name] for event in found] for name in found[0]} if found else {}


def plain(columns):
    return {name: column.to_pylist() for name, column in columns.items()}


@pytest.mark.parametrize("n_shards", [1, 4, 16])
@pytest.mark.parametrize("limit", [{}, {"MOST_VALUES": 12}, {"MOST_BYTES": 90}, {"MOST_PLACES": 9}])
def test_a_shard_is_its_slices_of_all_runs(tmp_path, monkeypatch, n_shards, limit):
    """Whether all runs, some or none go by the dictionary of the process."""
    for name, value in limit.items():
        monkeypatch.setattr(runs_module, name, value)
    names, rows = some_runs(tmp_path)
    slices = RunSlices(str(tmp_path))
    for shard in [*range(n_shards), 0]:
        found = slices.read(names, shard, n_shards)
        assert plain(found) == expected(rows, shard, n_shards)
        for column in found.values():
            column.validate(full=True)
        if found:
            assert len(found["word"].dictionary) == len(set(plain(found)["word"]) - {None})


def test_a_dictionary_is_looked_at_once_a_run(tmp_path, monkeypatch):
    names, _ = some_runs(tmp_path, nulls=False)
    looked = []
    added = SharedDictionary._added
    monkeypatch.setattr(
        SharedDictionary, "_added", lambda self, d: (looked.append(len(d)), added(self, d))[1]
    )
    slices = RunSlices(str(tmp_path))
    for shard in range(SLICES):
        slices.read(names, shard, SLICES)
    assert len(looked) == 5 + 2 + 5  # of word, of note in the runs that have one, of nothing


def test_a_run_that_is_written_anew_is_read_anew(tmp_path):
    names, _ = some_runs(tmp_path, seed=1)
    kept = run_slices(str(tmp_path))
    kept.read(names, 0, 4)
    for name in names:
        (tmp_path / f"{name}.arrow").unlink()
    names, rows = some_runs(tmp_path, seed=2)
    assert run_slices(str(tmp_path)) is kept
    for shard in range(4):
        assert plain(kept.read(names, shard, 4)) == expected(rows, shard, 4)


def test_codes_of_another_run_would_be_seen(tmp_path):
    """The sabotage twin: by the name alone, the test above fails."""
    names, _ = some_runs(tmp_path, seed=1)
    kept = RunSlices(str(tmp_path))
    kept.read(names, 0, 1)
    shared = kept._shared["word", pa.string()]
    by_name = {key[0]: places for key, places in shared._places.items()}
    names, rows = some_runs(tmp_path, seed=2)
    shared.places = lambda run, dictionary: np.resize(by_name[run[0]], len(dictionary))
    assert plain(kept.read(names, 0, 1)) != expected(rows, 0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_of_a_run_stays_mapped(tmp_path):
    names, _ = some_runs(tmp_path)
    slices = RunSlices(str(tmp_path))
    found = [slices.read(names, shard, 4) for shard in range(4)]
    assert len(found) == 4
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    with pa.memory_map(str(tmp_path / "run-0.arrow")) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        assert str(tmp_path) in Path("/proc/self/maps").read_text()
        del batch


def test_a_run_that_is_missing_is_an_error_of_the_disk(tmp_path):
    names, _ = some_runs(tmp_path)
    (tmp_path / "run-3.arrow").unlink()
    with pytest.raises(OSError, match="run-3"):
        RunSlices(str(tmp_path)).read(names, 0, 4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(WORDS, max_size=6)), min_size=1, max_size=5))
def test_joined_chunks_keep_their_values(chunks):
    arrays = []
    for coded, words in chunks:
        array = pa.array(words, pa.string())
        arrays.append(array.dictionary_encode() if coded else array)
    found = joined(arrays)
    found.validate(full=True)
    assert found.to_pylist() == [word for _, words in chunks for word in words]
    by_dictionary = sum(len(words) for coded, words in chunks if coded)
    total = sum(len(words) for _, words in chunks)
    wanted = any(coded for coded, _ in chunks) and 2 * by_dictionary >= total
    assert pa.types.is_dictionary(found.type) == wanted


@settings(deadline=None)
@given(st.lists(WORDS, max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_compacted_columns_name_what_they_use(words, start, length):
    column = pa.array(words, pa.string()).dictionary_encode().slice(start, length)
    found = compacted(column)
    found.validate(full=True)
    assert found.to_pylist() == words[start : start + length]
    used = found.dictionary.to_pylist()
    assert sorted(used) == sorted(set(words[start : start + length]) - {None})


def test_a_short_end_of_a_file_does_not_unfold_a_run(tmp_path):
    """Its dictionary is as long as its rows, so that it comes without one."""
    rng = np.random.default_rng(0)
    words = [f"word {w}" for w in rng.integers(0, 200, 2_150)]
    table = pa.table({"who": rng.integers(0, 9, 2_150), "at": np.arange(2_150), "word": words})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2_000)
    files = EventFiles.of(tmp_path / "a.parquet", entity="who", time="at", columns=["word"])
    (portion,) = files.portions()
    kinds = [b.column("word").type for b in files.read(portion, Seen())]
    assert [pa.types.is_dictionary(kind) for kind in kinds] == [True, False], kinds
    (tmp_path / "runs").mkdir()
    receipt = write_runs(files, portion, tmp_path / "runs", memory=64 << 20)
    (run,) = receipt["runs"]
    with pa.memory_map(str(tmp_path / "runs" / f"{run['name']}.arrow")) as source:
        column = pa.ipc.open_file(source).get_batch(0).column("word")
        assert pa.types.is_dictionary(column.type)
        assert sorted(column.to_pylist()) == sorted(words)
