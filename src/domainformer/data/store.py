"""TokenStore: tokenized histories on disk, opened in constant time, never half-written.

A folder of shards (see ``shards.py``), a description, and a manifest of checksums::

    store/
      store.json      sizes, vocabulary, tokenizer fingerprint, the writer's own remarks
      shard-00000/    ids, offsets, times, roles, entity ids
      shard-00001/
      manifest.json   size and SHA-256 of every file; written last

It is staged beside its target and renamed into place (``artifacts.staged_directory``). Opening
checks names, sizes, the description's checksum and the ends of all offsets; ``verify=True``
reads every byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from domainformer.artifacts import (
    MANIFEST,
    sha256_file,
    staged_directory,
    verify_directory,
    write_json,
)
from domainformer.data.shards import Shard, link_shard, shard_files, shard_name, write_shard
from domainformer.data.tokens import (
    History,
    Ints,
    TokenizedEvents,
    check_entity_ids,
    check_entity_index,
    check_same_kind,
    id_dtype,
)
from domainformer.errors import ArtifactError, DataError, DomainformerError, StoreError

__all__ = ["History", "TokenStore", "TokenizedEvents", "id_dtype"]

KIND = "domainformer.token_store"
VERSION = 1
_DESCRIPTION = "store.json"
_REMEDY = "write the store again from its events, or restore it from a copy"


class TokenStore:
    """Tokenized histories of many entities as memory maps, read-only.

    Make one with :meth:`write` or :meth:`open`. It pickles as its path, so that data-loading
    workers open their own maps; a store that was replaced in between is refused.

    Args:
        path: The folder.
        description: Contents of ``store.json``.
        fingerprint: Name of the content: a hash of the manifest, which holds all checksums.

    Example:
        >>> import tempfile
        >>> events = TokenizedEvents(
        ...     ids=np.array([7, 12, 9, 7, 31], np.uint8),
        ...     event_offsets=np.array([0, 3, 5]), entity_offsets=np.array([0, 1, 2]),
        ...     entity_ids=pl.Series(["anna", "bob"]), times=np.array([10, 20]), roles=None,
        ...     tokenizer_fingerprint="f00d", vocab_size=32)
        >>> store = TokenStore.write(Path(tempfile.mkdtemp()) / "store", events)
        >>> store
        TokenStore(5 tokens in 2 events of 2 entities, 1 shard, vocabulary 32)
        >>> store.history(1).entity_id, store.history(1).ids.tolist()
        ('bob', [7, 31])
    """

    def __init__(self, path: Path, description: Mapping[str, Any], fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.meta: dict[str, Any] = description["meta"]
        self.tokenizer_fingerprint: str = description["tokenizer_fingerprint"]
        self.vocab_size: int = description["vocab_size"]
        self.has_roles: bool = description["has_roles"]
        self.shards = tuple(
            Shard(
                path / shard_name(index),
                tokenizer_fingerprint=self.tokenizer_fingerprint,
                vocab_size=self.vocab_size,
                with_roles=self.has_roles,
            )
            for index in range(description["n_shards"])
        )
        counts = [shard.n_entities for shard in self.shards]
        self._first_entity: Ints = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @classmethod
    def write(
        cls,
        path: str | Path,
        events: TokenizedEvents | Iterable[TokenizedEvents],
        *,
        overwrite: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> TokenStore:
        """Write a store, whole or not at all, and open it.

        Args:
            path: The folder to make.
            events: All events, or shards one after the other (only one is in memory at a time);
                an entity's events are all in one shard.
            overwrite: Replace an existing store; otherwise it is an error.
            meta: Plain JSON data to keep beside the tokens.

        Raises:
            DataError: There are no events, an entity occurs twice, or an array is inconsistent.
            FingerprintError: The shards come from different tokenizers.
            StoreError: The folder exists, or the disk is full or not writable.
        """
        path = Path(path)
        remarks = _plain_json(meta)
        shards = iter([events] if isinstance(events, TokenizedEvents) else events)
        with (
            _as_store_errors(path),
            staged_directory(path, overwrite=overwrite, meta={"kind": KIND}) as staging,
        ):
            description = _write_shards(staging, _reading(shards))
            write_json(staging / _DESCRIPTION, {**description, "meta": remarks})
        return cls.open(path)

    @classmethod
    def adopt(
        cls,
        path: str | Path,
        shards: Sequence[Path],
        *,
        tokenizer_fingerprint: str,
        vocab_size: int,
        has_roles: bool,
        overwrite: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> TokenStore:
        """Make a store of shards that were written before, without reading their tokens.

        The files are linked where the disk can, and copied otherwise; the caller's folders stay.

        Args:
            path: The folder to make.
            shards: Folders that `write_shard` has written; entities differ between them.
            tokenizer_fingerprint: Which fitted tokenizer made the ids.
            vocab_size: Number of entries of its vocabulary.
            has_roles: Whether events have split roles.
            overwrite: Replace an existing store; otherwise it is an error.
            meta: Plain JSON data to keep beside the tokens.

        Raises:
            DataError: There are no shards.
            StoreError: The folder exists, a shard contradicts itself, or the disk is full.
        """
        path = Path(path)
        if not shards:
            raise DataError("there are no events to store", next_step="check the table")
        description: dict[str, Any] = {
            "kind": KIND,
            "version": VERSION,
            "tokenizer_fingerprint": tokenizer_fingerprint,
            "vocab_size": int(vocab_size),
            "has_roles": has_roles,
            "n_shards": len(shards),
            "n_events": 0,
            "n_entities": 0,
        }
        with (
            _as_store_errors(path),
            staged_directory(path, overwrite=overwrite, meta={"kind": KIND}) as staging,
        ):
            for index, folder in enumerate(shards):
                target = staging / shard_name(index)
                link_shard(folder, target, with_roles=has_roles)
                shard = Shard(
                    target,
                    tokenizer_fingerprint=tokenizer_fingerprint,
                    vocab_size=vocab_size,
                    with_roles=has_roles,
                )
                description["n_events"] += shard.n_events
                description["n_entities"] += shard.n_entities
            write_json(staging / _DESCRIPTION, {**description, "meta": _plain_json(meta)})
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> TokenStore:
        """Open a store in constant time.

        Args:
            path: The folder.
            verify: Also read every byte and compare its checksum.

        Raises:
            StoreError: It is missing, incomplete, damaged, no token store, or of a newer version.
        """
        path = Path(path)
        with _as_store_errors(path), _as_damage(path):
            manifest = verify_directory(path, checksums=verify)
            fingerprint = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()[:16]
            files = manifest["files"]
            description = _read_description(path, files)
            return cls(path, _check_files(path, files, description), fingerprint)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all shards."""
        return sum(shard.n_tokens for shard in self.shards)

    @property
    def n_events(self) -> int:
        """Number of events of all shards."""
        return sum(shard.n_events for shard in self.shards)

    @property
    def n_entities(self) -> int:
        """Number of entities of all shards."""
        return int(self._first_entity[-1])

    @property
    def lengths(self) -> Ints:
        """Number of tokens of each entity, [n_entities]; reads the offsets."""
        parts = [np.diff(shard.event_offsets[shard.entity_offsets]) for shard in self.shards]
        return np.concatenate(parts)

    @property
    def entity_ids(self) -> pl.Series:
        """The entities' own names, [n_entities]; reads them."""
        return pl.concat([shard.entity_ids for shard in self.shards], rechunk=True)

    def history(self, index: int) -> History:
        """The tokens of one entity, as views of the maps.

        Raises:
            DataError: There is no such entity.
        """
        check_entity_index(index, self.n_entities)
        shard = int(np.searchsorted(self._first_entity, index, side="right")) - 1
        return self.shards[shard].history(index - int(self._first_entity[shard]))

    def events(self) -> TokenizedEvents:
        """Everything as one TokenizedEvents: maps where there is one shard, copies otherwise."""
        return TokenizedEvents.concatenate([shard.events() for shard in self.shards])

    def __repr__(self) -> str:
        shards = f"{len(self.shards):,} shard" + ("s" if len(self.shards) != 1 else "")
        return (
            f"TokenStore({self.n_tokens:,} tokens in {self.n_events:,} events of "
            f"{self.n_entities:,} entities, {shards}, vocabulary {self.vocab_size:,})"
        )

    def __reduce__(self) -> tuple[Callable[..., TokenStore], tuple[Path, str]]:
        return _reopen, (self.path.absolute(), self.fingerprint)


