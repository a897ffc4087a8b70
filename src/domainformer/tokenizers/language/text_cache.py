"""Trained tokenizers by the content they were trained on: equal texts are not trained on twice.

::

    cache/bpe-3f2a…/     SHA-256 of the texts, the size, the special tokens, the version
          characters-…/

An entry is a folder of the tokenizer itself, whole or not there; a damaged one is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from domainformer.artifacts import fingerprint
from domainformer.data.text import Document
from domainformer.errors import ArtifactError
from domainformer.tokenizers.language.backed import TextTokenizerBase
from domainformer.tokenizers.language.streams import TextSource, read
from domainformer.version import __version__

Trained = TypeVar("Trained", bound=TextTokenizerBase)


def content_hash(texts: TextSource) -> str:
    """The SHA-256 of texts, their bounds and their order, whether from a list or from files.

    Raises:
        TokenizerError: Something is no text.
        DataError: A file cannot be read.

    Example:
        >>> content_hash(["to be", "or not"]) == content_hash(iter(["to be", "or not"]))
        True
        >>> content_hash(["to be", "or not"]) == content_hash(["to beor not"])
        False
    """
    digest = hashlib.sha256()
    for text, begins in read(texts):
        if begins:
            digest.update(b"\xff")  # stands in no UTF-8
        digest.update(text.encode())
    return digest.hexdigest()


def repeatable(texts: TextSource | str) -> Path | Sequence[str | Path | Document]:
    """Texts that can be read twice: a path as it is, an iterator as a list."""
    if isinstance(texts, str | Path):
        return Path(texts)
    return texts if isinstance(texts, Sequence) else list(texts)


def cached(
    kind: type[Trained],
    cache: Path | None,
    name: str,
    settings: dict[str, object],
    texts: TextSource,
    make: Callable[[], Trained],
) -> tuple[Trained, str | None]:
    """A tokenizer from the cache, or made and put there.

    Args:
        kind: Its class.
        cache: The folder; None makes it anew.
        name: Begins the entry's name.
        settings: All that decides the tokenizer beside the texts.
        texts: That it is trained on; read once for their hash.
        make: Trains it.

    Returns:
        The tokenizer, and a word on the cache or None.
    """
    if cache is None:
        return make(), None
    key = {"texts": content_hash(texts), "settings": settings, "version": __version__}
    entry = Path(cache) / f"{name}-{fingerprint(key)}"
    if entry.exists():
        try:
            return kind.from_pretrained(entry), f"from the cache: {entry}"
        except ArtifactError:  # damaged, or half of it deleted
            made = make()
            made.save_pretrained(entry, overwrite=True)
            return made, f"the cache was damaged and is mended: {entry}"
    made = make()
    made.save_pretrained(entry)
    return made, f"kept in the cache: {entry}"
