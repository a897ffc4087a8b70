"""Stopped jobs go on where they stopped; jobs on something else are refused."""

import errno
import os
import subprocess
import sys

import pytest

from domainformer.data import EventTable
from domainformer.distributed import fit_files, stages, tasks, tokenize_files
from domainformer.errors import ArtifactError, StoreError, TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

from .conftest import KEYS, SCHEMA, digests, make_frame, write_files

pytestmark = pytest.mark.usefixtures("many_units")


class Stopped(Exception):
    pass


def stop_at(stage, done):
    def progress(report):
        if report.stage == stage and report.done == done:
            raise Stopped

    return progress


@pytest.mark.parametrize(("stage", "done"), [("group", 2), ("encode", 3), ("assemble", 0)])
def test_a_stopped_job_goes_on(tmp_path, files, tokenizer, stage, done):
    expected = digests(tokenize_files(files, tokenizer, tmp_path / "whole", **KEYS).path)
    with pytest.raises(Stopped):
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, progress=stop_at(stage, done))
    assert not (tmp_path / "s").exists()
    told = []
    store = tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, progress=told.append)
    assert digests(store.path) == expected
    first = {p.stage: p for p in reversed(told)}
    assert first[stage].done == done
    assert not (tmp_path / "s.partial").exists()


KILLED = """
import sys, time
from domainformer.distributed import stages, tokenize_files
stages.shard_count = lambda size, memory: 64
def slow(report):
    if report.stage == "encode" and report.done == 5:
        print("now", flush=True)
        time.sleep(600)
tokenize_files(*sys.argv[1:], entity="who", time="at", progress=slow)
"""


def kill_in_the_middle(files, folder, output):
    command = [sys.executable, "-c", KILLED, str(files), str(folder), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"now\n"
        process.kill()
    assert not output.exists()


def test_a_killed_process_leaves_work_to_go_on_with(tmp_path, files, tokenizer, monkeypatch):
    """A real kill, in the middle of a stage."""
    monkeypatch.undo()  # units as that process cuts them
    monkeypatch.setattr(stages, "shard_count", lambda size, memory: 64)
    folder = tokenizer.save_pretrained(tmp_path / "tokenizer")
    kill_in_the_middle(files, folder, tmp_path / "s")
    told = []
    store = tokenize_files(files, folder, tmp_path / "s", **KEYS, progress=told.append)
    assert next(p for p in told if p.stage == "encode").done == 5
    expected = tokenize_files(files, folder, tmp_path / "whole", **KEYS)
    assert digests(store.path) == digests(expected.path)


def test_work_that_was_cut_otherwise_is_refused(tmp_path, files, tokenizer):
    """Units of one cut among those of another would be events that occur twice."""
    folder = tokenizer.save_pretrained(tmp_path / "tokenizer")
    kill_in_the_middle(files, folder, tmp_path / "s")
    with pytest.raises(StoreError, match="cut into units"):
        tokenize_files(files, folder, tmp_path / "s", **KEYS)


def test_a_stopped_fit_goes_on(tmp_path, files, tokenizer):
    options = {**KEYS, "bpe_vocab_size": 300, "work": tmp_path / "work"}
    with pytest.raises(Stopped):
        fit_files(files, SCHEMA, **options, progress=stop_at("fit", 3))
    told = []
    fitted = fit_files(files, SCHEMA, **options, progress=told.append)
    assert next(p for p in told if p.stage == "fit").done == 3
    assert fitted.fingerprint == tokenizer.fingerprint


def stopped(files, tokenizer, path, **options):
    with pytest.raises(Stopped):
        tokenize_files(files, tokenizer, path, **KEYS, progress=stop_at("encode", 3), **options)


def test_another_tokenizer_files_or_options_are_refused(tmp_path, frame, tokenizer):
    files = write_files(frame, tmp_path / "in", 3)
    stopped(files, tokenizer, tmp_path / "s")
    other = DomainTokenizer(SCHEMA, bpe_vocab_size=280).fit(EventTable.of(make_frame(9), **KEYS))
    with pytest.raises(StoreError, match="changed since: the tokenizer"):
        tokenize_files(files, other, tmp_path / "s", **KEYS)
    with pytest.raises(StoreError, match="memory="):
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, memory="1GB")
    with pytest.raises(StoreError, match="the cuts"):
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, test_from="2024-06-01")
    frame.with_columns(amount=0.0)[:1000].write_parquet(files / "part-000.parquet")
    with pytest.raises(StoreError, match="the input files") as caught:
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS)
    assert "resume=False" in str(caught.value)
    fresh = tokenize_files(files, tokenizer, tmp_path / "fresh", **KEYS)
    again = tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, resume=False)
    assert digests(again.path) == digests(fresh.path)


