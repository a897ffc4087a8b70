"""ActionPieceMerges: tokens that stand for several fields, or for parts of adjacent events.

::

    TokenizedEvents ─fit─▶ ActionPieceMerges ─┬▶ encode            fewer tokens per event
                                              ├▶ encode_permuted   one of many, for training
                                              ├▶ decode            the events again, exactly
                                              └▶ describe, save
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.artifacts import fingerprint
from domainformer.data.store import TokenStore
from domainformer.data.tokens import Ints, TokenizedEvents
from domainformer.errors import FingerprintError, TokenizerError
from domainformer.tokenizers.merges import files
from domainformer.tokenizers.merges.decoding import decode_events, decode_flat
from domainformer.tokenizers.merges.encoding import encode_greedy, encode_permuted, encode_sets
from domainformer.tokenizers.merges.fitting import Learned, learn_rules
from domainformer.tokenizers.merges.histories import check_sets, field_order
from domainformer.tokenizers.merges.table import MergeTable

Progress = Callable[[int, int], None]
"""Called now and then with the number of merges so far and the number wanted."""


class ActionPieceMerges:
    """Merges of tokens inside events and across adjacent events, learned from histories.

    An event is a *set* of tokens. The pair of tokens with the largest weight becomes a token of
    its own, over and over, until the vocabulary is full. In a set of M tokens a pair weighs 2/M,
    across two adjacent sets 1/(M₁M₂); a pair is two tokens at a fixed distance in events, so that
    each merged token says which of its parts belongs to which event. A merge across events leaves
    its token in the slot between them, one at most, from where it may merge on with either side.

    Equal weights fall to the lower ids. Weights are summed as integers, so that nothing depends on
    the order of events, entities or shards.

    A merged token belongs to the *last* event that it reaches into. So what an event's tokens tell
    never goes beyond that event, and a history that is cut after an event knows nothing of later
    ones. Merges never cross a change of split role, so a training event never holds a part of a
    validation event, nor the other way round.

    Args:
        table: The rules.
        base_fingerprint: The tokenizer whose ids are merged.
        slot_of_id: Slot of each base id (`Layout.slot_of_id`), or None where events are free sets.
        weights: What each rule's pair weighed when it was learned.
        note: How learning ended.

    Raises:
        TokenizerError: The rules contradict each other.

    Source: Hou et al., ActionPiece: Contextually Tokenizing Action Sequences for Generative
    Recommendation (arXiv 2502.13581), section 3.

    Example:
        >>> import polars as pl
        >>> events = TokenizedEvents(
        ...     ids=np.array([4, 8, 5, 9, 4, 8, 4, 8], np.uint8),
        ...     event_offsets=np.array([0, 2, 4, 6, 8]), entity_offsets=np.array([0, 2, 4]),
        ...     entity_ids=pl.Series(["anna", "bob"]), times=np.array([1, 2, 1, 2]), roles=None,
        ...     tokenizer_fingerprint="f00d", vocab_size=10)
        >>> merges = ActionPieceMerges.fit(events, vocab_size=11)
        >>> merges.describe(10)["events"], merges.describe(10)["weight"]
        ([[4, 8]], 3.0)
        >>> merged = merges.encode(events)
        >>> merged.ids.tolist(), merged.event_offsets.tolist()
        ([10, 5, 9, 10, 10], [0, 1, 3, 4, 5])
        >>> merges.decode(merged) == events
        True
    """

    def __init__(
        self,
        table: MergeTable,
        *,
        base_fingerprint: str,
        slot_of_id: Ints | None = None,
        weights: Sequence[float] = (),
        note: str = "",
    ) -> None:
        self.table = table
        self.base_fingerprint = base_fingerprint
        self.slot_of_id = slot_of_id
        self.weights = tuple(weights)
        self.note = note

    @classmethod
    def fit(
        cls,
        events: TokenizedEvents | TokenStore,
        *,
        vocab_size: int,
        slot_of_id: npt.ArrayLike | None = None,
        train_roles: Iterable[int] | None = (0,),
        progress: Progress | None = None,
        compiled: bool | None = None,
        across_events: bool = True,
    ) -> ActionPieceMerges:
        """Learn merges from training events.

        Args:
            events: Ids of a fitted tokenizer; within each event distinct, and ascending by slot
                and id, as `DomainTokenizer.encode` gives them.
            vocab_size: Size to reach, base vocabulary included. Learning ends before where no pair
                is left; ``note`` says so.
            slot_of_id: `Layout.slot_of_id` of the tokenizer. Needed to decode flat ids, to see
                text, and for tokenizers that were extended; None for events that are free sets.
            train_roles: Events of these split roles are used, or all where None. Of no effect
                where the events have no roles.
            progress: Called with (merges so far, merges wanted).
            compiled: Use numba (extra ``fast``); None where it is installed. The merges are equal.
            across_events: Also merge parts of adjacent events. Without, each event is encoded by
                itself, so that a history's tokens never depend on what comes after it.

        Raises:
            TokenizerError: An event holds text, a token twice, or tokens out of order; or
                ``vocab_size`` is smaller than the base vocabulary.
            DataError: There are no training events.
        """
        events = events.events() if isinstance(events, TokenStore) else events
        slots = None if slot_of_id is None else np.asarray(slot_of_id, dtype=np.int64)
        order = field_order(events.vocab_size, slots)
        check_sets(events, order, slots)
        learned: Learned = learn_rules(
            events,
            vocab_size,
            train_roles=train_roles,
            progress=progress,
            compiled=compiled,
            across_events=across_events,
        )
        return cls(
            MergeTable.of(events.vocab_size, learned.rules, order),
            base_fingerprint=events.tokenizer_fingerprint,
            slot_of_id=slots,
            weights=learned.weights,
            note=learned.note,
        )

    # ── what is known ────────────────────────────────────────────────────────────────────────

    @property
    def base_vocab_size(self) -> int:
        """Number of ids before merging."""
        return self.table.base

    @property
    def n_merges(self) -> int:
        """Number of merged tokens."""
        return self.table.n_rules

    @property
    def vocab_size(self) -> int:
        """Number of ids, base vocabulary and merges."""
        return self.table.size

    @property
    def crosses_events(self) -> bool:
        """Whether a token may hold parts of several events."""
        return bool((self.table.span > 1).any())

    @cached_property
    def fingerprint(self) -> str:
        """Short name of all that decides merged ids."""
        return fingerprint(
            {
                "base": self.base_fingerprint,
                "rules": self.rules.tolist(),
                "order": self.table.order.tolist(),
            }
        )

    @property
    def rules(self) -> Ints:
        """(left, right, distance in events) of each merge, int64 [n_merges, 3]."""
        return np.stack([self.table.left, self.table.right, self.table.distance], axis=1)

    # ── encoding ─────────────────────────────────────────────────────────────────────────────

    def encode(self, events: TokenizedEvents, *, compiled: bool | None = None) -> TokenizedEvents:
        """Merge greedily: of all rules that apply the earliest learned, at the oldest event.

        The result has the same events; ``event_offsets`` still index them. A token of several
        events stands with the last of them, before that event's own tokens, and an event whose
        tokens have all gone into later ones has none. Deterministic; the form for labels.

        Args:
            events: Ids of the tokenizer that the merges were learned for.
            compiled: Use numba (extra ``fast``); None where it is installed. The ids are equal.

        Raises:
            FingerprintError: The ids come from another tokenizer.
            TokenizerError: An event holds a token twice, or tokens out of order.
        """
        self._check(events)
        return encode_greedy(events, self.table, self.fingerprint, compiled=compiled)

    def encode_permuted(
        self,
        events: TokenizedEvents,
        *,
        seed: int,
        epoch: int = 0,
        compiled: bool | None = None,
    ) -> TokenizedEvents:
        """Put each event's tokens in random order and merge neighbours only, as plain BPE does.

        One of many encodings of the same events (set permutation regularisation): a fresh one per
        epoch in training, several for averaging at inference. What an entity gets depends on
        (seed, epoch, its id), not on the other entities.

        Args:
            events: Ids of the tokenizer that the merges were learned for.
            seed: Any integer.
            epoch: Number of the epoch, or of the encoding.
            compiled: As in `encode`.

        Raises:
            FingerprintError: The ids come from another tokenizer.
            TokenizerError: As in `encode`.
        """
        self._check(events)
        key = (seed, epoch)
        return encode_permuted(events, self.table, self.fingerprint, key=key, compiled=compiled)

    def permutations(
        self, events: TokenizedEvents, k: int = 5, *, seed: int = 0, compiled: bool | None = None
    ) -> list[TokenizedEvents]:
        """``k`` permuted encodings, for averaging at inference.

        Raises:
            TokenizerError: ``k`` is less than 1.
        """
        if k < 1:
            raise TokenizerError(f"{k} encodings were asked for", next_step="ask for 1 or more")
        return [
            self.encode_permuted(events, seed=seed, epoch=number, compiled=compiled)
            for number in range(k)
        ]

    def encode_event(self, ids: Sequence[int]) -> list[int]:
        """Greedy merges of one event alone, as a label is encoded.

        Example:
            >>> table = MergeTable.of(5, [[1, 2, 0], [0, 5, 0]])
            >>> ActionPieceMerges(table, base_fingerprint="f00d").encode_event([0, 1, 2, 4])
            [6, 4]
        """
        return encode_sets([list(ids)], self.table)[0]

    # ── decoding ─────────────────────────────────────────────────────────────────────────────

    def decode(self, events: TokenizedEvents) -> TokenizedEvents:
        """The events before merging: ``decode(encode(x)) == x``, and for permuted ones, too.

        Raises:
            FingerprintError: The ids were not made by these merges.
            TokenizerError: A token reaches over the beginning of its history.
        """
        if events.tokenizer_fingerprint != self.fingerprint or events.vocab_size != self.vocab_size:
            raise _other("these merges", self.fingerprint, events)
        decoded = decode_events(events, self.table)
        return replace(
            decoded, tokenizer_fingerprint=self.base_fingerprint, vocab_size=self.base_vocab_size
        )

    def decode_ids(self, ids: npt.ArrayLike) -> list[list[int]]:
        """Base ids of each event from a flat sequence of merged ids, without offsets.

        Works backwards from the end, where an event is complete: an event is complete when each
        of its slots is filled. Padding, BOS and EOS may stand between histories.

        Raises:
            TokenizerError: The merges know no slots; or the ids are not whole events, or events
                have different slots.
        """
        if self.slot_of_id is None:
            raise TokenizerError(
                "flat ids cannot be cut into events",
                why="the merges were learned without slot_of_id, so an event has no known end",
                next_step="fit with slot_of_id=tokenizer.layout.slot_of_id, or decode events",
            )
        return decode_flat(ids, self.table, self.slot_of_id)

    def describe(self, token: int, vocab: Sequence[str] | None = None) -> dict[str, Any]:
        """What a token stands for, as plain data.

        Args:
            token: An id of the merged vocabulary.
            vocab: Base id → token string (`DomainTokenizer.vocab`); adds ``token``, in which
                ``+`` joins tokens of one event and ``▸`` leads to the next.

        Raises:
            TokenizerError: There is no such id.

        Example:
            >>> merges = ActionPieceMerges(MergeTable.of(3, [[1, 2, 0], [0, 3, -1]]),
            ...                            base_fingerprint="f00d")
            >>> merges.describe(4, vocab=["a", "b", "c"])["token"]
            'b+c▸a'
        """
        events = self.table.parts(token)
        described: dict[str, Any] = {"id": token}
        if vocab is not None:
            described["token"] = "▸".join(
                "+".join(vocab[part] for part in event) for event in events
            )
        rule = token - self.base_vocab_size
        described |= {"kind": "merge" if rule >= 0 else "base", "events": events}
        if rule >= 0:
            described["of"] = [int(self.table.left[rule]), int(self.table.right[rule])]
            described["distance"] = int(self.table.distance[rule])
        if 0 <= rule < len(self.weights):
            described["weight"] = self.weights[rule]
        return described

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one JSON file with a format version and a checksum.

        Raises:
            ArtifactError: The file exists, or cannot be written; nothing partial is left.
        """
        state = {
            "base_vocab_size": self.base_vocab_size,
            "base_fingerprint": self.base_fingerprint,
            "slot_of_id": None if self.slot_of_id is None else self.slot_of_id.tolist(),
            "rules": self.rules.tolist(),
            "weights": list(self.weights),
            "note": self.note,
        }
        return files.write(Path(path), state, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> ActionPieceMerges:
        """Read what `save` has written.

        Raises:
            ArtifactError: The file is missing, damaged, something else, or of a newer version.
        """
        state = files.read(Path(path))
        with files.as_damage(Path(path)):
            base, slots = int(state["base_vocab_size"]), state["slot_of_id"]
            slot_of_id = None if slots is None else np.asarray(slots, dtype=np.int64)
            return cls(
                MergeTable.of(base, state["rules"], field_order(base, slot_of_id)),
                base_fingerprint=str(state["base_fingerprint"]),
                slot_of_id=slot_of_id,
                weights=[float(weight) for weight in state["weights"]],
                note=str(state["note"]),
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActionPieceMerges):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"ActionPieceMerges({self.base_vocab_size:,} + {self.n_merges:,} merges)"

    def _check(self, events: TokenizedEvents) -> None:
        known = (self.base_fingerprint, self.base_vocab_size)
        if (events.tokenizer_fingerprint, events.vocab_size) != known:
            raise _other("the tokenizer of these merges", self.base_fingerprint, events)
        check_sets(events, self.table.order, self.slot_of_id)


def _other(what: str, expected: str, events: TokenizedEvents) -> FingerprintError:
    return FingerprintError(
        f"the ids were not made by {what}",
        why=f"{events.tokenizer_fingerprint} ({events.vocab_size:,} entries) made them, and "
        f"{expected} was expected",
        next_step="encode merges what the base tokenizer has encoded, and decode undoes it",
    )
