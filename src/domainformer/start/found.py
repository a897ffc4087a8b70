"""What a path holds: a table of events, or text; and what lies in a folder to begin with."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from domainformer.data.meds import SUBJECT, TIME, is_meds
from domainformer.data.readers import scan
from domainformer.data.text import Document, read_texts
from domainformer.errors import DataError, InputError

_TABLES = (
    *(".parquet", ".pq", ".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    *(".arrow", ".feather", ".ipc", ".arrows"),
)
# Tables in formats that are not read: as text they would make a language model of brackets.
_OTHER_TABLES = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".xls",
    ".xlsx",
    ".xml",
    ".db",
    ".sqlite",
)
# Texts that lie beside data and are none.
_NO_DATA = (
    "readme",
    "license",
    "licence",
    "changelog",
    "requirements",
    "constraints",
    "notice",
)


@dataclass(frozen=True)
class EventsFound:
    """A table of events.

    Args:
        path: As it was given.
        frame: All rows.
        meds: Whether it is a folder of the Medical Event Data Standard, whose columns are known.
        notes: What was left out or changed on reading.
    """

    path: str
    frame: pl.DataFrame
    meds: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"a table of {self.frame.height:,} rows and {self.frame.width} columns: "
            + ", ".join(self.frame.columns[:12])
            + (", …" if self.frame.width > 12 else "")
        )


@dataclass(frozen=True)
class TextFound:
    """Texts for a language model.

    Args:
        path: As it was given.
        documents: What the files hold.
    """

    path: str
    documents: tuple[Document, ...]

    @property
    def characters(self) -> int:
        """All characters together."""
        return sum(len(document.text) for document in self.documents)

    def __str__(self) -> str:
        files = "a text" if len(self.documents) == 1 else f"{len(self.documents):,} texts"
        return f"{files} of {self.characters:,} characters"


def look(path: str | Path) -> EventsFound | TextFound:
    """Read what a path holds.

    Tables are known by the endings of their files; any other file that is UTF-8 is text. A folder
    with tables is a table, else its ``.txt`` files are texts.

    Raises:
        DataError: Nothing is there, it cannot be read, or it is neither.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "note.txt"
        >>> _ = place.write_text("to be or not")
        >>> print(look(place))
        a text of 12 characters
    """
    name = str(path)
    if _is_table(name):
        meds = is_meds(name)
        frame, notes = scan(name).collect()
        if meds:
            frame = frame.filter(pl.col(SUBJECT).is_not_null())
        if not frame.height:
            raise DataError(f"{name} has no rows", next_step="give a table of events")
        return EventsFound(name, frame, meds, tuple(notes))
    if name.lower().endswith(_OTHER_TABLES):
        raise DataError(
            f"{name} is neither a table that can be read nor plain text",
            why=f"tables are {' '.join(_TABLES)}",
            next_step="convert it, for example with polars: pl.read_ndjson(…).write_parquet(…)",
        )
    return TextFound(name, tuple(read_texts(name)))


def candidates(folder: str | Path = ".") -> tuple[str, ...]:
    """Tables, texts and folders of them that lie in a folder: tables first, the largest first.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> for name in ("README.txt", "a.txt", "b.csv"):
        ...     _ = (place / name).write_text("x")
        >>> [Path(found).name for found in candidates(place)]
        ['b.csv', 'a.txt']
    """
    ranked: list[tuple[int, int, str]] = []
    for entry in sorted(Path(folder).iterdir()):
        if entry.name.startswith((".", "_")) or entry.stem.lower() in _NO_DATA:
            continue
        name = str(entry)
        if entry.is_file() and name.lower().endswith((*_TABLES, ".txt")):
            ranked.append((name.lower().endswith(".txt"), -entry.stat().st_size, name))
        elif entry.is_dir():
            files = [file for file in entry.glob("*") if file.is_file()]
            kinds = [_ranks(file.name) for file in files]
            if known := [kind for kind in kinds if kind is not None]:
                ranked.append((min(known), -sum(file.stat().st_size for file in files), name))
            elif is_meds(entry):
                ranked.append((0, 0, name))
    return tuple(name for _, _, name in sorted(ranked))


def _ranks(name: str) -> int | None:
    """Tables before texts; None for what is neither."""
    lower = name.lower()
    return 0 if lower.endswith(_TABLES) else 1 if lower.endswith(".txt") else None


def _is_table(name: str) -> bool:
    path = Path(name)
    if path.is_file():
        return name.lower().endswith(_TABLES)
    if path.is_dir():
        return is_meds(name) or _has_table(path.rglob("*"))
    if glob.has_magic(name):
        return _has_table(Path(found) for found in glob.glob(name, recursive=True))
    scan(name)  # tells that there is nothing, and what is near
    return True


def _has_table(files: Iterable[Path]) -> bool:
    return any(file.name.lower().endswith(_TABLES) for file in files)


def known_columns(found: EventsFound) -> dict[str, str]:
    """Columns whose meaning the format itself tells."""
    return {"entity": SUBJECT, "time": TIME} if found.meds else {}


def readable(path: str) -> EventsFound | TextFound:
    """:func:`look` for an answer: whatever cannot be read is an error of ours.

    Raises:
        InputError: It cannot be used.
    """
    try:
        return look(path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise DataError(f"{path!r} cannot be read", why=str(error)) from error