def test_without_the_check_a_changed_file_would_be_mixed_in(
    tmp_path, frame, tokenizer, monkeypatch
):
    """The sabotage twin: what the refusal prevents does happen without it."""
    files = write_files(frame, tmp_path / "in", 3)
    stopped(files, tokenizer, tmp_path / "s")
    frame.with_columns(amount=0.0)[:1000].write_parquet(files / "part-000.parquet")
    fresh = tokenize_files(files, tokenizer, tmp_path / "fresh", **KEYS)
    monkeypatch.setattr(tasks.WorkFolder, "begin", lambda self, stage, identity: None)
    mixed = tokenize_files(files, tokenizer, tmp_path / "s", **KEYS)
    assert digests(mixed.path) != digests(fresh.path)


def test_files_that_are_gone_are_made_again(tmp_path, files, tokenizer):
    expected = digests(tokenize_files(files, tokenizer, tmp_path / "whole", **KEYS).path)
    stopped(files, tokenizer, tmp_path / "s")
    work = tmp_path / "s.partial"
    next(work.glob("shards/shard-*/ids.bin")).unlink()
    run = sorted(work.glob("runs/*.arrow"))[1]
    run.write_bytes(run.read_bytes()[:-100])
    told = []
    store = tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, progress=told.append)
    assert digests(store.path) == expected
    first = {p.stage: p for p in reversed(told)}
    assert (first["group"].done, first["encode"].done) == (first["group"].total - 1, 2)


@pytest.mark.parametrize("stage", ["group", "encode"])
def test_a_full_disk_leaves_no_store_and_can_be_gone_on_with(
    tmp_path, files, tokenizer, monkeypatch, stage
):
    name = {"group": "write_runs", "encode": "write_shard"}[stage]
    real, calls = getattr(tasks, name), []

    def full(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    monkeypatch.setattr(tasks, name, full)
    with pytest.raises(ArtifactError, match="the disk is full") as caught:
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS)
    assert "goes on where it stopped" in str(caught.value)
    assert not (tmp_path / "s").exists()
    told = []
    tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, progress=told.append)
    assert next(p for p in told if p.stage == stage).done == 2


def test_a_worker_that_dies_is_told(tmp_path, files, tokenizer, monkeypatch):
    from domainformer.distributed import local

    def died(self, *args):
        raise local.BrokenProcessPool("gone")

    monkeypatch.setattr(local.ProcessPoolExecutor, "submit", died)
    with pytest.raises(ArtifactError, match="worker process died"):
        tokenize_files(files, tokenizer, tmp_path / "s", **KEYS, workers=2)


def test_an_earlier_attempt_on_something_else_does_not_stand_in_the_way(tmp_path, frame, files):
    """Seemingly sorted files were grouped after all; what is left of both ways must not clash."""
    ordered = frame.filter(frame["who"].is_not_null()).sort("who")
    (tmp_path / "in").mkdir()
    half = ordered["who"][ordered.height // 2]
    for name, part in (("a", ordered["who"] < half), ("b", ordered["who"] >= half)):
        ordered.filter(part).reverse().write_parquet(tmp_path / "in" / f"{name}.parquet")

    def job(**options):
        return fit_files(tmp_path / "in", SCHEMA, **KEYS, work=tmp_path / "w", **options)

    seen = []

    def stop_in_the_grouped_fit(report):
        seen.append(report.stage)
        if "group" in seen and report.stage == "fit" and report.done == 1:
            raise Stopped

    with pytest.raises(Stopped):
        job(progress=stop_in_the_grouped_fit)
    assert job().fingerprint == fit_files(tmp_path / "in", SCHEMA, **KEYS).fingerprint


def test_options_that_cannot_end_well_cost_no_work(tmp_path, files):
    with pytest.raises(TokenizerError, match="too small"):
        fit_files(files, SCHEMA, **KEYS, bpe_vocab_size=10, work=tmp_path / "w")
    semantic = [FieldSpec("kind", "categorical_entity", semantic_levels=2)]
    with pytest.raises(TokenizerError, match="cannot be fitted on names alone"):
        fit_files(files, DomainSchema("shop", semantic), **KEYS, work=tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_a_folder_that_was_renamed_is_another_input(tmp_path, frame, tokenizer):
    part = tmp_path / "in" / "kind=tea"
    write_files(frame.drop("kind"), part, 1)
    stopped(tmp_path / "in", tokenizer, tmp_path / "s")
    part.rename(tmp_path / "in" / "kind=cake")
    with pytest.raises(StoreError, match="input files"):
        tokenize_files(tmp_path / "in", tokenizer, tmp_path / "s", **KEYS)


ORPHANS = """
import os, sys, time
from domainformer.distributed import local
class Sleep:
    def __call__(self, unit):
        print(os.getpid(), flush=True)
        time.sleep(600)
if __name__ == "__main__":
    with local.connected(2) as run:
        list(run(Sleep(), [0]))
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(ORPHANS)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as process:
        worker = int(process.stdout.readline())
        process.kill()
        # The worker holds the other end of the pipe: it closes when the worker is gone.
        assert process.stdout.read() == b"", worker
