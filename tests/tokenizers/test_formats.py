"""Every format that was ever written is read for ever: golden folders, by the code of their day.

`tests/assets/tokenizers/make.py` has written them, with what they encoded and decoded then.
"""

import json
import runpy
import shutil
from pathlib import Path

import pytest

from domainformer.errors import ArtifactError, FingerprintError
from domainformer.tokenizers import DomainTokenizer, hub

ASSETS = Path(__file__).parents[1] / "assets" / "tokenizers"
MAKE = runpy.run_path(str(ASSETS / "make.py"))
GOLDEN = sorted(path for path in ASSETS.glob("v*/*") if path.is_dir())


def version_of(folder):
    return json.loads((folder / hub.STATE_FILE).read_text(encoding="utf-8"))["version"]


def test_every_format_has_golden_folders():
    assert {version_of(folder) for folder in GOLDEN} == set(hub.READABLE)
    assert {folder.parent.name for folder in GOLDEN} == {f"v{n}" for n in hub.READABLE}


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_golden_folders_mean_what_they_meant(folder):
    tokenizer = DomainTokenizer.from_pretrained(folder)
    expected = json.loads((folder.parent / f"{folder.name}.json").read_text(encoding="utf-8"))
    table = MAKE["TABLES"][folder.name.partition("-")[0]]
    assert MAKE["expected"](tokenizer, table) == expected


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_golden_folders_are_written_anew_in_the_present_format(folder, tmp_path):
    tokenizer = DomainTokenizer.from_pretrained(folder)
    again = tokenizer.save_pretrained(tmp_path / "again")
    assert version_of(again) == hub.VERSION
    loaded = DomainTokenizer.from_pretrained(again)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.reference == tokenizer.reference


@pytest.mark.parametrize("name", ["cards", "visits"])
def test_a_fit_of_today_equals_the_golden_one(name):
    """Not only are old files read: the same data still give the same ids."""
    table = MAKE["TABLES"][name]
    fitted = DomainTokenizer(MAKE["SCHEMAS"][name], bpe_vocab_size=280).fit(table)
    for folder in (ASSETS / f"v{n}" / name for n in hub.READABLE):
        assert fitted.fingerprint == DomainTokenizer.from_pretrained(folder).fingerprint


def test_the_first_format_knew_neither_reference_nor_extensions():
    tokenizer = DomainTokenizer.from_pretrained(ASSETS / "v1" / "cards")
    assert tokenizer.reference is None
    assert tokenizer.lineage == ()


def altered(folder, target, change):
    shutil.copytree(folder, target)
    path = target / hub.STATE_FILE
    state = json.loads(path.read_text(encoding="utf-8"))
    change(state)
    path.write_text(json.dumps(state), encoding="utf-8")
    return target


def test_a_newer_format_is_refused_with_the_remedy(tmp_path):
    newer = altered(
        ASSETS / "v1" / "cards",
        tmp_path / "newer",
        lambda state: state.update(version=99, domainformer="9.1"),
    )
    with pytest.raises(ArtifactError, match="version 99") as caught:
        hub.read_files(newer)
    assert "use domainformer 9.1" in caught.value.next_step


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(growths=[{"parent": "x", "fields": [9], "pieces": 0}]),
        lambda state: state["fields"][0]["state"].update(added=["slipped in"]),
    ],
    ids=["growth of other fields", "value without growth"],
)
def test_a_record_of_extensions_that_does_not_fit_is_found(tmp_path, change):
    folder = altered(ASSETS / "v2" / "cards", tmp_path / "mixed", change)
    with pytest.raises((ArtifactError, FingerprintError)) as caught:
        hub.read_files(folder)
    assert caught.value.next_step


@pytest.mark.parametrize("missing", ["growths", "reference"])
def test_a_present_format_without_its_parts_is_unreadable(tmp_path, missing):
    folder = altered(ASSETS / "v2" / "cards", tmp_path / "cut", lambda state: state.pop(missing))
    with pytest.raises(ArtifactError, match="cannot be read"):
        hub.read_files(folder)
