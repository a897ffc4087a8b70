"""Real pools, a real Ray and a real local Spark give the bytes that one process gives."""

import contextlib
import logging
import os

import polars as pl
import pytest

from domainformer.distributed import fit_files, tokenize_files
from domainformer.distributed.engines import ENGINES, connect
from domainformer.errors import DataError

from .conftest import KEYS, SCHEMA, digests, write_files

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("many_units"),
    # Ray and Spark leave sockets and files to the collector, and use what Python will drop.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pyspark"),
    pytest.mark.filterwarnings("ignore::FutureWarning:pyspark"),
]
CUTS = {"validation_from": "2024-06-01", "test_from": "2024-09-01"}


@pytest.fixture(scope="module")
def shared():
    """Engines that are connected already, as a notebook or a cluster has them: started once."""
    open_engines = contextlib.ExitStack()
    started = set()

    def start(name):
        if name not in started:
            started.add(name)
            open_engines.enter_context(connect(name, 2))

    with open_engines:
        yield start


@pytest.mark.parametrize("name", ENGINES)
def test_engines_give_the_same_bytes(name, tmp_path, files, tokenizer):
    if name != "local":
        pytest.importorskip({"ray": "ray", "spark": "pyspark"}[name])
    logging.getLogger("ray").setLevel(logging.ERROR)
    alone = digests(tokenize_files(files, tokenizer, tmp_path / "alone", **KEYS, **CUTS).path)
    before = dict(os.environ)
    told = []
    store = tokenize_files(
        files,
        tokenizer,
        tmp_path / "store",
        **KEYS,
        **CUTS,
        engine=name,
        workers=2,
        progress=told.append,
    )
    assert digests(store.path) == alone
    assert {p.stage: (p.done, p.total) for p in told}["encode"] == (8, 8)
    changed = {key for key in os.environ | before if os.environ.get(key) != before.get(key)}
    assert not {key for key in changed if key.startswith(("PYSPARK", "OMP", "POLARS"))}


@pytest.mark.parametrize("name", ENGINES)
def test_engines_fit_the_same_tokenizer(name, tmp_path, files, tokenizer, shared):
    if name != "local":
        pytest.importorskip({"ray": "ray", "spark": "pyspark"}[name])
    shared(name)
    fitted = fit_files(files, SCHEMA, **KEYS, bpe_vocab_size=300, engine=name, workers=2)
    saved = fitted.save_pretrained(tmp_path / "a")
    assert digests(saved) == digests(tokenizer.save_pretrained(tmp_path / "b"))


@pytest.mark.parametrize("name", ENGINES)
def test_errors_of_workers_arrive_as_they_were(name, tmp_path, frame, tokenizer, shared):
    if name != "local":
        pytest.importorskip({"ray": "ray", "spark": "pyspark"}[name])
    shared(name)
    bad = frame.with_columns(pl.col("at").cast(pl.String)).with_columns(
        pl.when(pl.int_range(pl.len()) == 2_000)
        .then(pl.lit("05/04/2024"))
        .otherwise("at")
        .alias("at")
    )
    folder = write_files(bad, tmp_path / "in", 2)
    with pytest.raises(DataError, match=r"part-001\.parquet, row 501"):
        tokenize_files(folder, tokenizer, tmp_path / "s", **KEYS, engine=name, workers=2)
    assert not (tmp_path / "s").exists()
