"""A 64-bit hash of whole columns that is the same in every process and on every machine.

Python's ``hash`` depends on PYTHONHASHSEED and polars' ``hash`` on its version, so neither may
decide what a fit keeps. The hash is `data.hashing.hash_entities`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from domainformer.data.hashing import hash_entities

UInt64Array = npt.NDArray[np.uint64]


def stable_hash(values: pl.Series) -> UInt64Array:
    """A hash of each string or 64-bit integer of a column without nulls.

    Example:
        >>> [int(h) >> 48 for h in stable_hash(pl.Series(["anna", "bob"]))]
        [5585, 9103]
    """
    array = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return hash_entities(array)


def rehash(hashes: UInt64Array) -> UInt64Array:
    """Second hashes, which the first ones do not give away in any of their bits."""
    return hash_entities(pa.array(~hashes))
