"""Tokenized histories as flat arrays: what a tokenizer returns and a store keeps.

Nothing is an object per event. Two offset arrays say where each event and each entity begins::

    ids             │ 7 12 9 │ 7 31 │ 8 12 9 4 │ 7 12 9 │        tokens, one flat array
    event_offsets   0        3      5          9        12       into ids
    entity_offsets  0               2                   4        into events
    entity_ids      "anna"          "bob"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError, FingerprintError

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.unsignedinteger[Any]]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MAX_VOCAB_SIZE = 1 << 32


def id_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest unsigned integer type that holds every id below ``vocab_size``.

    Raises:
        DataError: The vocabulary is empty or has more than 2³² entries.

    Example:
        >>> [id_dtype(n).name for n in (256, 257, 65_537)]
        ['uint8', 'uint16', 'uint32']
    """
    if not 1 <= vocab_size <= MAX_VOCAB_SIZE:
        raise DataError(f"a vocabulary of {vocab_size} entries cannot be stored")
    if vocab_size <= 1 << 8:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


@dataclass(frozen=True, eq=False)
class History:
    """The tokens of one entity, oldest event first.

    Args:
        ids: Token ids, [n_tokens].
        event_offsets: Where each event begins in ``ids``, [n_events + 1], first 0.
        times: Event times, [n_events] (µs since 1970, or raw integers; null is the smallest int64).
        roles: Split role of each event, [n_events], or None where none were given.
        entity_id: The entity's own name, as the source column has it.
    """

    ids: Ids
    event_offsets: Ints
    times: Ints
    roles: Bytes | None
    entity_id: Any

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.times)

    def event(self, index: int) -> Ids:
        """The token ids of one event."""
        return self.ids[self.event_offsets[index] : self.event_offsets[index + 1]]


