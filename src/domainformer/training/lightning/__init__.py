"""Data modules of Lightning: texts to batches for any causal language model.

::

    sources.py        documents of a path, a list or a data set
    rows.py           TextRows: documents as rows, padded or packed; needs no Lightning
    loader.py         EpochLoader: batches by (seed, epoch, number), resumable in mid-epoch
    data_modules.py   SimpleDataModule, AdaptiveTokenizerDataModule: start here

May import what ``training`` may, and lightning (extra ``lightning``) in ``data_modules.py`` alone:
the names below are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domainformer.training.lightning.loader import EpochLoader
from domainformer.training.lightning.rows import TextRows

if TYPE_CHECKING:
    from domainformer.training.lightning.data_modules import (
        AdaptiveTokenizerDataModule,
        SimpleDataModule,
    )

__all__ = ["AdaptiveTokenizerDataModule", "SimpleDataModule", "EpochLoader", "TextRows"]


def __getattr__(name: str) -> Any:
    """Import a data module, and Lightning with it, when it is first asked for."""
    if name not in ("AdaptiveTokenizerDataModule", "SimpleDataModule"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from domainformer.training.lightning import data_modules

    return getattr(data_modules, name)
