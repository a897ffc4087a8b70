"""What merged tokens stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from domainformer.errors import FingerprintError
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.inspection.look import COLOURS, new_table
from domainformer.tokenizers.merges import ActionPieceMerges

_SHOWN = 40


@dataclass(frozen=True)
class MergesDescription:
    """The first merges of a file.

    Args:
        n_merges: Merges in all.
        vocab_size: Ids, those of the tokenizer included.
        rows: For each merge what `ActionPieceMerges.describe` says.
    """

    n_merges: int
    vocab_size: int
    rows: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"merges": self.n_merges, "vocab_size": self.vocab_size, "rows": self.rows}

    def render(self) -> RenderableType:
        """A table for a terminal; tokens of one event are joined by +, ▸ leads to the next."""
        table = new_table()
        table.add_column("id", justify="right", no_wrap=True)
        table.add_column("events", justify="right", no_wrap=True)
        table.add_column("weight", justify="right", no_wrap=True)
        table.add_column("stands for", overflow="fold")
        for row in self.rows:
            weight = row.get("weight")
            table.add_row(
                str(row["id"]),
                str(len(row["events"])),
                "" if weight is None else f"{weight:,.1f}",
                _coloured(row["token"]),
            )
        head = f"{self.n_merges:,} merges make {self.vocab_size:,} tokens"
        rest = self.n_merges - len(self.rows)
        return Group(
            Text(head, style="bold"),
            table,
            Text(f"and {rest:,} more" if rest else "", style="dim"),
        )


def describe_merges(
    merges: ActionPieceMerges, tokenizer: DomainTokenizer, *, most: int | None = _SHOWN
) -> MergesDescription:
    """Say which tokens each merge stands for.

    Args:
        merges: Learned from events of the tokenizer.
        tokenizer: The tokenizer.
        most: The first so many, which weighed most when they were learned; None: all.

    Raises:
        FingerprintError: The merges were learned from another tokenizer's events.
    """
    if merges.base_fingerprint != tokenizer.fingerprint:
        raise FingerprintError(
            "the merges were not learned with this tokenizer",
            why=f"they belong to {merges.base_fingerprint}, this is {tokenizer.fingerprint}",
            next_step="give the folder of the tokenizer that made the store",
        )
    stop = merges.vocab_size
    if most is not None:
        stop = min(stop, merges.base_vocab_size + most)
    vocab = tokenizer.vocab
    rows = [merges.describe(token, vocab) for token in range(merges.base_vocab_size, stop)]
    return MergesDescription(merges.n_merges, merges.vocab_size, rows)


def _coloured(token: str) -> Text:
    """Events in turns of colour, since their tokens are long."""
    text = Text()
    for number, event in enumerate(token.split("▸")):
        text.append(" ▸ " if number else "", style="bold")
        text.append(event, style=COLOURS[number % len(COLOURS)])
    return text
