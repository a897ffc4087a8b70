"""An ablation as it ended: plain data for a file, a table for a terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainformer.artifacts import write_json
from domainformer.evaluation.ablations.axes import BASE
from domainformer.evaluation.ablations.summary import Common, Figure, Row

RESULT_FILE = "ablation.json"
_BETTER = {True: "green", False: "red", None: ""}


@dataclass(frozen=True)
class Ablation:
    """What an ablation found.

    Args:
        folder: Where its runs are.
        rows: The table: on each axis the base, and then its variants.
        common: What the variants of each axis are compared on.
        subject: The base: data, split, role, seeds, fingerprints.
        measure: The downstream figure, such as ``auroc``; None where there is none.
        notes: What a reader should know, in words.
        seconds: Of all trainings and scorings, whenever they ran.
    """

    folder: Path
    rows: list[Row]
    common: dict[str, Common]
    subject: dict[str, Any]
    measure: str | None
    notes: list[str]
    seconds: float

    def axis(self, name: str) -> list[Row]:
        """The lines of one axis, the base first."""
        return [row for row in self.rows if row.axis == name]

    def to_json(self) -> dict[str, Any]:
        """Plain data: what stands in ``ablation.json``."""
        return {
            "subject": self.subject,
            "measure": self.measure,
            "axes": {name: asdict(common) for name, common in self.common.items()},
            "rows": [row.to_json() for row in self.rows],
            "notes": self.notes,
            "seconds": self.seconds,
        }

    def write(self) -> Path:
        """Write ``ablation.json`` into the folder, whole or not at all."""
        path = self.folder / RESULT_FILE
        write_json(path, self.to_json())
        return path

    def render(self) -> RenderableType:
        """The table for a terminal: ``rich.print(ablation.render())``."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("axis", no_wrap=True)
        table.add_column("variant", no_wrap=True)
        heads = ["loss", "Δ ± 95 %", "acc.", "Δ ± 95 %"]
        heads += [self.measure, "Δ ± 95 %"] if self.measure else []
        for head in (*heads, "tok/event", "s"):
            table.add_column(head or "", justify="right", no_wrap=True)
        for row in self.rows:
            if row.variant == BASE and table.row_count:
                table.add_section()
            table.add_row(*self._cells(row))
        told = "loss: nats per event, given the history, over what an axis has in common"
        return Group(table, Text(told, style="dim"), *(Text(f"- {note}") for note in self.notes))

    def _cells(self, row: Row) -> list[Text]:
        figures = [row.loss, row.accuracy, *([row.downstream] if self.measure else [])]
        cells = [Text(row.axis if row.variant == BASE else ""), Text(row.variant)]
        for figure in figures:
            cells += _told(figure)
        return [*cells, Text(f"{row.tokens_per_event:.1f}"), Text(f"{row.seconds:.1f}")]


def _told(figure: Figure | None) -> list[Text]:
    if figure is None:
        return [Text("–"), Text("")]
    value, difference = Text(f"{figure.value:.3f}"), figure.difference
    if difference is None:
        return [value, Text("")]
    half = ""
    if difference.low is not None:
        half = f" ± {difference.value - difference.low:.3f}"
    text = f"{difference.value:+.3f}{half}".replace("-", "−")
    return [value, Text(text, style=_BETTER[difference.better])]
