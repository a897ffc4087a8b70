import contextlib
import dataclasses
import datetime as dt
import itertools
import json
import os
import pickle
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer import artifacts
from domainformer.artifacts import staged_directory
from domainformer.data import store as store_module
from domainformer.data.store import TokenizedEvents, TokenStore
from domainformer.errors import DataError, StoreError


@pytest.fixture
def events(make_events):
    return make_events(0)


@pytest.fixture
def folder(tmp_path, events):
    TokenStore.write(tmp_path / "store", events, meta={"note": "für später"})
    return tmp_path / "store"


def cut(events, *edges):
    """Shards between entities."""
    edges = [0, *edges, events.n_entities]
    pairs = itertools.pairwise(edges)
    return [events.take_entities(np.arange(start, stop)) for start, stop in pairs]


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("vocab_size", [200, 300, 70_000])
@pytest.mark.parametrize("roles", [True, False])
def test_what_was_written_is_read(tmp_path, make_events, vocab_size, roles):
    events = make_events(0, vocab_size=vocab_size, roles=roles)
    store = TokenStore.write(tmp_path / "store", events, meta={"note": "für später"})
    reopened = TokenStore.open(tmp_path / "store", verify=True)
    assert store.events() == reopened.events() == events
    assert reopened.meta == {"note": "für später"}
    assert (reopened.n_tokens, reopened.n_events) == (events.n_tokens, events.n_events)
    assert reopened.fingerprint == store.fingerprint
    itemsize = {200: 1, 300: 2, 70_000: 4}[vocab_size]
    ids_file = tmp_path / "store" / "shard-00000" / "ids.bin"
    assert ids_file.stat().st_size == events.n_tokens * itemsize
    assert isinstance(reopened.shards[0].ids.base, np.memmap)
    assert isinstance(reopened.shards[0].times.base, np.memmap)


@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 7), max_size=3))
@settings(max_examples=15, deadline=None)
def test_shards_read_as_one(tmp_path_factory, make_events, seed, cuts):
    events = make_events(seed)
    shards = cut(events, *sorted(cuts))
    store = TokenStore.write(tmp_path_factory.mktemp("s") / "store", (s for s in shards))
    assert len(store.shards) == len(shards)
    assert store.events() == events
    assert store.lengths.tolist() == events.lengths.tolist()
    assert store.entity_ids.to_list() == events.entity_ids.to_list()
    for index in range(events.n_entities):
        one, other = store.history(index), events.history(index)
        assert one.entity_id == other.entity_id
        for name in ("ids", "event_offsets", "times", "roles"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
    for outside in (-1, events.n_entities):
        with pytest.raises(DataError, match="there is no entity"):
            store.history(outside)


@pytest.mark.parametrize(
    "entity_ids",
    [
        pl.Series(["", "ä 🦊", "x" * 10_000]),
        pl.Series([-5, 0, 2**62]),
        pl.Series([0, 1, 2**64 - 1], dtype=pl.UInt64),
        pl.Series([1, 2, 3], dtype=pl.Int8),
        pl.Series([b"", b"\x00", b"\xff"]),
        pl.Series([1.5, -0.25, 1e300]),
        pl.Series([dt.date(1900, 1, 1), dt.date(2024, 2, 29), dt.date(2100, 1, 1)]),
        pl.Series(["a", "b", "c"], dtype=pl.Categorical),
        pl.Series(["a", "b", "c"], dtype=pl.Enum(["c", "b", "a"])),
    ],
)
def test_entity_ids_of_any_scalar_type(tmp_path, make_events, entity_ids):
    events = dataclasses.replace(make_events(0, entities=3), entity_ids=entity_ids)
    store = TokenStore.write(tmp_path / "store", events)
    assert store.entity_ids.dtype == entity_ids.dtype
    assert store.entity_ids.to_list() == entity_ids.to_list()
    assert [store.history(i).entity_id for i in range(3)] == entity_ids.to_list()


def test_nested_entity_ids_are_refused(tmp_path, make_events):
    nested = dataclasses.replace(make_events(0, entities=2), entity_ids=pl.Series([[1], [2]]))
    with pytest.raises(DataError, match="entity ids cannot be stored"):
        TokenStore.write(tmp_path / "store", nested)
    assert os.listdir(tmp_path) == []


# ── opening ──────────────────────────────────────────────────────────────────────────────────


def sparse_npy(path, length, values):
    """A huge .npy file of which only some elements (index: value) take place on the disk."""
    with path.open("wb") as handle:
        header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(handle, header)
        start = handle.tell()
        handle.truncate(start + 8 * length)
        for index, value in values.items():
            handle.seek(start + 8 * index)
            handle.write(int(value).to_bytes(8, "little"))


def test_opening_does_not_depend_on_the_size(tmp_path, make_events):
    """A store of 64 GiB of tokens opens at once and touches next to no page."""
    folder = tmp_path / "store"
    TokenStore.write(folder, make_events(0, entities=1, vocab_size=200, roles=False))
    shard, n_events, n_tokens = folder / "shard-00000", 1 << 30, 1 << 36
    try:
        os.truncate(shard / "ids.bin", n_tokens)
        sparse_npy(shard / "event_offsets.npy", n_events + 1, {n_events: n_tokens})
        sparse_npy(shard / "times.npy", n_events, {})
    except OSError as error:
        pytest.skip(f"the file system has no sparse files of this size: {error}")
    sparse_npy(shard / "entity_offsets.npy", 2, {1: n_events})
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        entry["bytes"] = (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))

    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    store = TokenStore.open(folder)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (store.n_tokens, store.n_events) == (n_tokens, n_events)
    assert store.shards[0].entity_id(0) == "entity-0"
    pages = after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt
    assert seconds < 5
    assert pages < 2_000  # of 33 million


