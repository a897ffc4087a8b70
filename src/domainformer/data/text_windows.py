"""TextWindows: rows of a stream of ids, on a grid for training or for scoring.

Training cuts each document into a grid of windows whose phase is drawn anew in each epoch, so that
over time every place starts a window; scoring predicts each id exactly once::

    epoch 0   ·├────┤├────┤├────┤···      phase 1          scoring  ├────┤├────┤├────┤├──┤
    epoch 1   ···├────┤├────┤├────┤·      phase 3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from domainformer.data.dataset import IGNORED
from domainformer.data.tokens import Ids, Ints
from domainformer.errors import ConfigError


class Cut(NamedTuple):
    """The windows of an epoch: where they begin in the stream, ids, and first place scored."""

    starts: Ints
    lengths: Ints
    scored_from: Ints


@dataclass(frozen=True)
class TrainingGrid:
    """Full windows at every ``stride`` ids, from a phase drawn per document, in random order."""

    context: int
    stride: int

    def cut(self, bounds: Ints, seed: int, epoch: int) -> Cut:
        """The windows of an epoch, in its order."""
        generator = np.random.default_rng((seed, epoch))
        possible = np.diff(bounds) - self.context  # places of each part that can start a window
        phases = generator.integers(0, np.minimum(self.stride, possible))
        counts = (possible - 1 - phases) // self.stride + 1
        starts = _grid(bounds[:-1] + phases, counts, self.stride)
        starts = starts[generator.permutation(len(starts))]
        same = np.ones_like(starts)
        return Cut(starts, same * (self.context + 1), same)


@dataclass(frozen=True)
class ScoringGrid:
    """Windows in order whose scored ids tile each part, with some ids of history before them."""

    context: int
    history: int

    def cut(self, bounds: Ints, seed: int, epoch: int) -> Cut:
        """The windows of every epoch, in the order of the text."""
        targets = np.diff(bounds) - 1
        fresh = self.context - self.history  # ids that each window but the first scores
        counts = np.where(targets > 0, 1 + -(-np.maximum(targets - self.context, 0) // fresh), 0)
        starts = _grid(bounds[:-1], counts, fresh)
        last = np.repeat(bounds[1:], counts)
        first = np.isin(starts, bounds[:-1])
        return Cut(
            starts,
            np.minimum(self.context + 1, last - starts),
            np.where(first, 1, self.history + 1),
        )


@dataclass(frozen=True, eq=False)
class TextStream:
    """All documents as one stream of ids.

    Args:
        ids: The stream, in the narrowest type, [n].
        starts: Where each document begins, [documents].
        bounds: Where the parts begin that no window leaves, and the end, [parts + 1].
        boundary_id: What stands between documents, or None.
    """

    ids: Ids
    starts: Ints
    bounds: Ints
    boundary_id: int | None


class TextWindows:
    """Rows of ids for a model: made by :class:`SequenceBuilder`, after ``EpochDataset``.

    A row is ``{"input_ids": int64 [L + 1], "labels": int64 [L + 1]}``; only the last window of a
    document may be shorter, and only in scoring. Which windows there are, and their order, follow
    from (seed, epoch) alone; rows are cut when asked for.

    Args:
        text: The stream.
        grid: How it is cut.
        seed: Not negative.
        epoch: Not negative.
    """

    def __init__(
        self, text: TextStream, grid: TrainingGrid | ScoringGrid, seed: int, epoch: int = 0
    ) -> None:
        self._text, self._grid = text, grid
        self.seed, self.epoch = seed, epoch
        self._cut = grid.cut(text.bounds, seed, epoch)

    @property
    def context(self) -> int:
        """Most ids that a prediction sees; a row has one more."""
        return self._grid.context

    @property
    def scoring(self) -> bool:
        """Whether these windows score each id once, rather than train."""
        return isinstance(self._grid, ScoringGrid)

    def set_epoch(self, epoch: int) -> None:
        """Cut and order the windows anew by (seed, epoch); those for scoring stay."""
        if epoch < 0:
            raise ConfigError(f"the epoch must not be negative, but is {epoch}")
        if epoch != self.epoch:
            self.epoch = epoch
            if not self.scoring:
                self._cut = self._grid.cut(self._text.bounds, self.seed, epoch)

    def at(self, *, seed: int | None = None, epoch: int = 0) -> TextWindows:
        """The same text, cut for another seed or epoch; these windows stay as they are."""
        return TextWindows(self._text, self._grid, self.seed if seed is None else seed, epoch)

    def __len__(self) -> int:
        return len(self._cut.starts)

    def __getitem__(self, index: int) -> dict[str, Ints]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {key: value[0] for key, value in self.batch([index]).items()}

    def pairs(self, index: int) -> tuple[Ints, Ints]:
        """What the model sees and what it shall say, int64 [L] each: y is x shifted by one."""
        row = self[index]
        return row["input_ids"][:-1], row["labels"][1:]

    def batch(self, rows: Sequence[int] | Ints) -> dict[str, Ints]:
        """Rows together, int64 [B, longest], cut in one pass.

        A shorter row is filled up on the right with id 0 and label −100; a causal model predicts
        the ids before the filling as it would without.
        """
        index = np.asarray(rows, np.int64)
        starts, lengths = self._cut.starts[index], self._cut.lengths[index]
        size = int(lengths.max())
        places = np.arange(size)
        if (lengths == size).all():
            ids = self._views(size)[starts].astype(np.int64)
            ignored = places < self._cut.scored_from[index][:, None]
        else:
            there = places < lengths[:, None]
            taken = np.where(there, starts[:, None] + places, 0)
            ids = np.where(there, self._text.ids[taken], 0).astype(np.int64)
            ignored = (places < self._cut.scored_from[index][:, None]) | ~there
        if self.scoring and self._text.boundary_id is not None:
            ignored |= ids == self._text.boundary_id
        return {"input_ids": ids, "labels": np.where(ignored, IGNORED, ids)}

    def _views(self, size: int) -> Ids:
        return np.lib.stride_tricks.sliding_window_view(self._text.ids, size)

    @property
    def offsets(self) -> Ints:
        """Where each window begins in its document, in ids, [len(self)]."""
        return self._cut.starts - self._text.starts[self.documents]

    @property
    def documents(self) -> Ints:
        """The document in which each window begins, [len(self)]."""
        return np.searchsorted(self._text.starts, self._cut.starts, side="right") - 1

    @property
    def row_lengths(self) -> Ints:
        """Ids of each row in the order of this epoch, [len(self)]."""
        return self._cut.lengths

    @property
    def n_ids(self) -> int:
        """Ids of all documents and the boundaries between them."""
        return len(self._text.ids)

    @property
    def n_targets(self) -> int:
        """Predictions of this epoch that a loss averages over."""
        return int((self._cut.lengths - self._cut.scored_from).sum()) - self._boundaries

    def target_counts(self, size: int) -> Ints:
        """How often each id is to be predicted in the whole text, whatever the grid, [size].

        Scoring, these are the ids of all scored targets; what begins a part is none.

        Args:
            size: Ids that there are.
        """
        first = self._text.bounds[:-1][np.diff(self._text.bounds) > 0]
        counts = np.bincount(np.delete(self._text.ids, first), minlength=size)
        if self.scoring and self._text.boundary_id is not None:
            counts[self._text.boundary_id] = 0
        return counts

    @property
    def _boundaries(self) -> int:
        """Boundaries among the targets, which are not scored."""
        boundary = self._text.boundary_id
        if not self.scoring or boundary is None:
            return 0
        return int((self._text.ids[1:] == boundary).sum())


def _grid(firsts: Ints, counts: Ints, step: int) -> Ints:
    """``counts[i]`` places from ``firsts[i]`` on, ``step`` apart, one after another for all i."""
    before = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum())) - np.repeat(before, counts)
    return np.repeat(firsts, counts) + within * step
