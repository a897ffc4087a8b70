"""What the tokens of a fitted tokenizer stand for, as plain data and as tables for people.

::

    describe_tokenizer(tokenizer)                   all of it at a glance, with an example event
    describe_vocabulary(tokenizer)                  a row per position of an event
    describe_vocabulary(tokenizer, field="amount")  a row per token of one field
    render_vocabulary(rows)                         either of them as a table
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Group, JustifyMethod, RenderableType
from rich.text import Text

from domainformer.data import EventTable
from domainformer.errors import TokenizerError, nearest
from domainformer.schema.fields import GENERIC_SPECIALS
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.inspection.annotate import AnnotatedEvent, example_event
from domainformer.tokenizers.inspection.look import COLOURS, new_table
from domainformer.tokenizers.inspection.meaning import shown, told
from domainformer.tokenizers.slots import Block, Slot

_SHOWN = 3
# Names of columns can be sentences.
_WIDEST = 28
_KINDS = {
    "categorical_fixed": "category",
    "categorical_entity": "entity",
    "numerical_continuous": "size in bins",
    "numerical_discrete": "whole number",
    "sign": "sign",
    "temporal": "time",
    "bpe": "byte pairs",
}
# These say nothing about a field's values, so the examples leave them out.
_EMPTY = ("missing", "unknown", "hash")


@dataclass(frozen=True)
class TokenizerDescription:
    """A fitted tokenizer at a glance: its positions, and one event as the model reads it.

    Args:
        name: Of the schema.
        fingerprint: Of the tokenizer.
        vocab_size: Number of ids.
        n_fields: Number of fields.
        slots: What `describe_vocabulary` says of every position.
        example: An annotated event.
    """

    name: str
    fingerprint: str
    vocab_size: int
    n_fields: int
    slots: list[dict[str, Any]]
    example: AnnotatedEvent

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "vocab_size": self.vocab_size,
            "fields": self.n_fields,
            "slots": self.slots,
            "example": self.example.to_json(),
        }

    def render(self) -> RenderableType:
        """Two tables for a terminal."""
        places = sum(row["kind"] != "bpe" for row in self.slots)
        head = (
            f"{self.name}: {self.n_fields} fields fill {places} positions of an event; "
            f"{self.vocab_size:,} tokens; fingerprint {self.fingerprint}"
        )
        return Group(
            Text(head, style="bold"), render_vocabulary(self.slots), Text(), self.example.render()
        )


def describe_tokenizer(
    tokenizer: DomainTokenizer, table: EventTable | pl.DataFrame | None = None
) -> TokenizerDescription:
    """Describe a fitted tokenizer: every position of an event, and an example.

    Args:
        tokenizer: A fitted tokenizer.
        table: Events to take the example of; None: it is made up.

    Example:
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
        >>> tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["tea"]}))
        >>> [token.token for token in describe_tokenizer(tokenizer).example.tokens]
        ['[KIND=tea]']
    """
    return TokenizerDescription(
        name=tokenizer.schema.name,
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        n_fields=len(tokenizer.schema.fields),
        slots=describe_vocabulary(tokenizer),
        example=example_event(tokenizer, table),
    )


def describe_vocabulary(
    tokenizer: DomainTokenizer, *, field: str | None = None
) -> list[dict[str, Any]]:
    """The slots of an event, or every token of one field.

    Args:
        tokenizer: A fitted tokenizer.
        field: Name of a field; None gives a row per slot.

    Raises:
        TokenizerError: There is no such field.

    Example:
        >>> import polars as pl
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("s", [FieldSpec("amount", "sign")])
        >>> tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"amount": [1.0]}))
        >>> describe_vocabulary(tokenizer)[0]["ids"]
        [4, 6]
        >>> describe_vocabulary(tokenizer, field="amount")[1]
        {'id': 5, 'token': '[AMOUNT=NEG]', 'meaning': 'below zero', 'kind': 'bin', ...}
    """
    if field is None:
        return _describe_slots(tokenizer)
    blocks = [block for block in tokenizer.layout.blocks if block.spec.name == field]
    if not blocks:
        raise TokenizerError(
            f"the tokenizer has no field {field!r}",
            next_step=nearest(field, [block.spec.name for block in tokenizer.layout.blocks]),
        )
    return [row for block in blocks for row in _describe_tokens(tokenizer, block)]


def _describe_slots(tokenizer: DomainTokenizer) -> list[dict[str, Any]]:
    vocab = tokenizer.vocab
    rows = []
    for block in tokenizer.layout.blocks:
        for slot in block.slots:
            ids = slot.ids.tolist()
            rows.append(
                {
                    "slot": slot.name,
                    "column": block.spec.source,
                    "kind": slot.kind.value,
                    "ids": [ids[0], slot.stop - 1],
                    # An extension appends tokens behind everything else.
                    "added": [index for index in ids if not slot.start <= index < slot.stop],
                    "tokens": len(ids),
                    "examples": [vocab[index] for index in ids[:_SHOWN]],
                    "meaning": _examples(tokenizer, block, slot),
                }
            )
    if tokenizer.layout.pieces:
        rows.append(_describe_pieces(tokenizer, vocab))
    return rows


def _describe_pieces(tokenizer: DomainTokenizer, vocab: list[str]) -> dict[str, Any]:
    trained, *added = tokenizer.layout.pieces
    # The last merges are the longest, and tell most of what the texts are about.
    examples = [vocab[index] for index in trained[-_SHOWN:]]
    return {
        "slot": "(text)",
        "column": None,
        "kind": "bpe",
        "ids": [trained.start, trained.stop - 1],
        "added": [index for more in added for index in more],
        "tokens": len(trained) + sum(map(len, added)),
        "examples": examples,
        "meaning": " · ".join(shown(piece.replace("Ġ", "␣")) for piece in examples),
    }


def _examples(tokenizer: DomainTokenizer, block: Block, slot: Slot) -> str:
    """The first values of a slot, or both ends where they have an order."""
    local = tokenizer.layout.local_of_id[slot.ids].tolist()
    if slot.ragged:
        return "opens a text; its pieces follow"
    facts = [block.tokenizer.describe(index) for index in local[: _SHOWN + 3]]
    last = block.tokenizer.describe(local[-1])
    kept = [fact for fact in facts if fact["kind"] not in _EMPTY]
    named = [told(block, fact, short=True) for fact in kept]
    ordered = any(fact["kind"] in ("bin", "zero") or fact.get("part") for fact in kept)
    if ordered and len(local) > len(facts):
        return " · ".join([*named[:_SHOWN], "…", told(block, last, short=True)])
    values = sum(1 for fact in kept if fact["kind"] == "value")
    if ordered or values == 0:
        return " · ".join(named)
    rest = ["…"] if len(local) > len(facts) or len(named) > _SHOWN else []
    return " · ".join([*named[:_SHOWN], *rest])


def _describe_tokens(tokenizer: DomainTokenizer, block: Block) -> list[dict[str, Any]]:
    rows = []
    for local, index in enumerate(block.ids.tolist()):
        facts = block.tokenizer.describe(local)
        row = {"id": index, "token": facts.pop("token")}
        row["meaning"] = told(block, {**facts, "token": row["token"]})
        rows.append(row | facts)
    return rows


def render_vocabulary(described: list[dict[str, Any]]) -> RenderableType:
    """What `describe_vocabulary` gave, as a table to print."""
    return _slot_table(described) if "slot" in described[0] else _token_table(described)


def _slot_table(rows: list[dict[str, Any]]) -> RenderableType:
    table = new_table()
    cells = [_slot_cells(row) for row in rows]
    for name in ("position", "reads", "kind", "ids", "tokens"):
        justify: JustifyMethod = "right" if name in ("ids", "tokens") else "left"
        table.add_column(
            name, justify=justify, max_width=_WIDEST, no_wrap=True, overflow="ellipsis"
        )
    # The examples take what is left: their column may shrink, and their text may not wrap.
    table.add_column("stand for")
    number, before = -1, None
    for row, (position, reads, *others) in zip(rows, cells, strict=True):
        field = row["slot"].split(".")[0]
        number += field != before
        style = COLOURS[number % len(COLOURS)]
        reads = "" if field == before else reads
        before = field
        examples = Text(others.pop(), no_wrap=True, overflow="ellipsis")
        table.add_row(Text(position, style=style), Text(reads), *map(Text, others), examples)
    notes = " ".join(f"{token} {index}" for index, token in enumerate(GENERIC_SPECIALS))
    hint = f"and {notes}; every position has a token for no value"
    return Group(table, Text(hint, style="dim"))


def _slot_cells(row: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    first, last = row["ids"]
    added = f" +{len(row['added'])}" if row["added"] else ""
    return (
        row["slot"],
        row["column"] or "",
        _KINDS.get(row["kind"], row["kind"].replace("_", " ")),
        f"{first}–{last}{added}",
        f"{row['tokens']:,}",
        row["meaning"],
    )


def _token_table(rows: list[dict[str, Any]]) -> RenderableType:
    table = new_table()
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("token", no_wrap=True, overflow="ellipsis")
    table.add_column("stands for", overflow="fold")
    for row in rows:
        style = "dim" if row["kind"] in _EMPTY else ""
        table.add_row(str(row["id"]), Text(row["token"]), Text(row["meaning"]), style=style)
    return table
