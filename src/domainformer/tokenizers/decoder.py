"""From parsed ids back to values: each field's column is decoded at once.

`parsing` divides the ids into events and fills in what they leave out; here each block of each form
becomes a column (a date: one for each part; a sign and a magnitude of one column: that column), and
the events of several sources are put into one table again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.tokenizers.base import Ragged
from domainformer.tokenizers.fields.calendar import CalendarTokenizer
from domainformer.tokenizers.fields.elapsed import ElapsedTimeTokenizer
from domainformer.tokenizers.fields.numeric import SignTokenizer
from domainformer.tokenizers.fields.shapes import BinTokenizer
from domainformer.tokenizers.fields.text import TextTokenizer
from domainformer.tokenizers.parsing import ParsedEvents
from domainformer.tokenizers.slots import Block, Layout

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def decode_forms(
    parsed: Sequence[ParsedEvents], *, source_column: str | None, intervals: bool
) -> pl.DataFrame:
    """Decode parsed events of all forms: a row per event, in the order of the ids.

    With sources the columns are those of all sources, null where an event's source has no such
    field, after one that names the source. Where two sources decode a column to different types,
    each has its own, called ``source.column``.

    Args:
        parsed: What `parse_ids` gave.
        source_column: The column of the sources; None where there are none.
        intervals: Add the ends of every bin, as ``…_low`` and ``…_high``.
    """
    frames = [decode_events(one.form.layout, one, intervals=intervals) for one in parsed]
    if source_column is None:
        return frames[0]
    sources = [str(one.form.source) for one in parsed]
    # The first column of each is its source; a field that reads the same column comes later.
    others = {name for frame in frames for name in frame.columns[1:]}
    title = source_column
    while title in others:
        title += "_"
    frames = [frame.rename({frame.columns[0]: title}) for frame in frames]
    types: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            types.setdefault(name, set()).add(dtype)
    apart = {name for name, found in types.items() if len(found) > 1}
    named = [
        frame.rename({name: f"{source}.{name}" for name in frame.columns if name in apart})
        for source, frame in zip(sources, frames, strict=True)
    ]
    places = np.argsort(np.concatenate([one.events for one in parsed]), kind="stable")
    return pl.concat(named, how="diagonal")[places]


def decode_events(layout: Layout, parsed: ParsedEvents, *, intervals: bool) -> pl.DataFrame:
    """Decode the events of one form: a row per event, a column per column that was read.

    Args:
        layout: The blocks of the form.
        parsed: Its events among what `parse_ids` gave.
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
