"""The items of many users in order, as numbers: what item models are fitted on and read.

Columns of an :class:`~domainformer.data.table.EventTable` become two arrays, items and offsets;
splits cut items off the ends of histories, without copies per user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from domainformer.data.table import EventTable
from domainformer.data.tokens import gather_ranges
from domainformer.errors import DataError, MissingExtraError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemHistories:
    """The items of many users in order, as numbers from 0.

    Args:
        items: int64 ``[events]``, in ``[0, n_items)``.
        offsets: int64 ``[users + 1]``.
        n_items: Size of the catalogue; items without an event count.

    Example:
        >>> histories = ItemHistories(np.array([3, 1, 0, 2]), np.array([0, 3, 4]), 5)
        >>> histories.without_last(1).items.tolist(), histories.last(1).tolist()
        ([3, 1], [0, 2])
    """

    items: Ints
    offsets: Ints
    n_items: int

    def __post_init__(self) -> None:
        if (
            len(self.items)
            and not 0 <= int(self.items.min()) <= int(self.items.max()) < self.n_items
        ):
            raise DataError(
                f"an item number lies outside of [0, {self.n_items})",
                why=f"they run from {self.items.min()} to {self.items.max()}",
                next_step="number the catalogue from 0: ItemHistories.of does",
            )

    @classmethod
    def of(cls, table: EventTable, item: str, catalogue: Sequence[Any] | None = None) -> Self:
        """Read one column of a table.

        Args:
            table: Events in order of time.
            item: Name of the item column.
            catalogue: All items in the order of their numbers; None: those of the table, sorted.

        Raises:
            DataError: There is no such column, it has nulls, or an item not of the catalogue.
        """
        if item not in table.frame.columns:
            raise DataError(f"there is no column {item!r}", where=repr(table))
        column = table.frame[item]
        known = list(column.drop_nulls().unique().sort() if catalogue is None else catalogue)
        numbers = column.replace_strict(known, range(len(known)), default=None)
        if numbers.null_count():
            row = int(numbers.is_null().arg_true()[0])
            raise DataError(
                f"the item {column[row]!r} is not in the catalogue",
                where=f"row {row}",
                next_step="leave such events out, or add the item to the catalogue",
            )
        return cls(numbers.to_numpy().astype(np.int64), table.offsets.astype(np.int64), len(known))

    @property
    def n_users(self) -> int:
        """Users, those without an item included."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Items per user, ``[users]``."""
        return np.diff(self.offsets)

    def without_last(self, count: int) -> ItemHistories:
        """The same users without their last ``count`` items (none where they have fewer)."""
        kept = np.maximum(self.lengths - count, 0)
        offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        shift = np.repeat(self.offsets[:-1] - offsets[:-1], kept)
        chosen = np.arange(offsets[-1], dtype=np.int64) + shift
        return ItemHistories(self.items[chosen], offsets, self.n_items)

    def last(self, back: int) -> Ints:
        """Each user's item ``back`` steps from the end (1 is the last), ``[users]``.

        Raises:
            DataError: A user has fewer items.
        """
        if (self.lengths < back).any():
            user = int(np.argmax(self.lengths < back))
            raise DataError(f"user {user} has fewer than {back} items", where=f"user {user}")
        return self.items[self.offsets[1:] - back]

    def take(self, users: Ints) -> ItemHistories:
        """Some users, in the order given."""
        chosen, offsets = gather_ranges(self.offsets, users)
        return ItemHistories(self.items[chosen], offsets, self.n_items)

    def weights(self, decay: float, memory: int) -> Any:
        """CSR ``[users, items]``: ``decay^steps_from_the_end`` for the last ``memory`` items."""
        back = np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.items))
        users = np.repeat(np.arange(self.n_users), self.lengths)
        near = back < memory
        values = np.power(decay, back[near]).astype(np.float32)
        shape = (self.n_users, self.n_items)
        return sparse_module().csr_matrix((values, (users[near], self.items[near])), shape=shape)


def sparse_module() -> Any:
    """``scipy.sparse``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from scipy import sparse
    except ImportError as error:
        raise MissingExtraError("scipy", extra="gbdt", purpose="an item baseline") from error
    return sparse
