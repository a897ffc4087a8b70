"""How the fields share one vocabulary: blocks of ids, and the slots of an event.

::

    id   0 … 3      4 … 6           7 … 19         20 … 52           …   first_bpe …
         specials   AMOUNT (sign)   TIME: month    TIME: dow …       …   byte-level BPE
                    ╰── block ───╯  ╰ slot ─────╯  ╰ slot …
                                    ╰── block of one field tokenizer ╯

A *block* holds the ids of one field tokenizer, a *slot* is one position of the event with the ids
that may stand there. Slots never overlap, so an id alone tells its slot; only BPE ids are shared
by all text fields.

In a tokenizer that was fitted once, a block is one range: global id = block start + local id. An
extension moves no id, so what it adds stands behind everything, in fields' order and then merges::

    … first_bpe … │ KIND=new  SHOP=new  SHOP=newer  merges │ KIND=newest  merges
      ╰ as fitted │ ╰─────── first extension ────────────╯ │ ╰ second extension ╯

So ask `Slot.ids`, `Layout.slot_of_id`, `Layout.local_of_id` and `Layout.ids_of`, which are right
for both, and never take ``range(slot.start, slot.stop)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError
from domainformer.schema.fields import GENERIC_SPECIALS, FieldSpec, FieldType
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.fields.text import FIRST_PIECE

PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(len(GENERIC_SPECIALS))

BPE = -1
"""What `Layout.slot_of_id` says of a BPE id."""
GENERIC = -2
"""What `Layout.slot_of_id` says of padding, BOS, EOS and UNK."""


@dataclass(frozen=True)
class Growth:
    """What one extension added to the end of a vocabulary.

    Args:
        parent: Fingerprint of the tokenizer that was extended.
        fields: New ids of each block, in their order; they belong to the block's last slot.
        pieces: New merges of the BPE, behind the new ids of the fields.
    """

    parent: str
    fields: tuple[int, ...]
    pieces: int


@dataclass(frozen=True)
class Slot:
    """One position of an event.

    Args:
        field: Name of the field.
        part: Calendar part or ``"elapsed"`` where a field has several positions, else "".
        start: First id that may stand here.
        stop: One past the last of the ids that were fitted at first.
        ragged: Whether BPE ids may follow (text: the slot itself is the marker or MISSING).
        kind: The field's type.
        missing: The id of a null.
        max_tokens: Most BPE ids that follow; 0 unless ragged.
        added: Ranges of ids that extensions added, oldest first.

    Example:
        >>> slot = Slot("kind", "", 4, 6, False, FieldType.CATEGORICAL_FIXED, 4, 0, (range(9, 11),))
        >>> slot.ids, slot.width, 10 in slot, 7 in slot
        (array([ 4,  5,  9, 10]), 4, True, False)
    """

    field: str
    part: str
    start: int
    stop: int
    ragged: bool
    kind: FieldType
    missing: int
    max_tokens: int
    added: tuple[range, ...] = ()

    @property
    def name(self) -> str:
        """``field``, or ``field.part`` for a field of several parts."""
        return f"{self.field}.{self.part}" if self.part else self.field

    @property
    def width(self) -> int:
        """Number of ids that may stand here."""
        return self.stop - self.start + sum(map(len, self.added))

    @property
    def ranges(self) -> tuple[range, ...]:
        """The ids that may stand here as ranges, as fitted and then as added."""
        return (range(self.start, self.stop), *self.added)

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        """The ids that may stand here, ascending, in the order of their local ids."""
        return _joined(self.ranges)

    @property
    def index(self) -> slice | npt.NDArray[np.int64]:
        """What takes this slot out of an axis over the vocabulary: a slice where one will do.

        A slice gives a view, so that a slot of a tokenizer without extensions costs no copy.
        """
        return self.ids if self.added else slice(self.start, self.stop)

    def __contains__(self, token_id: object) -> bool:
        return any(token_id in ids for ids in self.ranges)


@dataclass(frozen=True)
class Block:
    """The ids of one field tokenizer.

    Args:
        tokenizer: The fitted tokenizer.
        start: Global id of its local id 0.
        stop: One past its last own id as fitted at first (a text's BPE ids lie elsewhere).
        slots: Its positions in the event.
        added: Ranges of global ids that extensions added; their local ids follow the others.
    """

    tokenizer: FieldTokenizer
    start: int
    stop: int
    slots: tuple[Slot, ...]
    added: tuple[range, ...] = ()

    @property
    def spec(self) -> FieldSpec:
        """The field."""
        return self.tokenizer.spec

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        """Local id → global id, for the field's own ids."""
        return _joined((range(self.start, self.stop), *self.added))


@dataclass(frozen=True)
class Layout:
    """The vocabulary of fitted field tokenizers: which id belongs to whom.

    Args:
        blocks: In token order of an event.
        tokens: Generic specials and the tokens of all fields, in the order of their ids.
        pieces: Ranges of the BPE's ids, as trained and then as added; none where it has no BPE.
        growths: What extensions added, oldest first.
    """

    blocks: tuple[Block, ...]
    tokens: tuple[str, ...]
    pieces: tuple[range, ...] = ()
    growths: tuple[Growth, ...] = ()

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The positions of an event, in order."""
        return tuple(slot for block in self.blocks for slot in block.slots)

    @property
    def first_bpe(self) -> int:
        """The first id that belongs to BPE, where there is any."""
        if self.pieces:  # right also for a layout of some of the blocks
            return self.pieces[0].start
        return len(GENERIC_SPECIALS) + sum(block.stop - block.start for block in self.blocks)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.tokens) + sum(map(len, self.pieces))

    @property
    def has_text(self) -> bool:
        """Whether an event has a text."""
        return any(slot.ragged for slot in self.slots)

    @cached_property
    def piece_ids(self) -> npt.NDArray[np.int64]:
        """The BPE's own id → global id."""
        return _joined(self.pieces)

    @cached_property
    def token_ids(self) -> npt.NDArray[np.int64]:
        """The global ids of `tokens`."""
        return np.flatnonzero(self.slot_of_id != BPE)

    @cached_property
    def slot_of_id(self) -> npt.NDArray[np.int64]:
        """Index of the slot that an id belongs to, else `BPE` or `GENERIC`; ``[vocab_size]``."""
        owner = np.full(self.vocab_size, GENERIC, np.int64)
        for index, slot in enumerate(self.slots):
            owner[slot.index] = index
        owner[self.piece_ids] = BPE
        return owner

    @cached_property
    def local_of_id(self) -> npt.NDArray[np.int64]:
        """Local id within its block of every id; ``[vocab_size]``.

        A BPE id is 2 + the model's own id, in every text field; generic specials are themselves.
        """
        local = np.arange(self.vocab_size)
        for block in self.blocks:
            local[block.ids] = np.arange(len(block.ids))
        local[self.piece_ids] = np.arange(len(self.piece_ids)) + FIRST_PIECE
        return local

    def ids_of(self, block: Block) -> npt.NDArray[np.int64]:
        """Local id → global id of a block; for a text the pieces follow its own two."""
        own = block.ids
        return np.concatenate([own, self.piece_ids]) if block.tokenizer.width is None else own

    def to_global(self, block: Block, local: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Ids of the shared vocabulary for a block's local ids."""
        if block.tokenizer.width is None:
            if len(self.pieces) > 1:
                return self.ids_of(block)[local]
            return local + np.where(local < FIRST_PIECE, block.start, self.first_bpe - FIRST_PIECE)
        # One addition where it will do: a look-up costs several times as much.
        return block.ids[local] if block.added else local + block.start

    def to_local(self, block: Block, ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Local ids for ids of a block's own; the inverse of `to_global` without pieces."""
        return self.local_of_id[ids] if block.added else ids - block.start

    def of_pieces(self, own: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Ids of the shared vocabulary for the BPE model's own ids."""
        return self.piece_ids[own] if len(self.pieces) > 1 else own + self.first_bpe

    def with_pieces(self, count: int) -> Layout:
        """The same fields beside a BPE of ``count`` tokens in all."""
        if count == sum(map(len, self.pieces)):
            return self
        return lay_out((b.tokenizer for b in self.blocks), pieces=count, growths=self.growths)

    def vocabulary(self, pieces: Sequence[str] = ()) -> list[str]:
        """Id → token, where the BPE's own tokens are ``pieces``."""
        vocab = [""] * self.vocab_size
        for ids, tokens in ((self.token_ids, self.tokens), (self.piece_ids, pieces)):
            for index, token in zip(ids.tolist(), tokens, strict=True):
                vocab[index] = token
        return vocab


def lay_out(
    tokenizers: Iterable[FieldTokenizer], *, pieces: int = 0, growths: Sequence[Growth] = ()
) -> Layout:
    """Give each fitted field tokenizer its ids, in order.

    Args:
        tokenizers: With everything that extensions added to them.
        pieces: Tokens of the BPE in all; 0 where there is none, or none yet.
        growths: Which of the local ids and pieces, counted from the end, were added later.

    Raises:
        TokenizerError: Two fields own the same token, or the growths are none of these fields'.

    Example:
        >>> import polars as pl
        >>> from domainformer.tokenizers.fields.numeric import SignTokenizer
        >>> sign = SignTokenizer(FieldSpec("amount", "sign")).fit(pl.Series([1.0]))
        >>> layout = lay_out([sign], pieces=256)
        >>> layout.slots[0].ids, layout.tokens[4], layout.pieces
        (array([4, 5, 6]), '[AMOUNT_MISSING]', (range(7, 263),))
    """
    fields = list(tokenizers)
    for growth in growths:
        _check_growth(fields, growth)
    base = [len(field.vocab) - sum(g.fields[i] for g in growths) for i, field in enumerate(fields)]
    tokens = list(GENERIC_SPECIALS)
    blocks = []
    for field, size in zip(fields, base, strict=True):
        start = len(tokens)
        tokens += field.vocab[:size]
        blocks.append(Block(field, start, start + size, ()))
    # Before its BPE is trained an extended layout cannot be asked for, so that 0 means none.
    trained = max(0, pieces - sum(growth.pieces for growth in growths))
    ranges = [range(len(tokens), len(tokens) + trained)] if trained else []
    end, sizes = len(tokens) + trained, list(base)
    for growth in growths:
        for index, count in enumerate(growth.fields):
            if count:
                tokens += fields[index].vocab[sizes[index] : sizes[index] + count]
                sizes[index] += count
                added = (*blocks[index].added, range(end, end + count))
                blocks[index] = replace(blocks[index], added=added)
                end += count
        if trained and growth.pieces:
            ranges.append(range(end, end + growth.pieces))
            end += growth.pieces
    _check_distinct(tokens)
    placed = tuple(replace(block, slots=_slots_of(block)) for block in blocks)
    return Layout(placed, tuple(tokens), tuple(ranges), tuple(growths))


def _joined(ranges: Iterable[range]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(np.arange(r.start, r.stop) for r in ranges)])


def _slots_of(block: Block) -> tuple[Slot, ...]:
    tokenizer = block.tokenizer
    spec, ragged, parts = tokenizer.spec, tokenizer.width is None, tokenizer.slots
    size = block.stop - block.start
    return tuple(
        Slot(
            field=spec.name,
            part=part,
            start=block.start + first,
            stop=block.start + min(last, size),
            ragged=ragged,
            kind=spec.field_type,
            # Each part's own missing token stands first in its range.
            missing=block.start + first,
            max_tokens=spec.max_tokens if ragged else 0,
            # New local ids follow the old ones, so they can only be the last part's.
            added=block.added if index == len(parts) - 1 else (),
        )
        for index, (part, first, last) in enumerate(parts)
    )


def _check_growth(fields: Sequence[FieldTokenizer], growth: Growth) -> None:
    if len(growth.fields) == len(fields) and all(
        0 <= count < len(field.vocab) for field, count in zip(fields, growth.fields, strict=True)
    ):
        return
    raise TokenizerError(
        "the record of an extension does not belong to these fields",
        where=f"the extension of tokenizer {growth.parent}",
        why=f"it names {len(growth.fields)} fields, there are {len(fields)}",
        next_step="restore the tokenizer's folder from a copy; its files cannot be mixed",
    )


def _check_distinct(tokens: Sequence[str]) -> None:
    if len(set(tokens)) == len(tokens):
        return
    seen: set[str] = set()
    twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
    raise TokenizerError(
        f"two fields own the token {twice}",
        next_step="rename one of the fields in the schema and give its column",
    )