def test_a_replaced_store_is_not_taken_for_the_old(folder, make_events):
    store = TokenStore.open(folder)
    same = pickle.loads(pickle.dumps(store))
    assert same.events() == store.events()
    assert len(pickle.dumps(store)) < 500
    pickled = pickle.dumps(store)
    TokenStore.write(folder, make_events(1), overwrite=True)
    with pytest.raises(StoreError, match="was replaced"):
        pickle.loads(pickled)


def test_maps_survive_an_overwrite(folder, events, make_events):
    store = TokenStore.open(folder)
    TokenStore.write(folder, make_events(1), overwrite=True)
    assert store.events() == events
    assert TokenStore.open(folder).events() == make_events(1)


def test_a_store_may_be_rewritten_from_itself(folder, events):
    store = TokenStore.open(folder)
    TokenStore.write(folder, (shard.events() for shard in store.shards), overwrite=True)
    assert TokenStore.open(folder, verify=True).events() == events


# ── damage ───────────────────────────────────────────────────────────────────────────────────


def test_flipped_bytes_are_found(folder, events):
    """Whichever byte of whichever file flips: an error of ours, or nothing that matters."""
    rng = np.random.default_rng(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for position in rng.integers(0, len(content), 300 if path.suffix == ".json" else 20):
            flip(path, position, bit=int(rng.integers(0, 8)))
            if path.name == "manifest.json":  # blanks and remarks of the manifest matter to nobody
                with contextlib.suppress(StoreError):
                    assert TokenStore.open(folder, verify=True).events() == events
            else:
                with pytest.raises(StoreError) as caught:
                    TokenStore.open(folder, verify=True)
                assert path.name in str(caught.value)
                assert "next:" in str(caught.value)
            path.write_bytes(content)


def test_twin_without_checksums_a_flipped_token_goes_unseen(folder, events, monkeypatch):
    flip(folder / "shard-00000" / "ids.bin", 6)
    monkeypatch.setattr(artifacts, "sha256_file", lambda path: claimed(folder, path))
    assert TokenStore.open(folder, verify=True).events() != events


def claimed(folder, path):
    """The checksum that the manifest claims: a check that always agrees."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest["files"][Path(path).relative_to(folder).as_posix()]["sha256"]


@pytest.mark.parametrize("change", ["truncate", "append", "remove", "empty"])
def test_files_of_another_size_are_found_at_once(folder, change):
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        copy = shutil.copytree(folder, folder.with_name("copy"))
        victim = copy / path.relative_to(folder)
        content = victim.read_bytes()
        if change == "remove":
            victim.unlink()
        else:
            victim.write_bytes(
                {"truncate": content[:-2], "append": content + b"\0", "empty": b""}[change]
            )
        with pytest.raises(StoreError) as caught:
            TokenStore.open(copy)
        assert victim.name in str(caught.value)
        assert "next:" in str(caught.value)
        shutil.rmtree(copy)


def test_arrays_that_disagree_are_found_at_once(folder):
    """A manifest that fits the files does not help where the files contradict each other."""
    shard = folder / "shard-00000"
    offsets = np.load(shard / "event_offsets.npy")
    offsets[-1] -= 1
    np.save(shard / "event_offsets.npy", offsets)
    with pytest.raises(StoreError, match="contradicts itself"):
        TokenStore.open(folder)


def test_the_twin_with_agreeing_ends_needs_verification(folder):
    shard = folder / "shard-00000"
    offsets = np.load(shard / "event_offsets.npy")
    offsets[1] += 1
    np.save(shard / "event_offsets.npy", offsets)
    TokenStore.open(folder)  # constant time cannot see it ...
    with pytest.raises(StoreError, match="checksum"):
        TokenStore.open(folder, verify=True)  # ... reading every byte does


def test_files_without_a_checksum_are_not_trusted(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["shard-00000/times.npy"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="nothing vouches for it"):
        TokenStore.open(folder)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no folder"):
        TokenStore.open(tmp_path / "nothing")
    with pytest.raises(StoreError, match="incomplete"):
        TokenStore.open(tmp_path)
    with staged_directory(tmp_path / "model") as staging:
        (staging / "weights.bin").write_bytes(b"1")
    with pytest.raises(StoreError, match="not a token store"):
        TokenStore.open(tmp_path / "model")


def test_a_newer_format_is_refused(tmp_path, events, monkeypatch):
    monkeypatch.setattr(store_module, "VERSION", 2)
    TokenStore.write(tmp_path / "store", events)
    monkeypatch.setattr(store_module, "VERSION", 1)
    with pytest.raises(StoreError, match="newer domainformer"):
        TokenStore.open(tmp_path / "store")


def test_events_are_the_public_type(folder):
    assert isinstance(TokenStore.open(folder).events(), TokenizedEvents)
