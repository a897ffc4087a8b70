"""Histories cut into windows, and where in them each example is read.

One pass over a window answers every example that lies in it: a recurrent or causal model has, after
each event, seen exactly what came before the next one::

    events      e1   e2   e3   e4                 example A: cut before e3   ─▶ read after e2
    elements  B a  b  c  d  e  f  g               example B: cut after e4    ─▶ read after e4
    points               ▲A       ▲B              example C: nothing before  ─▶ read after BOS (B)

An element is an event (the mean of its tokens) or a token. Windows hold whole events, at most
``context`` tokens; where a history is longer, each example has at least half of a window before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from domainformer.data import EventTable
from domainformer.data.packing import plan_scoring_windows
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError
from domainformer.evaluation.tasks import EXAMPLE, LABEL, Task
from domainformer.tokenizers import DomainTokenizer

Units = Literal["events", "tokens"]
Ints = npt.NDArray[np.int64]
_MIN_HISTORY = 0.5


@dataclass(frozen=True, eq=False)
class Window:
    """Elements of one history, and the points that are read there.

    Args:
        ids: Token ids, BOS first.
        offsets: Where each element begins in ``ids``.
        points: Elements after which examples are read.
        examples: Place of each of these examples among those asked for.
    """

    ids: Ints
    offsets: Ints
    points: Ints
    examples: Ints


def visible_events(task: Task, examples: pl.DataFrame) -> tuple[EventTable | None, Ints, Ints]:
    """Each history once, as far as some example sees it.

    Args:
        task: The task.
        examples: The examples.

    Returns:
        The histories (None where no example has any event), the history of each example (−1 for
        none), and how many of its events the example sees.
    """
    starts, ends = task.bounds(examples)
    seen = ends - starts
    rows = examples.select(EXAMPLE, pl.Series("owner", starts), pl.Series("seen", seen))
    longest = (
        rows.filter(pl.col("seen") > 0)
        .sort("seen", EXAMPLE, descending=[True, False])
        .unique("owner", keep="first", maintain_order=True)
    )
    if not longest.height:
        return None, np.full(len(seen), -1, np.int64), seen
    chosen = examples.filter(pl.col(EXAMPLE).is_in(longest[EXAMPLE].implode()))
    table = task.history(chosen)
    place = pl.DataFrame({EXAMPLE: table.entity_ids}).with_row_index("history")
    owners = longest.join(place, on=EXAMPLE).select("owner", "history")
    history = rows.join(owners, on="owner", how="left", maintain_order="left")["history"]
    frame = table.frame.drop(task.table.entity)
    table = EventTable(frame, EXAMPLE, table.time, table.offsets, table.time_kind)
    owner = history.cast(pl.Int64).fill_null(-1).to_numpy()
    return table, np.where(seen > 0, owner, -1), seen


def read_windows(
    tokenizer: DomainTokenizer, task: Task, examples: pl.DataFrame, context: int, units: Units
) -> list[Window]:
    """The windows in which all of some examples can be read.

    Args:
        tokenizer: How events are read.
        task: The task.
        examples: The examples, in any order.
        context: Most tokens of a window.
        units: What an element is.

    Raises:
        DataError: An event is longer than the context.
    """
    table, owner, seen = visible_events(task, examples)
    bos = np.array([tokenizer.bos_id], np.int64)
    empty = np.flatnonzero(owner < 0)
    windows = []
    if len(empty):  # all examples without a history share one window
        windows.append(Window(bos, np.zeros(1, np.int64), np.zeros(len(empty), np.int64), empty))
    if table is None:
        return windows
    tokens = tokenizer.encode(table)
    return windows + _cut(tokens, owner, seen, bos, context, units)


def _cut(
    tokens: TokenizedEvents, owner: Ints, seen: Ints, bos: Ints, context: int, units: Units
) -> list[Window]:
    offsets = np.asarray(tokens.event_offsets)
    some = np.flatnonzero(owner >= 0)
    newest = np.asarray(tokens.entity_offsets)[owner[some]] + seen[some] - 1
    order = np.argsort(newest, kind="stable")
    some, newest = some[order], newest[order]
    score = np.zeros(len(offsets) - 1, np.bool_)
    score[newest] = True
    plan = plan_scoring_windows(
        offsets, tokens.entity_offsets, context, score=score, min_history=_MIN_HISTORY
    )
    windows = []
    for start, first, stop in zip(plan.event_start, plan.score_start, plan.event_stop, strict=True):
        low, high = np.searchsorted(newest, [first, stop])
        ids = np.concatenate([bos, tokens.ids[offsets[start] : offsets[stop]].astype(np.int64)])
        ends = offsets[start : stop + 1] - offsets[start] + 1
        read = newest[low:high] - start
        if units == "events":
            begins, points = np.concatenate([[0], ends[:-1]]), read + 1
        else:
            begins, points = np.arange(len(ids)), ends[read + 1] - 1
        windows.append(Window(ids, begins, points, some[low:high]))
    return windows


class WindowRows:
    """Windows with labels, as the trainer asks for them; neighbours of similar length.

    Args:
        windows: The windows.
        labels: Label of each example, ``[n]``; None for prediction.
        bucket: Windows among which neighbours are sorted by length.
        seed: Of the order; None keeps the order.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        labels: npt.NDArray[Any] | None,
        *,
        bucket: int = 512,
        seed: int | None = None,
    ) -> None:
        self._windows = windows
        self._labels = labels
        self._bucket = bucket
        self._seed = seed
        self._lengths = np.array([len(window.offsets) for window in windows])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle by (seed, epoch), then sort within buckets: less padding, order still random."""
        order = np.arange(len(self._windows))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, epoch)).permutation(order)
            order = order[np.lexsort((self._lengths[order], order.argsort() // self._bucket))]
        self._order = order

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        window = self._windows[int(self._order[index])]
        row: dict[str, Any] = {
            "input_ids": window.ids,
            "offsets": window.offsets,
            "points": window.points,
        }
        if self._labels is not None:
            row["labels"] = self._labels[window.examples]
        return row


def collate_windows(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows of :class:`WindowRows` as one batch.

    Returns:
        ``input_ids`` (flat), ``offsets`` of elements into it, ``lengths`` (elements per row),
        ``points`` as ``[n, 2]`` (row, element), and ``labels`` ``[n]`` where the rows have them.
    """
    sizes = np.cumsum([0] + [len(row["input_ids"]) for row in rows])[:-1]
    points = [
        np.stack([np.full(len(row["points"]), line), row["points"]], axis=1)
        for line, row in enumerate(rows)
    ]
    batch = {
        "input_ids": np.concatenate([row["input_ids"] for row in rows]),
        "offsets": np.concatenate(
            [row["offsets"] + at for row, at in zip(rows, sizes, strict=True)]
        ),
        "lengths": np.array([len(row["offsets"]) for row in rows]),
        "points": np.concatenate(points),
    }
    if "labels" in rows[0]:
        batch["labels"] = np.concatenate([row["labels"] for row in rows])
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def known_labels(task: Task, examples: pl.DataFrame) -> npt.NDArray[Any]:
    """Labels of examples.

    Raises:
        DataError: There are no examples, or they have no labels.
    """
    if not examples.height or LABEL not in examples.columns:
        raise DataError("there are no labelled examples", where=f"task {task.name!r}")
    return task.labels(examples)
