"""Evaluations as tables for a terminal."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from domainformer.evaluation.baselines import FREQUENCY, POPULAR, REPEAT
from domainformer.evaluation.next_event import MODEL, NextEvent, SlotResult
from domainformer.evaluation.probe import ProbeResult

_TITLES = {
    "history_only": "Next event, given the history alone",
    "within_event": "Next event, given the history and the fields before it in the same event",
}
_COLUMNS = {MODEL: "model", POPULAR: "popular", REPEAT: "repeat", FREQUENCY: "own freq."}


def next_event_tables(result: NextEvent) -> list[RenderableType]:
    """One table per view; figures where the model is ahead of both baselines are bold."""
    parts: list[RenderableType] = []
    for view, title in _TITLES.items():
        rows = [slot for slot in result.slots if slot.view == view]
        if not rows:
            continue
        table = Table(title=title, title_justify="left", pad_edge=False)
        table.add_column("slot")
        table.add_column("ids", justify="right")
        for metric in ("acc.", "nats"):
            for name in _COLUMNS.values():
                table.add_column(f"{metric} {name}", justify="right")
        table.add_column("Δ acc. [95 %]", justify="right")
        table.add_column("Δ nats [95 %]", justify="right")
        for slot in rows:
            table.add_row(*_cells(slot))
        parts.append(table)
    parts += [
        Text(
            f"{text.field}: {text.tokens:,} text tokens, {text.log_loss[MODEL]:.3f} nats each "
            f"(popular {text.log_loss[POPULAR]:.3f})"
        )
        for text in result.text
    ]
    parts.append(
        Text(
            f"{result.events:,} of {result.candidates:,} {result.role} events of "
            f"{result.entities:,} entities; {result.event_log_loss:.3f} nats per event; "
            f"Δ is model minus the better of popular and repeat"
        )
    )
    return parts


def _cells(slot: SlotResult) -> list[Text | str]:
    cells: list[Text | str] = [slot.name, f"{slot.ids:,}"]
    asked = (POPULAR, REPEAT)
    for values, ahead in (
        (slot.accuracy, slot.accuracy[MODEL] > max(slot.accuracy[n] for n in asked)),
        (slot.log_loss, slot.log_loss[MODEL] < min(slot.log_loss[n] for n in asked)),
    ):
        for name in _COLUMNS:
            style = "bold" if name == MODEL and ahead else ""
            cells.append(Text(f"{values[name]:.3f}", style=style))
    for metric in ("accuracy", "log_loss"):
        gain = slot.differences[slot.best[metric]][metric]
        cells.append(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    return cells


def probe_table(result: ProbeResult) -> RenderableType:
    """Figures per feature set, then paired differences."""
    names = list(next(iter(result.figures.values())))
    classes = f", {len(result.classes)} classes" if result.classes else ""
    table = Table(
        title=f"Probe of {result.label!r}: LightGBM, {result.settings['folds']} folds, "
        f"{result.entities:,} entities{classes}",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("features")
    table.add_column("columns", justify="right")
    for name in names:
        table.add_column(f"{name} [95 %]", justify="right")
    for features, figures in result.figures.items():
        cells = [str(figures[name]) for name in names]
        table.add_row(features, f"{result.features[features]:,}", *cells)
    table.add_section()
    for pair, differences in result.differences.items():
        table.add_row(
            pair,
            "",
            *(
                Text(
                    str(differences[name]), style="bold" if differences[name].excludes_zero else ""
                )
                for name in names
            ),
        )
    return table
