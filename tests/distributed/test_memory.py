"""Peak memory does not grow with the number of events; reading the table whole does."""

import subprocess
import sys

import polars as pl
import pytest

from .conftest import make_frame

CODE = """
import sys
from pathlib import Path
from domainformer.data import EventTable
from domainformer.distributed import fit_files, tokenize_files
from domainformer.tokenizers import DomainTokenizer
source, tokenizer, output, how = sys.argv[1:]
keys = {"entity": "who", "time": "at"}
if how == "whole":
    table = EventTable.read(source, **keys)
    DomainTokenizer.from_pretrained(tokenizer).encode_to_store(table, output)
else:
    tokenize_files(source, tokenizer, output, **keys, memory="32MB")
print(next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) // 1024)
"""
SMALL, LARGE = 4, 24  # times 25,000 events


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    paths = []
    for count in (SMALL, LARGE):
        place = folder / str(count)
        place.mkdir()
        paths.append(place)
        frame = make_frame(1, n=25_000)
        for index in range(count):
            # Other clients in every second file; text of some length that rarely repeats.
            part = frame.with_columns(
                pl.format("{} of {}", "who", pl.lit(index // 2)).alias("who"),
                pl.format("{} {} {}", "note", pl.int_range(pl.len()) % 4096, "who").alias("note"),
            )
            part.write_parquet(place / f"{index:03d}.parquet", row_group_size=8_192)
    return paths


def peaks(tables, tmp_path, tokenizer, how):
    folder = tokenizer.save_pretrained(tmp_path / "tokenizer")
    found = []
    for table in tables:
        output = tmp_path / f"{how}-{table.name}"
        command = [sys.executable, "-c", CODE, str(table), str(folder), str(output), how]
        found.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    return found


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(tables, tmp_path, tokenizer):
    small, large = peaks(tables, tmp_path, tokenizer, "files")
    assert large - small < 24, (small, large)


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_whole_table_would_not_stay_flat(tables, tmp_path, tokenizer):
    """The sabotage twin: the measure does see a table that is held whole."""
    small, large = peaks(tables, tmp_path, tokenizer, "whole")
    assert large - small > 48, (small, large)
