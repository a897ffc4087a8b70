"""DomainSequenceDataset: windows of histories as model inputs, padded or packed, without torch.

One item is one row: a packed row of several documents, or one document::

    input_ids        BOS 7 12 9 7 31 │ BOS 8 12 9 4 │ …         int64 [n], n ≤ context
    labels          -100 7 12 9 7 31 │-100 8 12 9 4 │ …         int64 [n], unshifted
    segment_lengths  6                 5              …         int64 [n_documents]
    entity           0                 3              …         int64 [n_documents]

A document is BOS and one window of one entity; attention never crosses from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from domainformer.data.augment import ValueSubstitution
from domainformer.data.budgets import Budgets, plan_budgeted
from domainformer.data.packing import (
    Keep,
    Packing,
    Windows,
    pack,
    plan_scoring_windows,
    plan_windows,
)
from domainformer.data.shards import Shard
from domainformer.data.splits import ROLE_NAMES
from domainformer.data.store import TokenStore
from domainformer.data.tokens import Ints, Mask, TokenizedEvents, gather_ranges
from domainformer.errors import ConfigError, DataError

IGNORED = -100
"""Label of a position that is not scored, as PyTorch's cross-entropy has it."""

_ROLE_NAMES = {0: "train", 1: "validation", 2: "test"}
_ARGUMENTS = (
    "context",
    "packed",
    "keep",
    "train_roles",
    "score_roles",
    "min_history",
    "bos_id",
    "seed",
    "shuffle",
    "augment",
    "budgets",
)


@dataclass(frozen=True, eq=False)
class _Documents:
    """All windows of all shards: which shard, where its tokens begin, and the window itself.

    With budgets a window is no run of events: ``orders`` lists the events of each shard window by
    window, and the window's events are places in that list.
    """

    shard: Ints
    token_start: Ints
    windows: Windows
    orders: tuple[Ints, ...]


class DocumentEvents(NamedTuple):
    """The events of one document of a row.

    Args:
        shard: Number of the shard that holds them.
        events: Their numbers in the shard, in the document's order, int64 [n].
        ends: Where each ends in the document, one past its last token; BOS is token 0, int64 [n].
    """

    shard: int
    events: Ints
    ends: Ints