def _reopen(path: Path, fingerprint: str) -> TokenStore:
    store = TokenStore.open(path)
    if store.fingerprint != fingerprint:
        raise StoreError(
            f"{path} was replaced since it was opened",
            why=f"its fingerprint was {fingerprint} and is {store.fingerprint}",
            next_step="open the store again and start over",
        )
    return store


def _write_shards(staging: Path, shards: Iterator[TokenizedEvents]) -> dict[str, Any]:
    """Write shard after shard and return the description of all."""
    first: TokenizedEvents | None = None
    names: list[pl.Series] = []
    n_events = 0
    for index, shard in enumerate(shards):
        if not isinstance(shard, TokenizedEvents):
            raise DataError(f"shard {index} is no TokenizedEvents but a {type(shard).__name__}")
        shard.validate()
        # Only the kind of the first shard is kept, never its tokens: stores exceed memory.
        first = first if first is not None else shard.take_entities([])
        check_same_kind(first, shard)
        names.append(shard.entity_ids)
        n_events += shard.n_events
        write_shard(staging / shard_name(index), shard)
    if first is None or not n_events:
        raise DataError("there are no events to store", next_step="check the table and its filters")
    if len(names) > 1:
        check_entity_ids(pl.concat(names))
    return {
        "kind": KIND,
        "version": VERSION,
        "tokenizer_fingerprint": first.tokenizer_fingerprint,
        "vocab_size": int(first.vocab_size),
        "has_roles": first.roles is not None,
        "n_shards": len(names),
        "n_events": n_events,
        "n_entities": sum(len(series) for series in names),
    }


