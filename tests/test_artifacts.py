import errno
import os

import pytest

from domainformer.artifacts import (
    read_manifest,
    sha256_file,
    staged_directory,
    verify_directory,
    write_json,
)
from domainformer.errors import ArtifactError


def make(folder, text="one", **options):
    with staged_directory(folder, **options) as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "a.txt").write_text(text)
    return folder


def test_whole_folder_appears_with_checksums(tmp_path):
    folder = make(tmp_path / "store", meta={"kind": "test"})
    manifest = verify_directory(folder)
    assert manifest["meta"] == {"kind": "test"}
    assert manifest["files"]["sub/a.txt"]["sha256"] == sha256_file(folder / "sub" / "a.txt")
    assert os.listdir(tmp_path) == ["store"]


def test_an_error_leaves_nothing_and_keeps_the_old(tmp_path):
    folder = make(tmp_path / "store", "old")
    with pytest.raises(KeyboardInterrupt), staged_directory(folder, overwrite=True) as staging:
        (staging / "a.txt").write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["store"]
    assert (folder / "sub" / "a.txt").read_text() == "old"


def test_existing_target_is_refused_unless_overwritten(tmp_path):
    folder = make(tmp_path / "store", "old")
    with pytest.raises(ArtifactError, match="exists already"):
        make(folder, "new")
    make(folder, "new", overwrite=True)
    assert (folder / "sub" / "a.txt").read_text() == "new"


def test_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("domainformer.artifacts.fsync_path", full)
    with pytest.raises(ArtifactError, match="disk is full"):
        make(tmp_path / "store")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no manifest"])
def test_damage_is_found(tmp_path, damage):
    folder = make(tmp_path / "store", "some content")
    path = folder / "sub" / "a.txt"
    if damage == "flip":
        path.write_text("some c0ntent")
        verify_directory(folder, checksums=False)  # the twin: sizes alone cannot see this
    elif damage == "truncate":
        path.write_text("some")
    elif damage == "remove":
        path.unlink()
    else:
        (folder / "manifest.json").unlink()
        with pytest.raises(ArtifactError, match="incomplete"):
            read_manifest(folder)
    with pytest.raises(ArtifactError):
        verify_directory(folder)


def test_write_json_replaces_atomically(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    write_json(path, {"é": 2})
    assert path.read_text() == '{\n  "é": 2\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]
