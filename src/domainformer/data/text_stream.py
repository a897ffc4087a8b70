"""Text files in parts of bounded size, for readers that need no document as a whole.

::

    ……the quick brown│ fox……        a part ends where one blank or line end stands between words
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from domainformer.data.text import Document, not_utf8, text_files
from domainformer.errors import DataError

_PART = 1 << 20
# Before a single blank, or behind a single line end, between two words.
_CUT = re.compile(r"\S(?= \S)|\S\n(?=\S)")
_LOOK_BACK = 1 << 10


def stream_texts(source: str | Path, *, part: int = _PART) -> Iterator[Document]:
    """Read files as :func:`read_texts` does, but in parts; a file may be larger than the memory.

    Args:
        source: A path, a folder, or a pattern; as there.
        part: Bytes that are read at a time. Parts are about as long, and longer where no place to
            cut is found.

    Yields:
        Parts: the name of the file, text, and the place of its first character in the file.

    Raises:
        DataError: As :func:`read_texts`, when the file's turn comes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("to be or not")
        >>> [(document.text, document.start) for document in stream_texts(path, part=7)]
        [('to be', 0), (' or', 5), (' not', 8)]
    """
    for path, name in text_files(source):
        yield from _parts(path, name, part)


def last_cut(text: str, start: int = 0, end: int | None = None) -> int | None:
    """The last place up to ``end`` where a text can be cut between words; None without one.

    Example:
        >>> last_cut("to be or not"), last_cut("to  be")
        (8, None)
    """
    # The pattern looks one character past the cut, so that what follows `end` decides, too.
    end = len(text) if end is None else min(end + 2, len(text))
    begin = max(start, end - _LOOK_BACK)
    while True:
        found = [match.end() for match in _CUT.finditer(text, begin, end)]
        if found:
            return found[-1]
        if begin == start:
            return None
        begin, end = max(start, begin - 16 * _LOOK_BACK), begin + 3


def _parts(path: Path, name: str, size: int) -> Iterator[Document]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    kept, start, read, lines, data = "", 0, 0, 0, b""
    try:
        with path.open("rb") as handle:
            while data := handle.read(size):
                searched = max(0, len(kept) - 3)  # what lies before has no place to cut
                kept += decoder.decode(data)
                read, lines = read + len(data), lines + data.count(b"\n")
                cut = last_cut(kept, searched)
                if cut is not None:
                    yield Document(name, kept[:cut], start)
                    kept, start = kept[cut:], start + cut
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # Counted from the end: the decoder's object has no byte order mark, but earlier bytes.
        byte = read + len(data) - (len(error.object) - error.start)
        line = lines + data.count(b"\n", 0, max(0, byte - read)) + 1
        raise not_utf8(path, error, line=line, byte=byte + 1) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read", why=str(error), next_step="check it") from error
    if not kept and not start:
        raise DataError(f"{path} is empty", next_step="remove it, or give another file")
    if kept:
        yield Document(name, kept, start)
