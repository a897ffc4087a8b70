"""One event, token by token, with what each token says: the quickest way to understand a fit.

::

    reads     value          token                  id   stands for
    amount    -20.0          [AMOUNT_SIGN=NEG]    1413   below zero
                             [AMOUNT=B07]         1423   18 – 22.84, typically 20
    merchant  corner shop    [MERCHANT]           1507   a text begins
                             corner               1811   text
                             ␣shop                2044   text
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from domainformer.data import EventTable
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fields import (
    CategoricalTokenizer,
    DiscreteTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.fields.text import FIRST_PIECE
from domainformer.tokenizers.inspection.look import COLOURS, new_table
from domainformer.tokenizers.inspection.meaning import meaning, shown
from domainformer.tokenizers.inspection.typical import typical_event
from domainformer.tokenizers.slots import Block

_ROWS_LOOKED_AT = 10_000


@dataclass(frozen=True)
class AnnotatedToken:
    """One token of an event.

    Args:
        field: The field that it belongs to.
        column: The source column that the field reads.
        value: The value of that column, on one line.
        slot: The position it stands at.
        token: Its entry in the vocabulary; for a piece of text what it spells.
        id: Its id.
        meaning: What it says.
        piece: Whether it is a piece of text.
    """

    field: str
    column: str
    value: str
    slot: str
    token: str
    id: int
    meaning: str
    piece: bool


@dataclass(frozen=True)
class AnnotatedEvent:
    """An event as the model reads it.

    Args:
        tokens: In order.
        origin: Where the event comes from.
    """

    tokens: tuple[AnnotatedToken, ...]
    origin: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"origin": self.origin, "tokens": [asdict(token) for token in self.tokens]}

    def render(self) -> RenderableType:
        """A table for a terminal, each field in a colour of its own."""
        table = new_table()
        for name, width in (("reads", 18), ("value", 20), ("token", 27)):
            table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=width)
        table.add_column("id", justify="right", no_wrap=True)
        # Only this one may wrap, so that it gives way where the terminal is narrow.
        table.add_column("stands for", overflow="fold")
        fields = list(dict.fromkeys(token.field for token in self.tokens))
        before: str | None = None
        for token in self.tokens:
            style = COLOURS[fields.index(token.field) % len(COLOURS)]
            new = token.column != before
            table.add_row(
                Text(token.column if new else "", style=style),
                Text(token.value if new else ""),
                Text(f"  {token.token}" if token.piece else token.token, style=style),
                str(token.id),
                Text(token.meaning, style="dim" if token.piece else ""),
            )
            before = token.column
        pieces = sum(token.piece for token in self.tokens)
        heads = len(self.tokens) - pieces
        count = f"{heads} tokens" + (f" and {pieces} pieces of text" if pieces else "")
        return Group(Text(f"An event, {self.origin}: {count}", style="bold"), table)


def annotate_event(
    tokenizer: DomainTokenizer,
    event: Mapping[str, Any],
    previous_time: Any = None,
    *,
    origin: str = "as given",
) -> AnnotatedEvent:
    """The tokens of one event, each with what it says.

    Args:
        tokenizer: A fitted tokenizer.
        event: A value per source column.
        previous_time: As `DomainTokenizer.encode_event` takes it.
        origin: Where the event comes from, for the reader.

    Raises:
        TokenizerError: A column is missing, or a value is of a kind its field cannot read.

    Example:
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
        >>> tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["tea"]}))
        >>> annotate_event(tokenizer, {"kind": "gin"}).tokens[0].meaning
        'a value that the fit did not keep'
    """
    layout, vocab = tokenizer.layout, tokenizer.vocab
    owner = {slot: block for block in layout.blocks for slot in block.slots}
    tokens: list[AnnotatedToken] = []
    for index in tokenizer.encode_event(event, previous_time):
        place = int(layout.slot_of_id[index])
        if place >= 0:
            slot = layout.slots[place]
            block = owner[slot]
            local = int(layout.local_of_id[index])
            name, says = vocab[index], _says(block, local)
        else:
            name, says = _piece(block, int(layout.local_of_id[index]) - FIRST_PIECE)
        tokens.append(
            AnnotatedToken(
                field=block.spec.name,
                column=block.spec.source,
                value=shown(event.get(block.spec.source)),
                slot=slot.name,
                token=name,
                id=index,
                meaning=says,
                piece=place < 0,
            )
        )
    return AnnotatedEvent(tuple(tokens), origin)


def example_event(
    tokenizer: DomainTokenizer, table: EventTable | pl.DataFrame | None = None
) -> AnnotatedEvent:
    """An event that shows as many kinds of token as possible, annotated.

    Args:
        tokenizer: A fitted tokenizer.
        table: Events to take one of: the fullest among the first with a predecessor. None: one is
            made up of typical values, since a tokenizer keeps no event of those it was fitted on.
    """
    if table is None:
        event, previous = typical_event(tokenizer)
        return annotate_event(tokenizer, event, previous, origin="made up of typical values")
    row = _fullest(tokenizer, table)
    event, previous = event_at(table, row)
    return annotate_event(tokenizer, event, previous, origin=f"row {row + 1:,} of the table")


def event_at(table: EventTable | pl.DataFrame, row: int) -> tuple[dict[str, Any], Any]:
    """One event of a table and the time of its predecessor, as `encode_event` takes them.

    Example:
        >>> frame = pl.DataFrame({"who": ["a", "a"], "at": [3, 10]})
        >>> event_at(EventTable.of(frame, entity="who", time="at"), 1)
        ({'who': 'a', 'at': 10}, 3)
    """
    frame = table if isinstance(table, pl.DataFrame) else table.frame
    event = frame.row(row, named=True)
    if isinstance(table, pl.DataFrame) or table.time is None:
        return event, None
    first = int(np.searchsorted(table.offsets, row, side="right")) - 1
    if row == table.offsets[first]:
        return event, None
    before = frame[table.time][row - 1]
    return event, float("nan") if before is None else before


def _says(block: Block, local: int) -> str:
    """What a token says beside its value: a label need not be told twice."""
    field = block.tokenizer
    if field.describe(local)["kind"] == "value":
        if isinstance(field, CategoricalTokenizer):
            return f"one of {len(field.values):,} known values"
        if isinstance(field, DiscreteTokenizer):
            return f"one of {len(field.kept):,} known numbers"
    return meaning(block, local)


def _piece(block: Block, index: int) -> tuple[str, str]:
    """What a piece of text spells, with its blanks visible."""
    assert isinstance(block.tokenizer, TextTokenizer)
    assert block.tokenizer.bpe is not None
    spelt = block.tokenizer.bpe.decode([index])
    if "\N{REPLACEMENT CHARACTER}" in spelt:
        return block.tokenizer.bpe.tokens[index], "bytes of a character"
    return shown(spelt.replace(" ", "␣")), "text"


def _fullest(tokenizer: DomainTokenizer, table: EventTable | pl.DataFrame) -> int:
    frame = table if isinstance(table, pl.DataFrame) else table.frame
    frame = frame.head(_ROWS_LOOKED_AT)
    known = [frame[column].is_not_null().to_numpy() for column in tokenizer.schema.columns]
    filled = np.sum(known, axis=0).astype(float)
    if isinstance(table, EventTable):
        # A first event has no predecessor to show; a second one may tie with it.
        filled[table.offsets[:-1][table.offsets[:-1] < frame.height]] -= 0.5
    # The first history often is the oddest: ids are sorted, and tests come first.
    fullest = np.flatnonzero(filled == filled.max())
    return int(fullest[len(fullest) // 2])
