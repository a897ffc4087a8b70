import os
import subprocess
import sys

import polars as pl
import pytest

from domainformer.distributed import fit_files
from domainformer.errors import DataError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

from .conftest import KEYS, SCHEMA, digests, write_files

pytestmark = pytest.mark.usefixtures("many_units")
PLAIN = DomainSchema("plain", [spec for spec in SCHEMA.fields if not spec.elapsed_bins])
BPE = {"bpe_vocab_size": 300}


def saved(tokenizer, folder):
    return digests(tokenizer.save_pretrained(folder))


@pytest.mark.parametrize("schema", [SCHEMA, PLAIN], ids=["elapsed", "plain"])
@pytest.mark.parametrize("order", ["as it is", "shuffled", "sorted", "sorted by entity alone"])
def test_any_order_fits_as_the_whole_table_does(tmp_path, frame, oracle, schema, order):
    if order == "shuffled":
        frame = frame.sample(fraction=1, shuffle=True, seed=1)
    elif order != "as it is":
        frame = frame.filter(pl.col("who").is_not_null())
        frame = frame.sort("who", "at") if order == "sorted" else frame.sort("who")
    told = []
    folder = write_files(frame, tmp_path / "in", 4, group=101)
    fitted = fit_files(folder, schema, **KEYS, **BPE, progress=told.append)
    expected = DomainTokenizer(schema, **BPE).fit(oracle)
    assert saved(fitted, tmp_path / "a") == saved(expected, tmp_path / "b")
    # Grouping is the stage that sorted files, or a schema without elapsed times, do without.
    grouped = schema is SCHEMA and "sorted" not in order
    assert any(p.stage == "group" for p in told) == grouped


def test_files_that_only_seem_sorted_are_grouped(tmp_path, oracle, frame):
    frame = frame.filter(pl.col("who").is_not_null()).sort("who")
    half = frame.height // 2
    # One row group a file: the bounds of the footers fit, the rows within are out of order.
    shuffled = pl.concat([frame[:half].reverse(), frame[half:].reverse()])
    cut = frame["who"][half]
    parts = [shuffled.filter(pl.col("who") < cut), shuffled.filter(pl.col("who") >= cut)]
    (tmp_path / "in").mkdir()
    for i, part in enumerate(parts):
        part.write_parquet(tmp_path / "in" / f"{i}.parquet")
    told = []
    fitted = fit_files(tmp_path / "in", SCHEMA, **KEYS, **BPE, progress=told.append)
    assert [p.stage for p in told].count("group") > 0
    assert fitted.fingerprint == DomainTokenizer(SCHEMA, **BPE).fit(oracle).fingerprint


def test_only_events_before_the_cut_are_seen(tmp_path, files, oracle):
    from domainformer.data import split_by_time

    split = split_by_time(oracle, validation_from="2024-06-01", test_from="2024-09-01")
    for schema in (SCHEMA, PLAIN):
        fitted = fit_files(files, schema, **KEYS, **BPE, before="2024-06-01")
        expected = DomainTokenizer(schema, **BPE).fit(split.events(oracle, "train"))
        assert fitted.fingerprint == expected.fingerprint
    with pytest.raises(DataError, match="no events"):
        known = pl.read_parquet(files).filter(pl.col("at").is_not_null())
        fit_files(write_files(known, tmp_path / "in", 1), SCHEMA, **KEYS, before="1999-01-01")


def test_many_categories_take_a_second_pass(tmp_path, monkeypatch, files, frame, oracle):
    schema = DomainSchema("s", [FieldSpec("note", "categorical_fixed", vocab_size=40)])
    from domainformer.tokenizers.fitting import FitStatistics

    def small(schema, **options):
        return FitStatistics(schema, most_distinct=60)

    from domainformer.distributed import tasks

    small.from_bytes = FitStatistics.from_bytes
    monkeypatch.setattr(tasks, "FitStatistics", small)
    told = []
    fitted = fit_files(files, schema, **KEYS, progress=told.append)
    assert {p.stage for p in told} == {"fit", "recount"}
    whole = FitStatistics(schema, most_distinct=60).update(oracle)
    whole.adopt(whole.recounting().update(oracle))
    expected = DomainTokenizer.from_statistics(schema, whole, bpe_vocab_size=4096)
    assert fitted.fingerprint == expected.fingerprint


def test_another_hash_seed_gives_the_same_tokenizer(tmp_path, files, oracle):
    code = (
        "import sys; from domainformer.distributed import fit_files;"
        "from domainformer.schema import DomainSchema;"
        "print(fit_files(sys.argv[1], DomainSchema.from_yaml(sys.argv[2]), entity='who',"
        "time='at', bpe_vocab_size=300).fingerprint)"
    )
    (tmp_path / "schema.yaml").write_text(SCHEMA.to_yaml())
    command = [sys.executable, "-c", code, str(files), str(tmp_path / "schema.yaml")]
    expected = DomainTokenizer(SCHEMA, **BPE).fit(oracle).fingerprint
    out = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert out.stdout.strip() == expected


def test_fit_and_tokenize_group_once_in_one_folder(tmp_path, files, tokenizer, monkeypatch):
    from domainformer.distributed import tokenize_files

    work = tmp_path / "work"
    fitted = fit_files(files, SCHEMA, **KEYS, **BPE, work=work)
    told = []
    tokenize_files(files, fitted, tmp_path / "s", **KEYS, work=work, progress=told.append)
    first = next(p for p in told if p.stage == "group")
    assert first.done == first.total
