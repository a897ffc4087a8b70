"""One shard of a token store: six files, written flat and opened as memory maps.

::

    shard-00000/
      ids.bin             token ids, raw little endian, type by vocabulary size
      event_offsets.npy   int64 [n_events + 1]
      entity_offsets.npy  int64 [n_entities + 1]
      times.npy           int64 [n_events]
      roles.npy           uint8 [n_events]      (only where roles were given)
      entity_ids.arrow    one column in one record batch, uncompressed

Opening maps the files and reads their headers: no array is read through, whatever its size.
"""

from __future__ import annotations

import io
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from domainformer.data.tokens import (
    Bytes,
    History,
    Ids,
    Ints,
    TokenizedEvents,
    check_entity_index,
    cut_history,
    id_dtype,
    structure_problem,
)
from domainformer.errors import DataError, StoreError

_INTS = np.dtype("<i8")


def shard_name(index: int) -> str:
    """The folder of a shard within its store.

    Example:
        >>> shard_name(7)
        'shard-00007'
    """
    return f"shard-{index:05d}"


def shard_files(*, with_roles: bool) -> tuple[str, ...]:
    """The files that a shard consists of."""
    files = ("ids.bin", "event_offsets.npy", "entity_offsets.npy", "times.npy", "entity_ids.arrow")
    return (*files, "roles.npy") if with_roles else files


def write_shard(folder: Path, events: TokenizedEvents) -> None:
    """Write the files of one shard into a new folder (inside a staged store).

    Raises:
        DataError: The entity ids are of a nested or otherwise unsuitable type.
        OSError: The disk is full or not writable; the staged store turns it into a clear error.
    """
    folder.mkdir()
    ids = np.ascontiguousarray(events.ids).astype(events.ids.dtype.newbyteorder("<"), copy=False)
    _write(folder / "ids.bin", _bytes_of(ids))
    _write_npy(folder / "event_offsets.npy", events.event_offsets, _INTS)
    _write_npy(folder / "entity_offsets.npy", events.entity_offsets, _INTS)
    _write_npy(folder / "times.npy", events.times, _INTS)
    if events.roles is not None:
        _write_npy(folder / "roles.npy", events.roles, np.dtype(np.uint8))
    _write(folder / "entity_ids.arrow", _arrow_file(events.entity_ids))


def link_shard(source: Path, target: Path, *, with_roles: bool) -> None:
    """Make a shard's files known under another folder: at once where the disk has links."""
    target.mkdir()
    for name in shard_files(with_roles=with_roles):
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)


class Shard:
    """The memory-mapped arrays of one shard, with the names of :class:`TokenizedEvents`.

    Args:
        folder: Where the files are.
        tokenizer_fingerprint: Which fitted tokenizer made the ids.
        vocab_size: Number of entries of its vocabulary; tells the type of the ids.
        with_roles: Whether events have split roles.

    Raises:
        StoreError: The lengths of the files contradict each other.
        OSError, ValueError: A file is missing or has no valid header; the store explains it.
    """

    def __init__(
        self, folder: Path, *, tokenizer_fingerprint: str, vocab_size: int, with_roles: bool
    ) -> None:
        self.folder = folder
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.vocab_size = vocab_size
        self.ids: Ids = _map_ids(folder / "ids.bin", vocab_size)
        self.event_offsets: Ints = _map_npy(folder / "event_offsets.npy", _INTS)
        self.entity_offsets: Ints = _map_npy(folder / "entity_offsets.npy", _INTS)
        self.times: Ints = _map_npy(folder / "times.npy", _INTS)
        self.roles: Bytes | None = None
        if with_roles:
            self.roles = _map_npy(folder / "roles.npy", np.dtype(np.uint8))
        self._names = pa.ipc.open_file(pa.memory_map(str(folder / "entity_ids.arrow"))).read_all()
        problem = structure_problem(
            self.ids, self.event_offsets, self.entity_offsets, self.times, self.roles
        )
        if problem is None and self._names.num_rows != self.n_entities:
            problem = f"{self._names.num_rows} entity ids for {self.n_entities} entities"
        if problem is not None:
            raise StoreError(
                f"the shard {folder.name} contradicts itself", where=str(folder), why=problem
            )

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.event_offsets) - 1

    @property
    def n_entities(self) -> int:
        """Number of entities."""
        return len(self.entity_offsets) - 1

    @cached_property
    def entity_ids(self) -> pl.Series:
        """The entities' own names, [n_entities]; read on first use."""
        frame = pl.from_arrow(self._names)
        assert isinstance(frame, pl.DataFrame)
        return frame.to_series()

    def history(self, index: int) -> History:
        """The tokens of one entity, as views of the map."""
        return cut_history(self, index, self.entity_id(index))

    def entity_id(self, index: int) -> Any:
        """The own name of one entity; costs the same in a shard of any size."""
        check_entity_index(index, self.n_entities)
        chunk = self._names.column(0).chunk(0)
        return pl.from_arrow(chunk.slice(index, 1))[0]

    def events(self) -> TokenizedEvents:
        """The shard as TokenizedEvents over the same maps (only the entity ids are read)."""
        return TokenizedEvents(
            ids=self.ids,
            event_offsets=self.event_offsets,
            entity_offsets=self.entity_offsets,
            entity_ids=self.entity_ids,
            times=self.times,
            roles=self.roles,
            tokenizer_fingerprint=self.tokenizer_fingerprint,
            vocab_size=self.vocab_size,
        )


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    # A view, so that gigabytes are not copied; empty arrays cannot be cast.
    return array.data.cast("B") if array.size else memoryview(b"")


def _write(path: Path, *parts: memoryview | bytes) -> None:
    # Not ndarray.tofile: its errors do not say that the disk is full.
    with path.open("wb") as handle:
        for part in parts:
            handle.write(part)


def _write_npy(path: Path, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    array = np.ascontiguousarray(array).astype(dtype, copy=False)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        np.lib.format.header_data_from_array_1_0(array),
    )
    _write(path, header.getvalue(), _bytes_of(array))


def _arrow_file(entity_ids: pl.Series) -> bytes:
    """The column as an Arrow file in one record batch, so that any row is found at once."""
    buffer = io.BytesIO()
    try:
        if entity_ids.dtype.is_nested():
            raise pl.exceptions.InvalidOperationError(f"the type is {entity_ids.dtype}")
        frame = entity_ids.rechunk().alias("entity_id").to_frame()
        frame.write_ipc(
            buffer,
            compression="uncompressed",
            compat_level=pl.CompatLevel.oldest(),
            record_batch_size=max(frame.height, 1),
        )
        pa.ipc.open_file(pa.BufferReader(buffer.getvalue())).schema  # noqa: B018 - readable at all?
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise DataError(
            "the entity ids cannot be stored",
            why=str(error),
            next_step="cast the entity column to strings or 64-bit integers",
        ) from error
    return buffer.getvalue()


def _map_ids(path: Path, vocab_size: int) -> Ids:
    dtype = id_dtype(vocab_size).newbyteorder("<")
    if path.stat().st_size == 0:  # a map needs at least one byte
        return np.empty(0, dtype)
    # A plain view of the map: slices of the subclass cost several times as much.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _map_npy(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if array.dtype != dtype or array.ndim != 1:
        raise StoreError(
            f"{path.name} is not a flat array of {dtype.name}",
            where=str(path),
            why=f"found {array.dtype} with shape {array.shape}",
        )
    return array