class DomainSequenceDataset:
    """Rows for next-token training or scoring, for torch's DataLoader or any loop.

    Training takes events of ``train_roles`` alone, each exactly once (``keep="all"``). Scoring
    (``score_roles`` given) labels each event of those roles exactly once and gives it the events
    before it, of whatever role, as unlabelled history.

    Row order and packing follow from (seed, epoch) alone. Pickling keeps the arguments and plans
    anew, so that a worker receives a path and not gigabytes. A DataLoader with
    ``persistent_workers=True`` keeps copies that :meth:`set_epoch` does not reach: leave it off.

    Args:
        source: A token store, or tokenized events in memory.
        context: Most tokens of a row, BOS included.
        packed: Several documents per row; otherwise one.
        keep: For training: ``"all"`` windows, or each entity's ``"newest"``.
        train_roles: Roles whose events are used for training, or None for all events. Of no
            effect where the source has no roles.
        score_roles: Roles whose events are scored; None means training.
        min_history: For scoring: share of the context kept for history, in [0, 1].
        bos_id: The token set before each document.
        seed: Non-negative seed of order and packing.
        shuffle: Whether epochs differ. Otherwise documents keep the order of entities and times
            where they are not packed, and rows are the same in every epoch.
        augment: For training: replaces values of a document, by (seed, epoch, document).
        budgets: What each source may take of a window (`DomainTokenizer.budgets`): windows are
            then the newest events within it, the next newest of those left, and so on, so that
            each event is in one window still. For scoring each event's history is what its
            window holds before it, and ``min_history`` is of no effect.

    Raises:
        DataError: No event has the roles asked for, the source has none, or an event is longer
            than the context.
        ConfigError: Arguments out of range, or that exclude each other.

    Example:
        >>> import polars as pl
        >>> events = TokenizedEvents(
        ...     ids=np.array([7, 12, 9, 7, 31], np.uint8),
        ...     event_offsets=np.array([0, 3, 5]), entity_offsets=np.array([0, 1, 2]),
        ...     entity_ids=pl.Series(["anna", "bob"]), times=np.array([10, 20]), roles=None,
        ...     tokenizer_fingerprint="f00d", vocab_size=32)
        >>> row = DomainSequenceDataset(events, context=8)[0]
        >>> row["input_ids"].tolist(), row["segment_lengths"].tolist()
        ([1, 7, 12, 9, 1, 7, 31], [4, 3])
        >>> row["labels"].tolist()
        [-100, 7, 12, 9, -100, 7, 31]
    """

    def __init__(
        self,
        source: TokenStore | TokenizedEvents,
        *,
        context: int = 512,
        packed: bool = True,
        keep: Keep = "all",
        train_roles: Iterable[int] | None = (0,),
        score_roles: Iterable[int] | None = None,
        min_history: float = 0.5,
        bos_id: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        augment: ValueSubstitution | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self.source = source
        self.context, self.packed, self.keep = context, packed, keep
        self.train_roles = None if train_roles is None else tuple(train_roles)
        self.score_roles = None if score_roles is None else tuple(score_roles)
        self.min_history, self.bos_id, self.seed, self.shuffle = min_history, bos_id, seed, shuffle
        self.augment, self.budgets = augment, budgets
        self._check_arguments()
        self.shards: tuple[Shard | TokenizedEvents, ...] = (
            source.shards if isinstance(source, TokenStore) else (source,)
        )
        self._documents = self._plan()
        self.epoch = 0
        self._rows = self._arrange()

    def _check_arguments(self) -> None:
        if self.keep not in ("all", "newest"):
            raise ConfigError(f"keep must be 'all' or 'newest', not {self.keep!r}")
        if self.score_roles is not None and self.keep == "newest":
            raise ConfigError(
                "keep='newest' and score_roles exclude each other",
                why="scoring plans its own windows, so that each event is scored once",
                next_step="leave keep at 'all'",
            )
        if self.score_roles is not None and self.augment is not None:
            raise ConfigError(
                "augment and score_roles exclude each other",
                why="events are scored as they happened",
                next_step="leave augment at None",
            )
        for role in (*(self.train_roles or ()), *(self.score_roles or ())):
            if not 0 <= role <= 255:
                raise ConfigError(
                    f"there is no split role {role}", next_step="0 train, 1 validation, 2 test"
                )
        if self.seed < 0:
            raise ConfigError(f"the seed must not be negative, but is {self.seed}")
        if not 0 <= self.bos_id < self.source.vocab_size:
            raise ConfigError(
                f"bos_id {self.bos_id} is outside the vocabulary of {self.source.vocab_size}"
            )

    def set_epoch(self, epoch: int) -> None:
        """Order and pack the rows anew by (seed, epoch); the number of rows stays."""
        if epoch < 0:
            raise ConfigError(f"the epoch must not be negative, but is {epoch}")
        if epoch != self.epoch:
            self.epoch = epoch
            if self.shuffle:
                self._rows = self._arrange()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.int64]]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        documents = self._rows.row(index)
        lengths = self._documents.windows.n_tokens[documents]
        input_ids = np.empty(int(lengths.sum()), np.int64)
        labels = np.full(input_ids.size, IGNORED, np.int64)
        begin = 0
        for document, length in zip(documents.tolist(), lengths.tolist(), strict=True):
            end = begin + length
            self._fill_document(document, input_ids[begin:end], labels[begin:end])
            begin = end
        return {
            "input_ids": input_ids,
            "labels": labels,
            "segment_lengths": lengths,
            "entity": self._documents.windows.entity[documents],
        }

    def events_of(self, index: int) -> list[DocumentEvents]:
        """Which events the documents of a row hold."""
        windows, found = self._documents.windows, []
        for document in self._rows.row(index).tolist():
            number = int(self._documents.shard[document])
            events = np.arange(windows.event_start[document], windows.event_stop[document])
            if self.budgets is not None:
                events = self._documents.orders[number][events]
            offsets = self.shards[number].event_offsets
            ends = 1 + np.cumsum(offsets[events + 1] - offsets[events])
            found.append(DocumentEvents(number, events, ends))
        return found

    @property
    def n_documents(self) -> int:
        """Number of windows, of all rows."""
        return len(self._documents.windows)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all rows, one BOS per document included."""
        return int(self._documents.windows.n_tokens.sum())

    @property
    def row_lengths(self) -> Ints:
        """Tokens of each row in the order of this epoch, [len(self)]."""
        return self._rows.row_lengths(self._documents.windows.n_tokens)

    @property
    def filled(self) -> float:
        """Share of the places of all rows, padded to the context, that hold tokens."""
        return self.n_tokens / (len(self) * self.context)

    def __reduce__(self) -> tuple[Callable[..., DomainSequenceDataset], tuple[Any, ...]]:
        arguments = {name: getattr(self, name) for name in _ARGUMENTS}
        return _rebuild, (self.source, arguments, self.epoch)

    def _plan(self) -> _Documents:
        plans, orders = [], []
        for number, shard in enumerate(self.shards):
            try:
                plan, order = self._plan_shard(shard)
                plans.append(plan)
                orders.append(order)
            except DataError as error:
                if len(self.shards) == 1:
                    raise
                where = f"shard {number}" + (f", {error.where}" if error.where else "")
                raise DataError(
                    error.what, where=where, why=error.why, next_step=error.next_step
                ) from error
        n_windows = [len(plan) for plan in plans]
        if not sum(n_windows):
            raise _no_events(self.train_roles if self.score_roles is None else self.score_roles)
        n_entities = [shard.n_entities for shard in self.shards]
        first_entity = np.cumsum([0, *n_entities[:-1]])
        token_start = [
            np.asarray(
                shard.event_offsets[order[plan.event_start] if len(order) else plan.event_start]
            )
            for shard, plan, order in zip(self.shards, plans, orders, strict=True)
        ]
        entity = [plan.entity + first for plan, first in zip(plans, first_entity, strict=True)]
        return _Documents(
            shard=np.repeat(np.arange(len(plans)), n_windows),
            token_start=np.concatenate(token_start),
            windows=Windows(
                entity=np.concatenate(entity),
                event_start=np.concatenate([plan.event_start for plan in plans]),
                event_stop=np.concatenate([plan.event_stop for plan in plans]),
                n_tokens=np.concatenate([plan.n_tokens for plan in plans]),
                score_start=np.concatenate([plan.score_start for plan in plans]),
            ),
            orders=tuple(orders),
        )

    def _plan_shard(self, shard: Shard | TokenizedEvents) -> tuple[Windows, Ints]:
        """The windows of a shard, and what their events are places of (empty: of all events)."""
        arrays = (shard.event_offsets, shard.entity_offsets, self.context)
        if self.score_roles is not None:
            if shard.roles is None:
                raise DataError(
                    "the events have no split roles, so there is nothing to tell which to score",
                    next_step="encode the table with roles=split.roles",
                )
            score = _has_role(np.asarray(shard.roles), self.score_roles)
            if self.budgets is not None:
                return self._plan_budgeted(shard, None, score)
            windows = plan_scoring_windows(*arrays, score=score, min_history=self.min_history)
            return windows, np.empty(0, np.int64)
        select = None
        if shard.roles is not None and self.train_roles is not None:
            select = _has_role(np.asarray(shard.roles), self.train_roles)
        if self.budgets is not None:
            return self._plan_budgeted(shard, select, None)
        return plan_windows(*arrays, keep=self.keep, select=select), np.empty(0, np.int64)

    def _plan_budgeted(
        self, shard: Shard | TokenizedEvents, select: Mask | None, score: Mask | None
    ) -> tuple[Windows, Ints]:
        assert self.budgets is not None
        plan = plan_budgeted(shard, self.budgets, self.context, keep=self.keep, select=select)
        if score is not None:
            plan = plan.having(score)
        start, stop = plan.offsets[:-1], plan.offsets[1:]
        return Windows(plan.entity, start, stop, plan.n_tokens, start), plan.events

    def _arrange(self) -> Packing:
        """Rows of this epoch. Keyed by (seed, epoch), so that resuming finds the same rows."""
        key = (self.seed, self.epoch if self.shuffle else 0)
        if self.packed:
            return pack(self._documents.windows.n_tokens, self.context, seed=key)
        rows = np.arange(self.n_documents + 1)
        order = rows[:-1]
        if self.shuffle:
            order = np.random.default_rng(key).permutation(self.n_documents)
        return Packing(row_offsets=rows, order=order)

    def _fill_document(self, document: int, input_ids: Ints, labels: Ints) -> None:
        """Write one document into its part of the row."""
        number = self._documents.shard[document]
        shard, windows = self.shards[number], self._documents.windows
        input_ids[0] = self.bos_id
        if self.budgets is None:
            start = int(self._documents.token_start[document])
            input_ids[1:] = shard.ids[start : start + input_ids.size - 1]
            scorable = np.arange(windows.score_start[document], windows.event_stop[document])
        else:
            first, last = windows.event_start[document], windows.event_stop[document]
            scorable = self._documents.orders[number][first:last]
            input_ids[1:] = shard.ids[gather_ranges(shard.event_offsets, scorable)[0]]
        if self.score_roles is None:
            if self.augment is not None:
                rng = np.random.default_rng((self.seed, self.epoch, document))
                input_ids[:] = self.augment(input_ids, rng)
            labels[1:] = input_ids[1:]
            return
        roles = shard.roles
        assert roles is not None  # planning has refused a source without roles
        lengths = shard.event_offsets[scorable + 1] - shard.event_offsets[scorable]
        scored = np.repeat(_has_role(roles[scorable], self.score_roles), lengths)
        part = slice(input_ids.size - scored.size, None)  # windows end with what they score
        labels[part] = np.where(scored, input_ids[part], IGNORED)


def _has_role(roles: npt.NDArray[np.uint8], wanted: tuple[int, ...]) -> Mask:
    table = np.zeros(256, np.bool_)
    table[list(wanted)] = True
    return table[roles]


def _no_events(roles: tuple[int, ...] | None) -> DataError:
    if roles is None:
        return DataError("there are no events", next_step="check the table and its filters")
    names = ", ".join(ROLE_NAMES[role] if role < 3 else str(role) for role in roles)
    return DataError(
        f"no event has the split role {names or '(none was named)'}",
        next_step="check the cuts of the split, or ask for other roles",
    )


def _rebuild(
    source: TokenStore | TokenizedEvents, arguments: dict[str, Any], epoch: int
) -> DomainSequenceDataset:
    dataset = DomainSequenceDataset(source, **arguments)
    dataset.set_epoch(epoch)
    return dataset
