"""Windows of text: from the ids of documents to rows for training and for exact scoring.

A window of context L holds L + 1 ids, since each id but the first is predicted from those before
it. Our models shift labels themselves, so ``labels`` are the ids with the first left out::

    ids          t  o  ␣  b  e        context 4
    labels       ·  o  ␣  b  e        · is −100, not scored
    x = ids[:-1] t  o  ␣  b           pairs(index)
    y = ids[1:]  o  ␣  b  e

How the windows lie on the text is in ``text_windows.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.data.text_windows import ScoringGrid, TextStream, TextWindows, TrainingGrid
from domainformer.data.tokens import id_dtype
from domainformer.errors import ConfigError, DataError


@dataclass(frozen=True)
class SequenceBuilder:
    """Cuts the ids of documents into windows: characters, BPE or any other ids.

    Args:
        context: Ids that a prediction sees at most, which is the model's context; at least 1.
        stride: Ids from one training window to the next; None is ``context``, so that windows
            neither overlap (but for one id) nor leave a gap.
        cross_documents: Whether windows run over the ends of documents. Otherwise each document
            has to hold at least one window for training.
        boundary_id: Set between documents where windows cross, such as ``<|endoftext|>``. It is
            learned and not scored.

    Raises:
        ConfigError: A size is out of range, or a boundary without crossing.

    Example:
        >>> builder = SequenceBuilder(context=4)
        >>> windows = builder.build([[9, 1, 8, 2, 7, 3, 6, 4, 5]], seed=0)
        >>> x, y = windows.pairs(0)
        >>> x.tolist(), y.tolist(), int(windows.offsets[0])
        ([2, 7, 3, 6], [7, 3, 6, 4], 3)
        >>> [row["labels"].tolist() for row in builder.build_scoring([[9, 1, 8, 2, 7, 3]])]
        [[-100, 1, 8, 2, 7], [-100, 3]]
    """

    context: int = 256
    stride: int | None = None
    cross_documents: bool = False
    boundary_id: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("context", self.context), ("stride", self.stride)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, but is {value}")
        if self.boundary_id is not None and self.boundary_id < 0:
            raise ConfigError(f"boundary_id must not be negative, but is {self.boundary_id}")
        if self.boundary_id is not None and not self.cross_documents:
            raise ConfigError(
                "boundary_id is of no use where windows do not cross documents",
                next_step="set cross_documents=True, or leave boundary_id out",
            )

    def build(
        self,
        documents: Sequence[npt.ArrayLike],
        *,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> TextWindows:
        """Windows for training, all of ``context + 1`` ids.

        Args:
            documents: The ids of each document, integers [n].
            seed: Of the phases and the order of every epoch; not negative.
            names: Of the documents, for errors.

        Raises:
            DataError: There are no ids, or a document (or all, where windows cross) is shorter
                than one window.
            ConfigError: A negative seed.
        """
        if seed < 0:
            raise ConfigError(f"the seed must not be negative, but is {seed}")
        text = self._join(documents, names)
        sizes = np.diff(text.bounds)
        short = np.flatnonzero(sizes <= self.context)
        if len(short):
            raise self._too_short(text, int(short[0]), len(short), names)
        return TextWindows(text, TrainingGrid(self.context, self.stride or self.context), seed)

    def build_scoring(
        self,
        documents: Sequence[npt.ArrayLike],
        *,
        history: int = 0,
        names: Sequence[str] | None = None,
    ) -> TextWindows:
        """Windows for validation: always the same, each id scored exactly once.

        The first id of a document has nothing before it and is not scored, unless windows cross
        documents. Windows do not overlap, unless ``history`` is asked for; the stride is of no
        effect.

        Args:
            documents: The ids of each document, integers [n].
            history: Ids that each window but the first repeats, unscored, from the one before
                it, so that what it scores sees at least so many; in [0, context).
            names: Of the documents, for errors.

        Raises:
            DataError: There is no id to score.
            ConfigError: The history leaves no room for an id to score.
        """
        if not 0 <= history < self.context:
            raise ConfigError(
                f"history must be from 0 to {self.context - 1}, but is {history}",
                why=f"the context is {self.context}",
            )
        text = self._join(documents, names)
        windows = TextWindows(text, ScoringGrid(self.context, history), seed=0)
        if not windows.n_targets:
            raise DataError(
                "there is nothing to score",
                why="no document has two ids or more",
                next_step="give longer texts for validation",
            )
        return windows

    def _join(self, documents: Sequence[npt.ArrayLike], names: Sequence[str] | None) -> TextStream:
        """One stream of all documents, and where windows must stop."""
        arrays = [
            _as_ids(document, _name(names, index)) for index, document in enumerate(documents)
        ]
        if not sum(map(len, arrays)):
            raise DataError("there are no ids", next_step="check what was read and encoded")
        largest = max(int(array.max()) for array in arrays if len(array))
        pieces, boundary = [], self.boundary_id
        for index, array in enumerate(arrays):
            if index and boundary is not None:
                pieces.append(np.array([boundary]))
            pieces.append(array)
        dtype = id_dtype(max(largest, boundary or 0) + 1)
        stream = np.concatenate(pieces, dtype=dtype, casting="unsafe")
        gap = 0 if boundary is None else 1
        lengths = np.array([len(array) + gap for array in arrays])
        starts = np.concatenate([[0], np.cumsum(lengths[:-1])])
        ends = [0, len(stream)] if self.cross_documents else [*starts.tolist(), len(stream)]
        return TextStream(stream, starts, np.array(ends, np.int64), boundary)

    def _too_short(
        self, text: TextStream, index: int, count: int, names: Sequence[str] | None
    ) -> DataError:
        size = int(text.bounds[index + 1] - text.bounds[index])
        crossing = self.cross_documents
        subject = "the text" if crossing else _name(names, index)
        others = f"; {count} documents are too short" if count > 1 else ""
        joined = ", or join the documents with cross_documents=True"
        return DataError(
            f"{subject} is shorter than one window",
            why=f"it has {size:,} ids, and a window of context {self.context} takes "
            f"{self.context + 1:,}{others}",
            next_step="give more text, or a smaller context"
            + (joined if not crossing and len(text.starts) > 1 else ""),
        )


def _name(names: Sequence[str] | None, index: int) -> str:
    return f"document {index}" if names is None else names[index]


def _as_ids(document: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """The ids of a document as an array."""
    ids = np.asarray(document)
    if ids.ndim != 1:
        raise DataError(
            f"{name} is not a flat list of ids",
            why=f"its shape is {list(ids.shape)}",
            next_step="give a list with the ids of each document: build([ids])",
        )
    if len(ids) and (ids.dtype.kind not in "iu" or int(ids.min()) < 0):
        raise DataError(
            f"{name} holds what is no id",
            why=f"ids are integers from 0 on; these are {ids.dtype}, the least {ids.min()}",
            next_step="encode the text with a tokenizer first",
        )
    return ids
