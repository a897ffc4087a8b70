"""The four tiers of `AdaptiveTokenizer`: what each needs, and why one was taken and others not.

::

    pretrained   a model was named      its tokenizer, if it has the size          exact ids
    bpe          5,000 … 100,000        byte-level BPE, if the text gives so many  short rows
    characters   100 … 500,000          any size, from any text                    long rows
    own          a file was named       whatever it is, if it has the size
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Tier = Literal["pretrained", "bpe", "characters", "own"]
Verdict = Literal["chosen", "refused", "not asked for", "not needed"]

TIERS: tuple[Tier, ...] = ("pretrained", "bpe", "characters", "own")
_STYLE = {"chosen": "green", "refused": "red", "not asked for": "dim", "not needed": "dim"}


@dataclass(frozen=True)
class Considered:
    """What became of one tier.

    Args:
        tier: Its name.
        verdict: ``chosen``; ``refused``, since it cannot give what was asked for; ``not asked
            for``, since it needs a model or a file; ``not needed``, since another was taken.
        why: The reason, as a sentence.
    """

    tier: Tier
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Choice:
    """Which tier was chosen, why, and why not the others.

    Args:
        considered: One entry per tier, in the order of `TIERS`.
        vocab_size: That was asked for, or None.
        size: ``len(tokenizer)`` of what was chosen.
        rows: Rows of the model's embedding, where there is a model.
        suggestions: Known tokenizers that the size may mean. None was taken for its size.
        notes: What a user should know of the chosen one.
    """

    considered: tuple[Considered, ...]
    vocab_size: int | None
    size: int
    rows: int | None = None
    suggestions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tier(self) -> Tier:
        """The tier that was chosen."""
        return self._chosen.tier

    @property
    def reason(self) -> str:
        """Why it was."""
        return self._chosen.why

    @property
    def _chosen(self) -> Considered:
        return next(one for one in self.considered if one.verdict == "chosen")

    def why_not(self, tier: Tier) -> str | None:
        """Why another tier was not taken; None of the one that was."""
        found = next(one for one in self.considered if one.tier == tier)
        return None if found.verdict == "chosen" else found.why

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` makes it again."""
        return {"tier": self.tier, "reason": self.reason, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Choice:
        """The choice that `to_json` has told."""
        return cls(
            considered=tuple(Considered(**one) for one in data["considered"]),
            vocab_size=data["vocab_size"],
            size=data["size"],
            rows=data["rows"],
            suggestions=tuple(data["suggestions"]),
            notes=tuple(data["notes"]),
        )

    def render(self) -> RenderableType:
        """The choice, the reasons, and what the size may mean, for a terminal."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("tier", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("why", overflow="fold")
        for number, one in enumerate(self.considered, start=1):
            verdict = Text(one.verdict, style=_STYLE[one.verdict])
            table.add_row(Text(f"{number} {one.tier}"), verdict, Text(one.why))
        lines = [Text(note, style="dim") for note in self.notes]
        lines += [Text(f"perhaps {one}", style="dim") for one in self.suggestions]
        return Group(Text(f"{self.tier}: {self.size:,} ids"), table, *lines)
