"""How the fields share one vocabulary: blocks of ids, and the slots of an event.

::

    id   0 … 3      4 … 6           7 … 19         20 … 52           …   first_bpe …
         specials   AMOUNT (sign)   TIME: month    TIME: dow …       …   byte-level BPE
                    ╰── block ───╯  ╰ slot ─────╯  ╰ slot …
                                    ╰── block of one field tokenizer ╯

A *block* is the contiguous range of one field tokenizer: global id = block start + local id. A
*slot* is one position of the event with the ids that may stand there. Slots never overlap, so an
id alone tells its slot; only BPE ids are shared by all text fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError
from domainformer.schema.fields import GENERIC_SPECIALS, FieldSpec, FieldType
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.fields.text import FIRST_PIECE

PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(len(GENERIC_SPECIALS))


@dataclass(frozen=True)
class Slot:
    """One position of an event.

    Args:
        field: Name of the field.
        part: Calendar part or ``"elapsed"`` where a field has several positions, else "".
        start: First id that may stand here.
        stop: One past the last.
        ragged: Whether BPE ids may follow (text: the slot itself is the marker or MISSING).
        kind: The field's type.
        missing: The id of a null.
        max_tokens: Most BPE ids that follow; 0 unless ragged.
    """

    field: str
    part: str
    start: int
    stop: int
    ragged: bool
    kind: FieldType
    missing: int
    max_tokens: int

    @property
    def name(self) -> str:
        """``field``, or ``field.part`` for a field of several parts."""
        return f"{self.field}.{self.part}" if self.part else self.field

    @property
    def width(self) -> int:
        """Number of ids that may stand here."""
        return self.stop - self.start


@dataclass(frozen=True)
class Block:
    """The ids of one field tokenizer.

    Args:
        tokenizer: The fitted tokenizer.
        start: Global id of its local id 0.
        stop: One past its last own id (a text's BPE ids lie elsewhere).
        slots: Its positions in the event.
    """

    tokenizer: FieldTokenizer
    start: int
    stop: int
    slots: tuple[Slot, ...]

    @property
    def spec(self) -> FieldSpec:
        """The field."""
        return self.tokenizer.spec


@dataclass(frozen=True)
class Layout:
    """The vocabulary of fitted field tokenizers, without BPE.

    Args:
        blocks: In token order of an event.
        tokens: Id → token for generic specials and all fields; BPE ids follow.
    """

    blocks: tuple[Block, ...]
    tokens: tuple[str, ...]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The positions of an event, in order."""
        return tuple(slot for block in self.blocks for slot in block.slots)

    @property
    def first_bpe(self) -> int:
        """The first id that belongs to BPE, where there is a text field."""
        return len(self.tokens)

    @property
    def has_text(self) -> bool:
        """Whether an event has a text."""
        return any(slot.ragged for slot in self.slots)

    def to_global(self, block: Block, local: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Ids of the shared vocabulary for a block's local ids."""
        if block.tokenizer.width is not None:
            return local + block.start
        return local + np.where(local < FIRST_PIECE, block.start, self.first_bpe - FIRST_PIECE)


def lay_out(tokenizers: Iterable[FieldTokenizer]) -> Layout:
    """Give each fitted field tokenizer its block of ids, in order.

    Raises:
        TokenizerError: Two fields own the same token.

    Example:
        >>> import polars as pl
        >>> from domainformer.tokenizers.fields.numeric import SignTokenizer
        >>> sign = SignTokenizer(FieldSpec("amount", "sign")).fit(pl.Series([1.0]))
        >>> layout = lay_out([sign])
        >>> layout.slots[0].start, layout.slots[0].stop, layout.tokens[4]
        (4, 7, '[AMOUNT_MISSING]')
    """
    tokens = list(GENERIC_SPECIALS)
    blocks = []
    for tokenizer in tokenizers:
        start = len(tokens)
        tokens += tokenizer.vocab
        blocks.append(Block(tokenizer, start, len(tokens), _slots_of(tokenizer, start)))
    _check_distinct(tokens)
    return Layout(tuple(blocks), tuple(tokens))


def _slots_of(tokenizer: FieldTokenizer, start: int) -> tuple[Slot, ...]:
    spec, ragged = tokenizer.spec, tokenizer.width is None
    return tuple(
        Slot(
            field=spec.name,
            part=part,
            start=start + first,
            stop=start + last,
            ragged=ragged,
            kind=spec.field_type,
            # Each part's own missing token stands first in its range.
            missing=start + first,
            max_tokens=spec.max_tokens if ragged else 0,
        )
        for part, first, last in tokenizer.slots
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
