"""Figures of selectors on a page: error bars per budget, and a table per kind of question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainformer.evaluation.vision import SummaryCell, VisionCell, VisionResults, VisionSummary
from domainformer.evaluation.vision.results import ALL, FULL, names
from domainformer.reports import charts
from domainformer.reports.markup import Content, Markup, figure, more, paragraph, table, tag
from domainformer.reports.numbers import count

Figures = VisionResults | VisionSummary
"""One evaluation, or several seeds of it."""

_HOW_ONE = (
    "Share of questions answered exactly, with the dropped tokens gone; lines are 95 % intervals "
    "(Wilson) of {questions} questions. Agreement is with the full model, right or wrong."
)
_HOW_MANY = (
    "Share of questions answered exactly, with the dropped tokens gone; means over {seeds} seeds, "
    "lines reach one standard error to each side. Agreement is with the full model, right or wrong."
)


def figures_section(figures: Figures) -> Markup:
    """The section of a page; the model without compression stands in every chart.

    Args:
        figures: as an evaluation gave them, or several seeds of it put together.
    """
    cells = figures.cells
    drawn = [
        tag("div", figure(_chart(cells, budget)), _class="card")
        for budget in names(cells, "budget")
        if budget != ALL
    ]
    kinds = [kind for kind in names(cells, "kind") if kind != ALL]
    return tag(
        "section",
        tag("h2", "Accuracy"),
        paragraph(_how(figures), quiet=True),
        tag("div", drawn, _class="grid"),
        _table(cells, ALL),
        [more(f"Questions of the kind {kind}", _table(cells, kind)) for kind in kinds],
        id="figures",
    )


def _how(figures: Figures) -> str:
    if isinstance(figures, VisionSummary):
        return _HOW_MANY.format(seeds=max(cell.seeds for cell in figures.cells))
    return _HOW_ONE.format(questions=count(figures.cells[0].questions))


def _chart(cells: Sequence[Any], budget: str) -> Markup:
    """Accuracy of every selector at one budget, on all questions."""
    shown = [
        cell
        for cell in cells
        if cell.kind == ALL and (cell.budget == budget or cell.selector == FULL)
    ]
    spans = [_span(cell) for cell in shown]
    return charts.intervals(
        {
            "selector": [cell.selector for cell in shown],
            "accuracy": [cell.accuracy for cell in shown],
            "low": [low for low, _ in spans],
            "high": [high for _, high in spans],
        },
        x="accuracy",
        low="low",
        high="high",
        y="selector",
        title=_titled(budget),
    )


def _titled(budget: str) -> str:
    if budget.isdigit():
        return f"{budget} tokens"
    return "Dynamic budgets" if budget == "dynamic" else f"{budget} of the tokens"


def _span(cell: VisionCell | SummaryCell) -> tuple[float, float]:
    if isinstance(cell, VisionCell):
        return cell.interval.low, cell.interval.high
    error = cell.error or 0.0
    return cell.accuracy - error, cell.accuracy + error


def _table(cells: Sequence[Any], kind: str) -> Markup:
    rows: list[Sequence[Content]] = [
        (
            cell.selector,
            cell.budget,
            f"{cell.mean_kept:.1f}",
            f"{100 * cell.accuracy:.1f}",
            _spread(cell),
            f"{100 * cell.agreement:.1f}",
        )
        for cell in cells
        if cell.kind == kind
    ]
    spread = "95 % interval" if isinstance(cells[0], VisionCell) else "standard error"
    head = ("selector", "budget", "tokens kept", "accuracy, %", spread, "agreement, %")
    return table(head, rows, numbers=(2, 3, 4, 5))


def _spread(cell: VisionCell | SummaryCell) -> str:
    if isinstance(cell, VisionCell):
        return f"{100 * cell.interval.low:.1f} to {100 * cell.interval.high:.1f}"
    return "–" if cell.error is None else f"± {100 * cell.error:.1f}"
