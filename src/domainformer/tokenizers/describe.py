"""What the tokens of a fitted tokenizer stand for, as plain data and as tables for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.slots import Block

_SHOWN = 3


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
        {'id': 5, 'token': '[AMOUNT=NEG]', 'kind': 'bin', ...}
    """
    if field is None:
        return _describe_slots(tokenizer)
    blocks = [block for block in tokenizer.layout.blocks if block.spec.name == field]
    if not blocks:
        raise TokenizerError(
            f"the tokenizer has no field {field!r}",
            next_step=nearest(field, [block.spec.name for block in tokenizer.layout.blocks]),
        )
    return [row for block in blocks for row in _describe_tokens(block)]


def _describe_slots(tokenizer: DomainTokenizer) -> list[dict[str, Any]]:
    vocab = tokenizer.vocab
    columns = {block.spec.name: block.spec.source for block in tokenizer.layout.blocks}
    rows: list[dict[str, Any]] = [
        {
            "slot": slot.name,
            "column": columns[slot.field],
            "kind": slot.kind.value,
            "ids": [slot.start, slot.stop - 1],
            "tokens": slot.width,
            "examples": vocab[slot.start : slot.start + _SHOWN],
        }
        for slot in tokenizer.slots
    ]
    first, stop = tokenizer.bpe_range
    if stop > first:
        examples = vocab[stop - _SHOWN : stop]
        rows.append(
            {
                "slot": "(text)",
                "column": None,
                "kind": "bpe",
                "ids": [first, stop - 1],
                "tokens": stop - first,
                "examples": examples,
            }
        )
    return rows


def _describe_tokens(block: Block) -> list[dict[str, Any]]:
    tokenizer = block.tokenizer
    return [{"id": block.start + i, **tokenizer.describe(i)} for i in range(len(tokenizer.vocab))]


def render_vocabulary(described: list[dict[str, Any]]) -> Table:
    """What `describe_vocabulary` gave, as a table to print."""
    table = Table()
    keys = list(dict.fromkeys(key for row in described for key in row))
    for key in keys:
        table.add_column(key, justify="right" if key in ("id", "tokens") else "left")
    for row in described:
        table.add_row(*(_shown(row.get(key)) for key in keys))
    return table


def _shown(value: Any) -> str:
    # Brackets are markup to rich, and every token has them.
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("[", r"\[")
