"""Text files to documents: read, normalise, split into training and validation.

::

    files ─read_texts─▶ documents ─normalise─▶ ASCII text + report ─split_text─▶ train, validation

Policies and :func:`normalise` are in ``text_policy.py``.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from domainformer.data.text_policy import Policy, TextReport, Unknown, normalise
from domainformer.errors import ConfigError, DataError, nearest

SplitBy = Literal["position", "document"]


class Document(NamedTuple):
    """A text with a name.

    Args:
        name: The file it came from, relative to the folder that was read.
        text: Its characters.
        start: Place of the first of them in the file, after normalisation.
    """

    name: str
    text: str
    start: int = 0


def normalise_documents(
    documents: Iterable[Document],
    policy: Policy = "printable+newline+tab",
    unknown: Unknown = "error",
) -> tuple[list[Document], TextReport]:
    """Normalise all documents; the report adds up what was changed in them.

    Raises:
        DataError: As :func:`normalise`; the document is named.
        ConfigError: As there.
    """
    done, total = [], TextReport()
    for document in documents:
        text, report = normalise(document.text, policy, unknown, name=document.name)
        done.append(document._replace(text=text))
        total += report
    return done, total


def read_texts(source: str | Path) -> list[Document]:
    """Read a file, all files that match a pattern, or all ``.txt`` files below a folder.

    Files are UTF-8, with or without a byte order mark. Documents come in the order of their
    names, and characters as they are in the file: :func:`normalise` changes them.

    Args:
        source: A path, or a pattern such as ``books/**/*.txt``. What is hidden (a leading dot)
            is left out, below a folder and by patterns.

    Raises:
        DataError: Nothing is there, or a file is empty, unreadable or not UTF-8.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "b.txt").write_text("second"), (folder / "a.txt").write_text("first")
        >>> [(document.name, document.text) for document in read_texts(folder)]
        [('a.txt', 'first'), ('b.txt', 'second')]
    """
    return [_read(path, name) for path, name in text_files(source)]


def text_files(source: str | Path) -> list[tuple[Path, str]]:
    """The files that :func:`read_texts` reads, with their names, in its order.

    Raises:
        DataError: Nothing is there.
    """
    path = Path(source)
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # too long for a name, as a text mostly is
        raise DataError(
            f"there is no file or folder {str(source)[:40]!r}…",
            why=str(error)[:60],
            next_step="give the text itself in a list: [text]",
        ) from error
    if is_file:
        return [(path, path.name)]
    if path.is_dir():
        base, pattern = path, "**/*.txt"
    elif glob.has_magic(str(source)):
        fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        base, pattern = Path(*path.parts[:fixed]), str(Path(*path.parts[fixed:]))
    else:
        raise DataError(f"there is no file or folder {source}", next_step="check the path")
    names = sorted(
        Path(name).as_posix()
        for name in glob.glob(pattern, root_dir=base, recursive=True)
        if (base / name).is_file()
    )
    if not names:
        raise DataError(
            f"no text was found in {source}",
            why=f"no file matches {pattern}",
            next_step="give a file, a folder of .txt files, or a pattern such as 'books/*.md'",
        )
    return [(base / name, name) for name in names]


def split_text(
    documents: Sequence[Document],
    by: SplitBy = "position",
    fraction: float = 0.1,
    seed: int = 0,
) -> tuple[list[Document], list[Document]]:
    """Training and validation documents.

    ::

        position   each document is cut:    ███████████████████▒▒   validation: from int((1-f)·n) on
        document   whole documents:         ████ ▒▒▒ █████ ████     drawn by the seed

    Args:
        documents: At least one; at least two different ones for ``document``.
        by: How to split. By document, documents with equal text stay on one side.
        fraction: Share of the validation: of the characters, or of the documents (at least one
            on each side), in (0, 1).
        seed: Of the draw of documents; of no effect by position.

    Raises:
        ConfigError: No such split, or a fraction out of range.
        DataError: There is nothing to split, or one side would be empty.

    Example:
        >>> split_text([Document("poem", "to be or not to be")], fraction=0.5)
        ([Document(name='poem', text='to be or ', start=0)],
         [Document(name='poem', text='not to be', start=9)])
    """
    if by not in get_args(SplitBy):
        raise ConfigError(f"there is no split by {by!r}", next_step=nearest(by, get_args(SplitBy)))
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction must lie between 0 and 1, but is {fraction}")
    if not documents:
        raise DataError("there are no documents to split", next_step="check what was read")
    if by == "document":
        return _split_by_document(documents, fraction, seed)
    train, validation = [], []
    for name, text, start in documents:
        cut = int((1 - fraction) * len(text) + 1e-9)  # (1 - 0.9) · 10 is 0.999…
        if not 0 < cut < len(text):
            raise DataError(
                f"{name} is too short to be split by position",
                why=f"it has {len(text)} characters",
                next_step="split by document, or leave it out",
            )
        train.append(Document(name, text[:cut], start))
        validation.append(Document(name, text[cut:], start + cut))
    return train, validation


def text_fingerprint(documents: Iterable[Document]) -> str:
    """A short name (16 hexadecimal digits) of the texts, their bounds and their order.

    Example:
        >>> one = text_fingerprint([Document("a", "xy"), Document("b", "z")])
        >>> one == text_fingerprint([Document("c", "xy"), Document("d", "z")])
        True
        >>> one == text_fingerprint([Document("a", "x"), Document("b", "yz")])
        False
    """
    digest = hashlib.sha256()
    for document in documents:
        encoded = document.text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()[:16]


def _split_by_document(
    documents: Sequence[Document], fraction: float, seed: int
) -> tuple[list[Document], list[Document]]:
    """Draw distinct texts, so that a copy of a training text is never validated on."""
    distinct = list(dict.fromkeys(document.text for document in documents))
    if len(distinct) < 2:
        raise DataError(
            "documents cannot be split",
            why=f"of {len(documents)} there {'is' if len(documents) == 1 else 'are'} "
            f"{len(distinct)} distinct",
            next_step="split by position",
        )
    wanted = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    drawn = np.random.default_rng(seed).permutation(len(distinct))[:wanted]
    held = {distinct[index] for index in drawn.tolist()}
    return (
        [document for document in documents if document.text not in held],
        [document for document in documents if document.text in held],
    )


def _read(path: Path, name: str) -> Document:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read", why=str(error), next_step="check it") from error
    except UnicodeDecodeError as error:
        # Counted from the end: a byte order mark is not part of what the error quotes.
        byte = len(data) - len(error.object) + error.start
        line = data.count(b"\n", 0, byte) + 1
        raise not_utf8(path, error, line=line, byte=byte + 1) from error
    if not text:
        raise DataError(f"{path} is empty", next_step="remove it, or give another file")
    return Document(name, text)


def not_utf8(path: Path, error: UnicodeDecodeError, *, line: int, byte: int) -> DataError:
    """The error of a file that is not UTF-8.

    Args:
        path: The file.
        error: Its ``start`` is the place in its own ``object``.
        line: Of the first byte that is wrong, from 1 on.
        byte: Its number in the file, from 1 on.
    """
    return DataError(
        f"{path} is not UTF-8",
        where=f"line {line}, byte {byte:,} of the file",
        why=f"{error.reason}: 0x{error.object[error.start]:02x}",
        next_step="convert it, for example with iconv -f latin1 -t utf-8",
    )
