"""Several seeds of one evaluation: mean ± standard error."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from domainformer.errors import DataError
from domainformer.evaluation.vision.results import ALL, VisionCell, VisionResults, names, tables


@dataclass(frozen=True)
class SummaryCell:
    """One selector at one budget on one kind of question, over the seeds.

    Args:
        selector: its name.
        budget: the budget's name.
        kind: the kind of question.
        seeds: how many runs had this cell.
        accuracy: mean over the seeds.
        error: standard error of that mean (sample deviation / √seeds); None for one seed.
        agreement: mean agreement with the full model of the same seed.
        mean_kept: mean tokens kept per question.
    """

    selector: str
    budget: str
    kind: str
    seeds: int
    accuracy: float
    error: float | None
    agreement: float
    mean_kept: float


@dataclass(frozen=True)
class VisionSummary:
    """Mean and standard error of every cell.

    Args:
        cells: in the order in which the runs have them.

    Example:
        >>> def run(correct):
        ...     return VisionResults((VisionCell("random", "4", "all", 10, correct, 9, 40, 160),))
        >>> print(VisionSummary.of([run(4), run(6)]).render())
        | all | 4 |
        |---|---|
        | random | 50.0 ± 10.0 (4.0) |
    """

    cells: tuple[SummaryCell, ...]

    @classmethod
    def of(cls, runs: Sequence[VisionResults]) -> VisionSummary:
        """Put the runs of several seeds together; a cell counts the runs that have it.

        Raises:
            DataError: there are no runs.
        """
        if not runs:
            raise DataError("there are no runs to put together", next_step="give at least one")
        found: dict[tuple[str, str, str], list[VisionCell]] = {}
        for run in runs:
            for cell in run.cells:
                found.setdefault((cell.selector, cell.budget, cell.kind), []).append(cell)
        return cls(tuple(_merged(cells) for cells in found.values()))

    def cell(self, selector: str, budget: str = ALL, kind: str = ALL) -> SummaryCell:
        """One cell by its names.

        Raises:
            DataError: there is no such cell.
        """
        for cell in self.cells:
            if (cell.selector, cell.budget, cell.kind) == (selector, budget, kind):
                return cell
        raise DataError(
            f"nothing was measured for {selector!r} at {budget!r} on {kind!r}",
            next_step=f"selectors: {', '.join(names(self.cells, 'selector'))}",
        )

    def render(self) -> str:
        """Markdown: per kind a table of accuracy (%) ± its standard error (tokens kept)."""
        return tables(self.cells, _shown)

    def to_json(self) -> str:
        """All cells as JSON."""
        return json.dumps({"cells": [asdict(cell) for cell in self.cells]})


def _merged(cells: Sequence[VisionCell]) -> SummaryCell:
    first, accuracies = cells[0], [cell.accuracy for cell in cells]
    error = statistics.stdev(accuracies) / len(cells) ** 0.5 if len(cells) > 1 else None
    return SummaryCell(
        selector=first.selector,
        budget=first.budget,
        kind=first.kind,
        seeds=len(cells),
        accuracy=statistics.fmean(accuracies),
        error=error,
        agreement=statistics.fmean(cell.agreement for cell in cells),
        mean_kept=statistics.fmean(cell.mean_kept for cell in cells),
    )


def _shown(cell: SummaryCell) -> str:
    spread = "" if cell.error is None else f" ± {100 * cell.error:.1f}"
    return f"{100 * cell.accuracy:.1f}{spread} ({cell.mean_kept:.1f})"
