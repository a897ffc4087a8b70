"""Small tables in several files, a fitted tokenizer, and stores compared byte by byte."""

import hashlib

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.distributed import stages, tasks
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "shop",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("amount", "numerical_continuous"),
        FieldSpec("at", "temporal", elapsed_bins=8),
        FieldSpec("note", "text"),
    ],
)
KEYS = {"entity": "who", "time": "at"}


def make_frame(seed=0, n=3_000, entities=120):
    rng = np.random.default_rng(seed)
    at = np.datetime64("2024-01-01", "us") + rng.integers(0, 9_000, n) * np.timedelta64(3_600, "s")
    return pl.DataFrame(
        {
            "who": [
                None if u < 0.01 else f"client {int(120 * u**2) % entities}" for u in rng.random(n)
            ],
            "at": pl.Series(at).set(pl.Series(rng.random(n) < 0.02), None),
            "kind": rng.choice(["tea", "cake", "[PAD]", None], n),
            "amount": np.where(rng.random(n) < 0.05, np.nan, rng.lognormal(2, 1, n)),
            "note": [f"order {i % 97} of {i % 11}" for i in rng.integers(0, 10**6, n)],
        }
    )


def write_files(frame, folder, count, *, group=200):
    """The rows of a frame in some files, in their order."""
    folder.mkdir(parents=True)
    size = -(-frame.height // count)
    for i in range(count):
        part = frame.slice(i * size, size)
        part.write_parquet(folder / f"part-{i:03d}.parquet", row_group_size=group)
    return folder


def digests(folder):
    """The content of every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def frame():
    return make_frame()


@pytest.fixture(scope="session")
def oracle(frame):
    return EventTable.of(frame, **KEYS)


@pytest.fixture(scope="session")
def tokenizer(oracle):
    return DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(oracle)


@pytest.fixture(scope="session")
def files(frame, tmp_path_factory):
    return write_files(frame, tmp_path_factory.mktemp("files") / "in", 3)


@pytest.fixture
def many_units(monkeypatch):
    """Cut small tables as large ones are cut: several portions, runs, shards and batches."""
    monkeypatch.setattr(stages.EventFiles, "portions", _small(stages.EventFiles.portions))
    monkeypatch.setattr(stages, "shard_count", lambda size, memory: 8)
    monkeypatch.setattr(tasks, "BATCH_EVENTS", 100)


def _small(portions):
    def cut(self, rows=700, *, whole_entities=False):
        return portions(self, rows, whole_entities=whole_entities)

    return cut
