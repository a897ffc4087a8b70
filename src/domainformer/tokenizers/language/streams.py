"""Texts from anywhere, in pieces of bounded size that a word pattern cuts as it would the whole.

::

    generator of texts ─┐
    list of texts       ├─▶ pieces ≤ about 1 MB ─▶ batches ─▶ trainer, which counts on all cores
    Path("books/*.txt") ┘

A long text is cut only where a single blank or line end stands between two words: there GPT-2's
word pattern cuts, too, and nothing that it looks at lies beyond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from domainformer.data.text import Document
from domainformer.data.text_stream import last_cut, stream_texts
from domainformer.errors import TokenizerError
from domainformer.tokenizers.language.backed import not_text

TextSource: TypeAlias = Path | Iterable["str | Path | Document"]

PIECE = 1 << 16
"""Characters of a piece: many per batch, so that all cores have work."""
BATCH = 1 << 21
"""Characters of a batch, about: what is held at a time."""


@dataclass
class Batch:
    """Some pieces.

    Args:
        pieces: Texts, or parts of texts.
        texts: How many texts began in it.
        characters: In the pieces.
    """

    pieces: list[str] = field(default_factory=list)
    texts: int = 0
    characters: int = 0


def batches(texts: TextSource) -> Iterator[Batch]:
    """Batches of pieces of all texts, in their order.

    Raises:
        TokenizerError: Something is no text.
        DataError: A file cannot be read.

    Example:
        >>> [batch.pieces for batch in batches(["to be", "or not"])]
        [['to be', 'or not']]
    """
    batch = Batch()
    for text, begins in read(texts):
        batch.texts += begins
        batch.characters += len(text)
        batch.pieces.extend(pieces(text))
        if batch.characters >= BATCH:
            yield batch
            batch = Batch()
    if batch.pieces or batch.texts:
        yield batch


def read(texts: TextSource) -> Iterator[tuple[str, bool]]:
    """Texts one after the other, and whether each is the beginning of one.

    Files are read in parts, so that no file has to fit into memory.
    """
    if isinstance(texts, str):
        raise TokenizerError(
            "texts are a list or an iterator of texts, but this is one text",
            next_step="give [text], or Path(text) where it is the name of a file",
        )
    items: Iterable[object] = [texts] if isinstance(texts, Path) else texts
    if not isinstance(items, Iterable):
        raise TokenizerError(
            f"{type(texts).__name__} is no source of texts",
            next_step="give a list or an iterator of texts, or a Path",
        )
    for number, item in enumerate(items):
        if isinstance(item, Path):
            for part in stream_texts(item):
                yield part.text, part.start == 0
            continue
        text = item.text if isinstance(item, Document) else item
        if not isinstance(text, str) or not is_utf8(text):
            raise not_text([text], number)
        yield text, True


def is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def pieces(text: str) -> Iterator[str]:
    """A text cut where words end; a stretch without blanks stays whole."""
    start = 0
    while len(text) - start > PIECE:
        cut = last_cut(text, start, start + PIECE)
        if cut is None:  # no blank for long: up to the next one
            break
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]
