"""Evaluations as tables for a terminal."""

from __future__ import annotations

import re

from rich.box import SIMPLE_HEAD
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
_COLUMNS = {MODEL: "model", POPULAR: "popular", REPEAT: "repeat", FREQUENCY: "own"}


def next_event_tables(result: NextEvent) -> list[RenderableType]:
    """One table per view; figures where the model is ahead of both baselines are bold."""
    parts: list[RenderableType] = []
    for view, title in _TITLES.items():
        rows = [slot for slot in result.slots if slot.view == view]
        if not rows:
            continue
        table = Table(
            title=title,
            title_justify="left",
            pad_edge=False,
            collapse_padding=True,
            box=SIMPLE_HEAD,
        )
        table.add_column("\nslot", no_wrap=True)
        for metric in ("acc.", "nats"):
            for index, name in enumerate(_COLUMNS.values()):
                head = f"{metric}\n{name}" if index == 0 else f"\n{name}"
                table.add_column(head, justify="right", no_wrap=True)
            table.add_column("\nΔ ± 95 %", justify="right", no_wrap=True)
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
    whole = "" if result.event_log_loss is None else f"{result.event_log_loss:.3f} nats per event; "
    parts.append(
        Text(
            f"{result.events:,} of {result.candidates:,} {result.role} events of "
            f"{result.entities:,} entities; {whole}"
            "Δ is model minus the better of popular and repeat; own is the entity's own frequencies"
        )
    )
    return parts


def _cells(slot: SlotResult) -> list[Text | str]:
    cells: list[Text | str] = [slot.name]
    asked = (POPULAR, REPEAT)
    for metric, values, ahead in (
        (
            "accuracy",
            slot.accuracy,
            slot.accuracy[MODEL] > max(slot.accuracy[name] for name in asked),
        ),
        (
            "log_loss",
            slot.log_loss,
            slot.log_loss[MODEL] < min(slot.log_loss[name] for name in asked),
        ),
    ):
        for name in _COLUMNS:
            style = "bold" if name == MODEL and ahead else ""
            cells.append(Text(_short(f"{values[name]:.3f}"), style=style))
        gain = slot.differences[slot.best[metric]][metric]
        half = (gain.high - gain.low) / 2
        cells.append(f"{_short(f'{gain.value:+.3f}')} ±{_short(f'{half:.3f}')}")
    return cells


def _short(number: str) -> str:
    """Without the zero before the point: nine numbers shall fit into a line.

    Example:
        >>> _short("0.513"), _short("-0.020"), _short("10.000")
        ('.513', '-.020', '10.000')
    """
    return re.sub(r"^([+-]?)0\.", r"\1.", number)


def probe_table(result: ProbeResult) -> RenderableType:
    """Figures per feature set, then paired differences."""
    names = list(next(iter(result.figures.values())))
    classes = f", {len(result.classes)} classes" if result.classes else ""
    table = Table(
        title=f"Probe of {result.label!r}: LightGBM, {result.settings['folds']} folds, "
        f"{result.entities:,} entities{classes}",
        title_justify="left",
        pad_edge=False,
        box=SIMPLE_HEAD,
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