def _reading(shards: Iterator[TokenizedEvents]) -> Iterator[TokenizedEvents]:
    """Hand shards on; an I/O error of their source must not read as one of the store."""
    try:
        yield from shards
    except OSError as error:
        raise DataError(
            "the events could not be read", why=str(error), next_step="check their source"
        ) from error


def _plain_json(meta: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(meta or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError("meta is not plain JSON data", why=str(error)) from error
    return plain


def _read_description(path: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """Read store.json, which is small enough to be checked in full every time."""
    if _DESCRIPTION not in files:
        raise StoreError(
            f"{path} is not a token store",
            why=f"its manifest names no {_DESCRIPTION}",
            next_step="pass the folder that `domainformer tokenize` or TokenStore.write made",
        )
    if sha256_file(path / _DESCRIPTION) != files[_DESCRIPTION]["sha256"]:
        raise StoreError(
            f"{path} is damaged",
            where=_DESCRIPTION,
            why="its content differs from the checksum in the manifest",
            next_step=_REMEDY,
        )
    description: dict[str, Any] = json.loads((path / _DESCRIPTION).read_text(encoding="utf-8"))
    if description["version"] > VERSION:
        raise StoreError(
            f"{path} was written by a newer domainformer",
            why=f"its format is version {description['version']}; this one reads {VERSION}",
            next_step="pip install --upgrade domainformer",
        )
    return description


def _check_files(
    path: Path, files: Mapping[str, Any], description: dict[str, Any]
) -> dict[str, Any]:
    """Check that the manifest covers every file that will be mapped."""
    for index in range(description["n_shards"]):
        for name in shard_files(with_roles=description["has_roles"]):
            if f"{shard_name(index)}/{name}" not in files:
                raise StoreError(
                    f"{path} is damaged",
                    where=f"{shard_name(index)}/{name}",
                    why="the manifest does not name it, so nothing vouches for it",
                    next_step=_REMEDY,
                )
    return description


@contextlib.contextmanager
def _as_store_errors(path: Path) -> Iterator[None]:
    """Give general artifact errors the store's own kind, and always a remedy."""
    try:
        yield
    except ArtifactError as error:
        if type(error) is not ArtifactError:
            raise
        raise StoreError(
            error.what,
            where=error.where or str(path),
            why=error.why,
            next_step=error.next_step or _REMEDY,
        ) from error


@contextlib.contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged files into a store error."""
    try:
        yield
    except DomainformerError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise StoreError(
            f"{path} cannot be opened",
            why=f"{type(error).__name__}: {error}",
            next_step=_REMEDY,
        ) from error
