import builtins
import contextlib
import dataclasses
import datetime as dt
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from domainformer.data import store as store_module
from domainformer.data.store import TokenStore
from domainformer.errors import ArtifactError, DataError, FingerprintError, StoreError


@pytest.fixture
def events(make_events):
    return make_events(0)


@pytest.fixture
def folder(tmp_path, events):
    TokenStore.write(tmp_path / "store", events)
    return tmp_path / "store"


WRITER = """
import os, resource, signal, sys
import numpy as np, polars as pl
from domainformer.data.store import TokenizedEvents, TokenStore

def shard(index):
    return TokenizedEvents(
        ids=np.full(30_000, 9, np.uint8), event_offsets=np.array([0, 30_000]),
        entity_offsets=np.array([0, 1]), entity_ids=pl.Series([index]), times=np.array([0]),
        roles=None, tokenizer_fingerprint="f00d", vocab_size=32)

def shards():
    yield shard(0)
    {between}
    yield shard(1)

TokenStore.write(sys.argv[1], shards(), overwrite=True)
print("written")
"""


def run_writer(target, between):
    code = textwrap.dedent(WRITER).format(between=between)
    return subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("old", [False, True])
def test_a_killed_writer_leaves_the_old_or_nothing(tmp_path, events, old):
    target = tmp_path / "store"
    if old:
        TokenStore.write(target, events)
    result = run_writer(target, between="os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode == -signal.SIGKILL
    (remains,) = [path for path in tmp_path.iterdir() if "staging" in path.name]
    assert (remains / "shard-00000" / "ids.bin").exists()
    with pytest.raises(StoreError, match="incomplete"):
        TokenStore.open(remains)
    if old:
        assert TokenStore.open(target, verify=True).events() == events
    else:
        with pytest.raises(StoreError, match="no folder"):
            TokenStore.open(target)


def test_twin_the_writer_that_is_left_alone_finishes(tmp_path):
    result = run_writer(tmp_path / "store", between="pass")
    assert (result.returncode, result.stdout) == (0, "written\n"), result.stderr
    assert TokenStore.open(tmp_path / "store", verify=True).n_tokens == 60_000


def test_a_file_size_limit_is_an_error_that_leaves_nothing(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    result = run_writer(tmp_path / "store", between=limit)
    assert result.returncode == 1
    assert "StoreError" in result.stderr
    assert "could not be written" in result.stderr
    assert os.listdir(tmp_path) == []


FILES = ["ids.bin", "event_offsets.npy", "entity_ids.arrow", "roles.npy", "store.json"]


def on_a_full_disk(monkeypatch, victim):
    """Send one file to /dev/full, where the kernel itself says that no space is left."""
    opened = Path.open

    def divert(self, mode="r", *args, **kwargs):
        if "w" in mode and victim in self.name:
            return builtins.open("/dev/full", mode, *args, **kwargs)
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", divert)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("victim", [*FILES, "manifest.json"])
def test_a_full_disk_is_told_and_leaves_the_old(tmp_path, make_events, monkeypatch, victim):
    target = tmp_path / "store"
    old = make_events(1, entities=3)
    TokenStore.write(target, old)
    with monkeypatch.context() as patch:
        on_a_full_disk(patch, victim)
        with pytest.raises(StoreError, match="disk is full") as caught:
            TokenStore.write(target, make_events(0, entities=500), overwrite=True)
    assert "store" in str(caught.value)
    assert "free some space" in str(caught.value)
    assert os.listdir(tmp_path) == ["store"]
    assert TokenStore.open(target, verify=True).events() == old


def test_twin_a_writer_without_staging_destroys_the_old(tmp_path, make_events, monkeypatch):
    """The test above fails for a writer that writes in place: staging is what saves the store."""

    @contextlib.contextmanager
    def in_place(target, **_):
        shutil.rmtree(target)
        target.mkdir()
        yield target

    target = tmp_path / "store"
    TokenStore.write(target, make_events(1))
    monkeypatch.setattr(store_module, "staged_directory", in_place)
    on_a_full_disk(monkeypatch, "roles.npy")
    with pytest.raises(OSError, match="No space left") as caught:
        TokenStore.write(target, make_events(0, entities=500), overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(StoreError, match="incomplete"):
        TokenStore.open(target)


def test_an_existing_store_is_kept_unless_told(folder, events, make_events):
    with pytest.raises(StoreError, match="exists already"):
        TokenStore.write(folder, make_events(1))
    assert TokenStore.open(folder).events() == events


def test_an_entity_belongs_to_one_shard(tmp_path, events):
    with pytest.raises(DataError, match="'entity-2' occurs twice"):
        TokenStore.write(tmp_path / "store", [events, events.take_entities([2])])
    assert os.listdir(tmp_path) == []


def test_shards_of_different_tokenizers_are_refused(tmp_path, events, make_events):
    other = dataclasses.replace(make_events(1, first=7), tokenizer_fingerprint="beef")
    with pytest.raises(FingerprintError, match="different tokenizers"):
        TokenStore.write(tmp_path / "store", [events, other])
    assert os.listdir(tmp_path) == []


def test_nothing_to_store_is_an_error(tmp_path, events):
    for nothing in ([], [events.take_entities([])]):
        with pytest.raises(DataError, match="no events to store"):
            TokenStore.write(tmp_path / "store", nothing)
    with pytest.raises(DataError, match="shard 0 is no TokenizedEvents"):
        TokenStore.write(tmp_path / "store", ["events"])
    with pytest.raises(DataError, match="plain JSON"):
        TokenStore.write(tmp_path / "store", events, meta={"when": dt.date(2024, 1, 1)})
    assert os.listdir(tmp_path) == []


def test_inconsistent_events_are_not_written(tmp_path, events):
    broken = dataclasses.replace(events, ids=np.full_like(events.ids, 300))
    with pytest.raises(DataError, match="outside the vocabulary"):
        TokenStore.write(tmp_path / "store", broken)
    assert os.listdir(tmp_path) == []


def test_a_failing_source_is_not_blamed_on_the_disk(tmp_path, events):
    def shards():
        yield events
        raise FileNotFoundError("part-7.parquet")

    with pytest.raises(DataError, match="could not be read") as caught:
        TokenStore.write(tmp_path / "store", shards())
    assert "part-7.parquet" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_an_unwritable_place_is_told(tmp_path, events):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="could not be written"):
        TokenStore.write(tmp_path / "file" / "store", events)
