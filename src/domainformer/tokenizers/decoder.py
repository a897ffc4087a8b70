"""From ids back to events: parse by the slots, then decode each field's column at once.

The slots make a regular grammar: heads stand in the order of the slots, over and over; BPE ids
follow only the marker of a text; generic specials (padding, begin, end) stand only between events::

    [BOS] kind sign bin  [TEXT] bpe bpe  kind sign bin  [TEXT_MISSING]  [PAD] [PAD]
          ╰──────── event 0 ──────────╯  ╰───────── event 1 ─────────╯

All checks are array operations over the whole sequence, whatever its length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import TokenizerError
from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.tokenizers.base import Ragged
from domainformer.tokenizers.fields.calendar import CalendarTokenizer
from domainformer.tokenizers.fields.elapsed import ElapsedTimeTokenizer
from domainformer.tokenizers.fields.numeric import SignTokenizer
from domainformer.tokenizers.fields.shapes import BinTokenizer
from domainformer.tokenizers.fields.text import TextTokenizer
from domainformer.tokenizers.slots import BPE, GENERIC, UNK_ID, Block, Layout

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ParsedEvents:
    """The ids of some events by slot.

    Args:
        heads: Global id at each slot, int64 [n_events, n_slots].
        texts: BPE ids that follow the head of a ragged slot, by slot index.
    """

    heads: Ints
    texts: dict[int, Ragged]


def parse_ids(layout: Layout, ids: npt.ArrayLike, vocab_size: int) -> ParsedEvents:
    """Divide a flat sequence of ids into events.

    Args:
        layout: The slots.
        ids: Token ids, [n_tokens]; whole events, with generic specials only between them.
        vocab_size: Number of ids.

    Raises:
        TokenizerError: The ids are not a sequence of whole events; the first wrong position is
            named.
    """
    flat = _as_flat(ids, vocab_size)
    slots = layout.slot_of_id[flat]
    _check_grammar(layout, flat, slots)

    at = np.flatnonzero(slots >= 0)
    heads = flat[at].reshape(-1, len(layout.slots))
    # A head is followed by as many BPE ids as lie between it and the next other id.
    others = np.flatnonzero(slots != BPE)
    followers = np.diff(np.append(others, len(flat))) - 1
    lengths = followers[slots[others] >= 0].reshape(heads.shape)
    texts = {}
    for index, slot in enumerate(layout.slots):
        if slot.ragged:
            first = at.reshape(heads.shape)[:, index] + 1
            texts[index] = _spans(flat.astype(np.int32), first, lengths[:, index])
    return ParsedEvents(heads, texts)


def _as_flat(ids: npt.ArrayLike, vocab_size: int) -> Ints:
    flat = np.asarray(ids)
    if flat.size == 0:
        return np.empty(0, np.int64)
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise TokenizerError(
            f"cannot decode {flat.dtype} of shape {flat.shape}",
            next_step="pass a flat sequence of integer ids",
        )
    flat = flat.astype(np.int64)
    outside = np.flatnonzero((flat < 0) | (flat >= vocab_size))
    if outside.size:
        raise TokenizerError(
            f"the id {flat[outside[0]]} is outside the vocabulary of {vocab_size}",
            where=f"position {outside[0]}",
        )
    return flat


def _check_grammar(layout: Layout, flat: Ints, slots: Ints) -> None:
    """Find the first position that breaks the grammar, whichever rule it breaks."""
    names = [slot.name for slot in layout.slots]
    count = len(names)
    is_head = slots >= 0
    before: Ints = np.cumsum(is_head) - is_head
    wrong_head = is_head & (slots != before % count)
    wrong_generic = (slots == GENERIC) & ((before % count != 0) | (flat == UNK_ID))
    # The id that a BPE id belongs to is the last one before it that is not BPE.
    owner = np.maximum.accumulate(np.where(slots == BPE, -1, np.arange(len(flat))))
    opens = np.zeros(layout.vocab_size, dtype=bool)
    for slot in layout.slots:
        if slot.ragged:
            opens[slot.index] = True
            opens[slot.missing] = False
    opened = np.zeros(len(flat), dtype=bool)
    owned = (slots == BPE) & (owner >= 0)
    opened[owned] = opens[flat[owner[owned]]]
    wrong = np.flatnonzero(wrong_head | wrong_generic | ((slots == BPE) & ~opened))
    if wrong.size:
        position = int(wrong[0])
        raise TokenizerError(
            f"the id {flat[position]} cannot stand here",
            where=f"position {position}",
            why=f"slot {names[before[position] % count]!r} comes next",
            next_step="decode whole events, as encode or generate gives them",
        )
    if is_head.sum() % count:
        raise TokenizerError(
            "the ids end inside an event",
            where=f"position {len(flat)}",
            why=f"slot {names[int(is_head.sum()) % count]!r} is missing",
            next_step="cut the ids where an event begins",
        )


def _spans(flat: npt.NDArray[np.int32], first: Ints, lengths: Ints) -> Ragged:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    source = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    return Ragged(flat[source], offsets)


def decode_events(layout: Layout, parsed: ParsedEvents, *, intervals: bool) -> pl.DataFrame:
    """Decode parsed events: a row per event, a column per source column (see `column_names`).

    Args:
        layout: The slots.
        parsed: What :func:`parse_ids` gave.
        intervals: Add the ends of every bin, as ``…_low`` and ``…_high``.
    """
    paired = _signed_sources(layout)
    signs: dict[str, Floats] = {}
    for block, local, _ in _by_block(layout, parsed):
        if isinstance(block.tokenizer, SignTokenizer) and block.spec.source in paired:
            signs[block.spec.source] = _numbers(block.tokenizer.decode(local))
    columns: dict[str, pl.Series] = {}
    names = column_names(layout)
    for (block, local, text), name in zip(_by_block(layout, parsed), names, strict=True):
        tokenizer = block.tokenizer
        if isinstance(tokenizer, TextTokenizer):
            assert text is not None
            found = {name: tokenizer.decode(_local_text(layout, local[:, 0], text))}
        elif isinstance(tokenizer, CalendarTokenizer):
            parts = tokenizer.decode(local).struct.unnest()
            found = {f"{name}_{part.name}": part for part in parts}
        elif not isinstance(tokenizer, BinTokenizer):
            found = {name: tokenizer.decode(local)}
        elif isinstance(tokenizer, SignTokenizer) and block.spec.source in paired:
            continue
        else:
            title = f"{name}_elapsed" if isinstance(tokenizer, ElapsedTimeTokenizer) else name
            sign = signs.get(block.spec.source) if block.spec.source in paired else None
            found = _binned(tokenizer, local, title, sign, intervals=intervals)
        columns |= {_free(title, columns): column for title, column in found.items()}
    return pl.DataFrame([column.alias(name) for name, column in columns.items()])


def column_names(layout: Layout) -> list[str]:
    """The column that each block is decoded into, before parts add theirs.

    A source column that one field reads, or one sign and one magnitude together, or the parts of
    one date, is given back under its own name; where several fields read it, each gives a column
    of its own name.
    """
    paired = _signed_sources(layout)
    specs = {block.spec.name: block.spec for block in layout.blocks}
    readers = Counter(
        spec.source
        for spec in specs.values()
        if not (spec.source in paired and spec.field_type is FieldType.SIGN)
    )
    names = {
        name: spec.source if readers[spec.source] == 1 or _is_magnitude(spec, paired) else name
        for name, spec in specs.items()
    }
    shown = [n for n, s in specs.items() if not (s.source in paired and s.field_type == "sign")]
    if len({names[name] for name in shown}) < len(shown):
        names = {name: name for name in specs}
    return [names[block.spec.name] for block in layout.blocks]


def _is_magnitude(spec: FieldSpec, paired: set[str]) -> bool:
    return spec.source in paired and spec.field_type is FieldType.NUMERICAL_CONTINUOUS


def _signed_sources(layout: Layout) -> set[str]:
    """The source columns that exactly one sign and one magnitude read."""
    kinds = (FieldType.SIGN, FieldType.NUMERICAL_CONTINUOUS)
    readers = Counter((block.spec.source, block.spec.field_type) for block in layout.blocks)
    sources = {source for source, _ in readers}
    return {source for source in sources if all(readers[source, kind] == 1 for kind in kinds)}


def _by_block(layout: Layout, parsed: ParsedEvents) -> Iterator[tuple[Block, Ints, Ragged | None]]:
    """Each block with its local ids, [n_events, width], and its text if it has one."""
    position = 0
    for block in layout.blocks:
        stop = position + len(block.slots)
        local = layout.to_local(block, parsed.heads[:, position:stop])
        yield block, local, parsed.texts.get(position)
        position = stop


def _binned(
    tokenizer: BinTokenizer, local: Ints, name: str, sign: Floats | None, *, intervals: bool
) -> dict[str, pl.Series]:
    """A column of representative values, signed where a sign is given, with its intervals."""
    column = tokenizer.decode(local)
    if sign is not None:
        column = _series(_numbers(column) * sign + 0.0)  # + 0.0 turns −0 into 0
    if not intervals or isinstance(tokenizer, SignTokenizer):
        return {name: column}
    described = [tokenizer.describe(index) for index in range(len(tokenizer.vocab))]
    low = np.array([_end(item, "low", -np.inf) for item in described])[local[:, 0]]
    high = np.array([_end(item, "high", np.inf) for item in described])[local[:, 0]]
    if sign is not None:
        low, high = np.where(sign < 0, -high, low * sign), np.where(sign < 0, -low, high * sign)
    return {name: column, f"{name}_low": _series(low + 0.0), f"{name}_high": _series(high + 0.0)}


def _end(described: dict[str, Any], side: str, unbounded: float) -> float:
    """One end of a bin: infinite where it has none, NaN for what is no bin."""
    if side not in described:
        return np.nan
    return unbounded if described[side] is None else float(described[side])


def _local_text(layout: Layout, heads: Ints, text: Ragged) -> Ragged:
    """The marker (or missing) and the BPE ids of each event, as local ids of the text field."""
    lengths = np.diff(text.offsets) + 1
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    values = np.empty(int(offsets[-1]), dtype=np.int32)
    is_head = np.zeros(len(values), dtype=bool)
    is_head[offsets[:-1]] = True
    values[is_head] = heads
    values[~is_head] = layout.local_of_id[text.values]
    return Ragged(values, offsets)


def _numbers(column: pl.Series) -> Floats:
    return column.fill_null(np.nan).to_numpy()


def _series(values: Floats) -> pl.Series:
    return pl.Series(values=values, dtype=pl.Float64, nan_to_null=True)


def _free(name: str, taken: dict[str, pl.Series]) -> str:
    """The name, with underscores added until no other column has it."""
    while name in taken:
        name += "_"
    return name