@dataclass(frozen=True, eq=False)
class TokenizedEvents:
    """Ragged token ids of many entities (see the picture at the top of the module).

    Construction checks what can be checked without reading the arrays through;
    :meth:`validate` checks every element.

    Args:
        ids: Token ids, [n_tokens], of type ``id_dtype(vocab_size)``.
        event_offsets: int64 [n_events + 1], into ``ids``, first 0, never falling.
        entity_offsets: int64 [n_entities + 1], into events, first 0, never falling.
        entity_ids: The entities' own names, [n_entities], any scalar type, no nulls, distinct.
        times: int64 [n_events].
        roles: uint8 [n_events] (0 train, 1 validation, 2 test), or None.
        tokenizer_fingerprint: Which fitted tokenizer made the ids.
        vocab_size: Number of entries of its vocabulary.

    Raises:
        DataError: Lengths, types or first and last offsets contradict each other.

    Example:
        >>> events = TokenizedEvents(
        ...     ids=np.array([7, 12, 9, 7, 31], np.uint8),
        ...     event_offsets=np.array([0, 3, 5]), entity_offsets=np.array([0, 1, 2]),
        ...     entity_ids=pl.Series(["anna", "bob"]), times=np.array([10, 20]), roles=None,
        ...     tokenizer_fingerprint="f00d", vocab_size=32)
        >>> events.n_entities, events.lengths.tolist()
        (2, [3, 2])
        >>> events.history(1).entity_id, events.history(1).ids.tolist()
        ('bob', [7, 31])
    """

    ids: Ids
    event_offsets: Ints
    entity_offsets: Ints
    entity_ids: pl.Series
    times: Ints
    roles: Bytes | None
    tokenizer_fingerprint: str
    vocab_size: int

    def __post_init__(self) -> None:
        self._check_types()
        problem = structure_problem(
            self.ids, self.event_offsets, self.entity_offsets, self.times, self.roles
        )
        if problem is None and len(self.entity_ids) != self.n_entities:
            problem = f"{len(self.entity_ids)} entity ids for {self.n_entities} entities"
        if problem is not None:
            raise DataError("the arrays of tokenized events contradict each other", why=problem)

    def _check_types(self) -> None:
        expected = {
            "ids": id_dtype(self.vocab_size),
            "event_offsets": np.dtype(np.int64),
            "entity_offsets": np.dtype(np.int64),
            "times": np.dtype(np.int64),
            "roles": np.dtype(np.uint8),
        }
        for name, dtype in expected.items():
            array = getattr(self, name)
            if array is None and name == "roles":
                continue
            if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
                found = f"{getattr(array, 'dtype', type(array).__name__)}"
                raise DataError(
                    f"{name} must be a flat array of {dtype.name}",
                    why=f"found {found} with shape {getattr(array, 'shape', '?')}",
                    next_step=f"pass np.asarray({name}, dtype=np.{dtype.name})",
                )

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all entities."""
        return len(self.ids)

    @property
    def n_events(self) -> int:
        """Number of events of all entities."""
        return len(self.event_offsets) - 1

    @property
    def n_entities(self) -> int:
        """Number of entities."""
        return len(self.entity_offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Number of tokens of each entity, [n_entities]."""
        return np.diff(self.event_offsets[self.entity_offsets])

    def history(self, index: int) -> History:
        """The tokens of one entity, as views (nothing is copied but the event offsets)."""
        check_entity_index(index, self.n_entities)
        return cut_history(self, index, self.entity_ids[index])

    def take_entities(self, indices: npt.ArrayLike) -> TokenizedEvents:
        """The histories of some entities, in the order of ``indices`` (or a boolean mask).

        Raises:
            DataError: An index is out of range, or named twice.
        """
        chosen = _as_indices(indices, self.n_entities)
        events, entity_offsets = gather_ranges(self.entity_offsets, chosen)
        tokens, event_offsets = gather_ranges(self.event_offsets, events)
        return TokenizedEvents(
            ids=self.ids[tokens],
            event_offsets=event_offsets,
            entity_offsets=entity_offsets,
            entity_ids=self.entity_ids.gather(chosen),
            times=self.times[events],
            roles=None if self.roles is None else self.roles[events],
            tokenizer_fingerprint=self.tokenizer_fingerprint,
            vocab_size=self.vocab_size,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[TokenizedEvents]) -> TokenizedEvents:
        """Put shards of different entities one after the other.

        Raises:
            DataError: No part was given, or only some have roles, or the id types differ.
            FingerprintError: The parts come from different tokenizers.
        """
        parts = list(parts)
        if not parts:
            raise DataError("there is nothing to concatenate", next_step="pass at least one part")
        for part in parts[1:]:
            check_same_kind(parts[0], part)
        roles = [part.roles for part in parts if part.roles is not None]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            event_offsets=_chain_offsets([part.event_offsets for part in parts]),
            entity_offsets=_chain_offsets([part.entity_offsets for part in parts]),
            entity_ids=pl.concat([part.entity_ids for part in parts], rechunk=True),
            times=np.concatenate([part.times for part in parts]),
            roles=np.concatenate(roles) if roles else None,
            tokenizer_fingerprint=parts[0].tokenizer_fingerprint,
            vocab_size=parts[0].vocab_size,
        )

    def validate(self) -> None:
        """Check every element: offsets never fall, ids are in the vocabulary, entities distinct.

        Raises:
            DataError: With the event, entity or token concerned.
        """
        for name, offsets in (("event", self.event_offsets), ("entity", self.entity_offsets)):
            falling = np.flatnonzero(np.diff(offsets) < 0)
            if falling.size:
                raise DataError(f"{name}_offsets fall", where=f"{name} {falling[0]}")
        if self.n_tokens and int(self.ids.max()) >= self.vocab_size:
            token = int(np.argmax(self.ids >= self.vocab_size))
            event = int(np.searchsorted(self.event_offsets, token, side="right")) - 1
            raise DataError(
                f"the id {self.ids[token]} is outside the vocabulary of {self.vocab_size}",
                where=f"event {event}",
            )
        check_entity_ids(self.entity_ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenizedEvents):
            return NotImplemented
        arrays = ("ids", "event_offsets", "entity_offsets", "times")
        return (
            self.tokenizer_fingerprint == other.tokenizer_fingerprint
            and self.vocab_size == other.vocab_size
            and (self.roles is None) == (other.roles is None)
            and all(np.array_equal(getattr(self, a), getattr(other, a)) for a in arrays)
            and (self.roles is None or np.array_equal(self.roles, np.asarray(other.roles)))
            and self.entity_ids.dtype == other.entity_ids.dtype
            and self.entity_ids.equals(other.entity_ids)
        )

    __hash__ = None  # type: ignore[assignment]  # large arrays, compared by content


def structure_problem(
    ids: Ids, event_offsets: Ints, entity_offsets: Ints, times: Ints, roles: Bytes | None
) -> str | None:
    """How lengths and first and last offsets contradict each other, or None where they agree.

    Takes constant time, whatever the size.
    """
    for name, offsets, end in (
        ("event_offsets", event_offsets, len(ids)),
        ("entity_offsets", entity_offsets, len(event_offsets) - 1),
    ):
        if not len(offsets):
            return f"{name} is empty; it has at least the element 0"
        if offsets[0] != 0 or offsets[-1] != end:
            return f"{name} runs from {offsets[0]} to {offsets[-1]} and should run from 0 to {end}"
    n_events = len(event_offsets) - 1
    for name, array in (("times", times), ("roles", roles)):
        if array is not None and len(array) != n_events:
            return f"{len(array)} {name} for {n_events} events"
    return None


