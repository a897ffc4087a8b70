"""Sketches as bytes: the same bytes for equal sketches, on every machine.

::

    magic  │ length │ header (JSON, sorted keys) │ arrays, one after the other │ BLAKE2b-128
    8 B    │ 8 B    │ kinds, numbers, shapes     │ little-endian               │ 16 B, of all before

Plain data only: reading runs no code from the bytes, and refuses bytes that were cut or changed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from domainformer.errors import ArtifactError

MAGIC = b"DFFITST1"
_DIGEST_BYTES = 16
_DTYPES = {"i8": "<i8", "f8": "<f8", "u1": "|u1"}


def encode(header: dict[str, Any], arrays: list[npt.NDArray[Any]]) -> bytes:
    """Bytes of JSON data and some arrays of int64, float64 or uint8.

    Example:
        >>> header, (numbers,) = decode(encode({"a": 1}, [np.array([3, 4])]))
        >>> header, numbers
        ({'a': 1}, array([3, 4]))
    """
    shapes = [[f"{array.dtype.kind}{array.dtype.itemsize}", len(array)] for array in arrays]
    text = json.dumps(
        {"header": header, "arrays": shapes}, sort_keys=True, separators=(",", ":")
    ).encode()
    parts = [MAGIC, len(text).to_bytes(8, "little"), text]
    for (name, _), array in zip(shapes, arrays, strict=True):
        parts.append(np.ascontiguousarray(array, dtype=_DTYPES[str(name)]).tobytes())
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


def decode(data: bytes) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """The header and the arrays that `encode` was given.

    Raises:
        ArtifactError: The bytes are no fit statistics, or were cut or changed.
    """
    if not isinstance(data, bytes) or not data.startswith(MAGIC[:-1]):
        damaged("they begin otherwise", what="these bytes are no fit statistics")
    if data[: len(MAGIC)] != MAGIC:
        damaged(
            f"their format is {data[len(MAGIC) - 1 : len(MAGIC)]!r}, and this version reads b'1'",
            what="these fit statistics were written by another version of domainformer",
        )
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        damaged("their checksum does not match")
    try:
        start = len(MAGIC) + 8
        stop = start + int.from_bytes(body[len(MAGIC) : start], "little")
        table = json.loads(body[start:stop])
        arrays = []
        for name, length in table["arrays"]:
            dtype = np.dtype(_DTYPES[name])
            # A copy, because arrays over bytes cannot be written to.
            arrays.append(np.frombuffer(body, dtype, length, stop).astype(dtype.newbyteorder("=")))
            stop += length * dtype.itemsize
        return table["header"], arrays
    except (KeyError, TypeError, ValueError) as error:
        damaged(f"{type(error).__name__}: {error}")


def damaged(why: str, *, what: str = "the fit statistics are damaged") -> NoReturn:
    """Refuse bytes."""
    raise ArtifactError(
        what, why=why, next_step="pass what FitStatistics.to_bytes() gave, or collect them again"
    )
