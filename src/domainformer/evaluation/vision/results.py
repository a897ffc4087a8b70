"""Figures of selectors: one cell per selector, budget and kind of question."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from domainformer.errors import DataError
from domainformer.evaluation.intervals import Interval

FULL = "full"
"""The name of the model without compression among selectors."""

ALL = "all"
"""The name of all tokens among budgets, and of all questions among kinds."""


@dataclass(frozen=True)
class VisionCell:
    """What one selector reached at one budget on one kind of question.

    Args:
        selector: its name.
        budget: the budget's name: ``16``, ``1/9``, ``dynamic`` or ``all``.
        kind: the kind of question, ``all`` for every one.
        questions: how many were asked.
        correct: how many were answered exactly, with the dropped tokens gone.
        agreeing: how many were answered as the full model answers them.
        kept: tokens kept, summed over the questions.
        tokens: tokens that the images had, summed over the questions.
    """

    selector: str
    budget: str
    kind: str
    questions: int
    correct: int
    agreeing: int
    kept: int
    tokens: int

    @property
    def accuracy(self) -> float:
        """Share of questions answered exactly."""
        return self.correct / self.questions

    @property
    def agreement(self) -> float:
        """Share of questions answered as the full model does, right or wrong."""
        return self.agreeing / self.questions

    @property
    def mean_kept(self) -> float:
        """Tokens kept per question."""
        return self.kept / self.questions

    @property
    def interval(self) -> Interval:
        """Accuracy with its 95 % interval."""
        return wilson(self.correct, self.questions)


def wilson(correct: int, questions: int, z: float = 1.959964) -> Interval:
    """The score interval of a share; unlike the usual one it stays within 0 and 1.

    ::

        (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)

    Args:
        correct: successes.
        questions: trials n, at least 1.
        z: the normal quantile; 1.96 for 95 %.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".

    Example:
        >>> print(wilson(95, 100))
        0.9500 [0.8882, 0.9785]
    """
    share, weight = correct / questions, z * z / questions
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / questions + weight / (4 * questions)) / (1 + weight)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class VisionResults:
    """All cells of one evaluation.

    Args:
        cells: in the order of selectors, then budgets, then kinds.
        seed: of the selectors that draw.
    """

    cells: tuple[VisionCell, ...]
    seed: int = 0

    def cell(self, selector: str, budget: str = ALL, kind: str = ALL) -> VisionCell:
        """One cell by its names.

        Raises:
            DataError: there is no such cell.
        """
        for cell in self.cells:
            if (cell.selector, cell.budget, cell.kind) == (selector, budget, kind):
                return cell
        raise DataError(
            f"nothing was measured for {selector!r} at {budget!r} on {kind!r}",
            next_step=f"selectors: {', '.join(names(self.cells, 'selector'))}; "
            f"budgets: {', '.join(names(self.cells, 'budget'))}; "
            f"kinds: {', '.join(names(self.cells, 'kind'))}",
        )

    def render(self) -> str:
        """Markdown: per kind a table of accuracy (%) with its interval, selectors by budgets."""
        return tables(self.cells, _shown)

    def to_json(self) -> str:
        """Everything, with the figures that are derived, for people and programs."""
        return json.dumps({"seed": self.seed, "cells": [_record(cell) for cell in self.cells]})

    @classmethod
    def from_json(cls, text: str) -> VisionResults:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: the text is something else.
        """
        try:
            record = json.loads(text)
            fields = tuple(VisionCell.__dataclass_fields__)
            cells = [VisionCell(*(cell[name] for name in fields)) for cell in record["cells"]]
            return cls(tuple(cells), int(record["seed"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "this is not the JSON of an evaluation of selectors",
                why=f"{type(error).__name__}: {error}",
                next_step="give what VisionResults.to_json wrote",
            ) from error


def names(cells: Sequence[Any], field: str) -> list[str]:
    """The values of a field of all cells, each once, in their order."""
    return list(dict.fromkeys(getattr(cell, field) for cell in cells))


def tables(cells: Sequence[Any], show: Any) -> str:
    """One Markdown table per kind: a row per selector, a column per budget.

    Args:
        cells: with ``selector``, ``budget`` and ``kind``.
        show: turns a cell into the text of its place.

    Raises:
        DataError: there are no cells.
    """
    if not cells:
        raise DataError("nothing was measured, so there is nothing to show")
    by_place = {(cell.selector, cell.budget, cell.kind): cell for cell in cells}
    budgets = names(cells, "budget")
    parts = []
    for kind in names(cells, "kind"):
        lines = [
            f"| {kind} | {' | '.join(budgets)} |",
            f"|---|{'---|' * len(budgets)}",
        ]
        for selector in names(cells, "selector"):
            found = [by_place.get((selector, budget, kind)) for budget in budgets]
            if any(found):
                row = " | ".join("–" if cell is None else show(cell) for cell in found)
                lines.append(f"| {selector} | {row} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _shown(cell: VisionCell) -> str:
    interval = cell.interval
    span = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"{100 * cell.accuracy:.1f} ({span}), {cell.mean_kept:.1f} tokens"


def _record(cell: VisionCell) -> dict[str, Any]:
    interval = cell.interval
    return {
        **asdict(cell),
        "accuracy": cell.accuracy,
        "low": interval.low,
        "high": interval.high,
        "agreement": cell.agreement,
        "mean_kept": cell.mean_kept,
    }