def check_same_kind(first: TokenizedEvents, other: TokenizedEvents) -> None:
    """Check that two shards can stand in one collection."""
    if (first.tokenizer_fingerprint, first.vocab_size) != (
        other.tokenizer_fingerprint,
        other.vocab_size,
    ):
        raise FingerprintError(
            "the shards were made by different tokenizers",
            why=f"{first.tokenizer_fingerprint} ({first.vocab_size} entries) and "
            f"{other.tokenizer_fingerprint} ({other.vocab_size} entries)",
            next_step="encode all shards with one fitted tokenizer",
        )
    if (first.roles is None) != (other.roles is None):
        raise DataError("some shards have split roles and some have none")
    if first.entity_ids.dtype != other.entity_ids.dtype:
        raise DataError(
            "the entity ids of the shards have different types",
            why=f"{first.entity_ids.dtype} and {other.entity_ids.dtype}",
            next_step="cast the entity column to one type before encoding",
        )


def check_entity_index(index: int, count: int) -> None:
    """Check that there is such an entity; negative indices do not count from the end."""
    if not 0 <= index < count:
        raise DataError(f"there is no entity {index}", why=f"there are {count}, from 0")


def check_entity_ids(entity_ids: pl.Series) -> None:
    """Check that entity ids are there and distinct: an entity has one history, in one place."""
    if entity_ids.null_count():
        raise DataError("an entity id is null", where=f"entity {entity_ids.is_null().arg_max()}")
    if entity_ids.n_unique() != len(entity_ids):
        twice = entity_ids.filter(entity_ids.is_duplicated())[0]
        raise DataError(
            f"the entity {twice!r} occurs twice",
            why="all events of an entity stand together, in one shard",
            next_step="sort the table by entity and cut shards between entities",
        )


class RaggedTokens(Protocol):
    """Arrays of tokens, events and entities, in memory or mapped from a file."""

    @property
    def ids(self) -> Ids:
        """Token ids."""

    @property
    def event_offsets(self) -> Ints:
        """Where events begin in ``ids``."""

    @property
    def entity_offsets(self) -> Ints:
        """Where entities begin among the events."""

    @property
    def times(self) -> Ints:
        """Event times."""

    @property
    def roles(self) -> Bytes | None:
        """Split roles of the events."""


def cut_history(tokens: RaggedTokens, index: int, entity_id: Any) -> History:
    """One entity's history as views; only its event offsets are copied, to begin at 0."""
    first, last = int(tokens.entity_offsets[index]), int(tokens.entity_offsets[index + 1])
    offsets = np.asarray(tokens.event_offsets[first : last + 1])
    return History(
        ids=tokens.ids[offsets[0] : offsets[-1]],
        event_offsets=offsets - offsets[0],
        times=tokens.times[first:last],
        roles=None if tokens.roles is None else tokens.roles[first:last],
        entity_id=entity_id,
    )


def gather_ranges(offsets: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Positions inside some ranges of a ragged array, and the offsets of what they gather.

    Example:
        >>> [a.tolist() for a in gather_ranges(np.array([0, 2, 5, 6]), np.array([2, 0]))]
        [[5, 0, 1], [0, 1, 3]]
    """
    lengths = offsets[chosen + 1] - offsets[chosen]
    new_offsets = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(lengths, out=new_offsets[1:])
    shift = np.repeat(offsets[chosen] - new_offsets[:-1], lengths)
    return np.arange(new_offsets[-1], dtype=np.int64) + shift, new_offsets


def _as_indices(indices: npt.ArrayLike, count: int) -> Ints:
    array = np.asarray(indices)
    if array.dtype == np.bool_:
        if array.shape != (count,):
            raise DataError(f"the mask has shape {array.shape} and should have ({count},)")
        return np.flatnonzero(array)
    chosen = array.astype(np.int64).reshape(-1)
    if chosen.size:
        check_entity_index(int(chosen.min()), count)
        check_entity_index(int(chosen.max()), count)
    if np.unique(chosen).size != chosen.size:
        raise DataError("an entity is chosen twice", next_step="pass distinct indices")
    return chosen


def _chain_offsets(parts: Sequence[Ints]) -> Ints:
    ends = np.cumsum([0, *(part[-1] for part in parts)])
    return np.concatenate(
        [np.zeros(1, np.int64), *(part[1:] + end for part, end in zip(parts, ends, strict=False))]
    )
