"""A comparison as it ended: plain data for a file, a table for a terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from domainformer.artifacts import write_json
from domainformer.evaluation.comparisons.curves import Curve
from domainformer.evaluation.comparisons.statistics import TTest

RESULT_FILE = "comparison.json"
ALPHA = 0.05
_STYLES = {"better": "green", "worse": "red", "even": "", "unknown": "dim"}


@dataclass(frozen=True)
class Against:
    """A group set beside the first one.

    Args:
        difference: Its mean minus that of the first group.
        test: The test that decides: paired where both have the same seeds, else Welch's. None
            where it is not defined (one seed, or figures that do not vary).
        other_test: The other of the two, where it is defined.
        p: Of the deciding test, corrected for the number of groups (Holm).
        verdict: ``better`` or ``worse`` (p < 0.05), ``even``, or ``unknown`` without a test.
    """

    difference: float
    test: TTest | None
    other_test: TTest | None
    p: float | None
    verdict: str


@dataclass(frozen=True)
class RunGroup:
    """Repetitions of one setting.

    Args:
        name: The setting in words; the first group is what others are compared with.
        setting: Values of the keys that are compared.
        runs: The run folders, in the order of ``seeds``.
        seeds: Of the trainings; None where a configuration has none.
        values: The figure of each run.
        mean: Over seeds.
        error: Standard error of the mean; None for one seed.
        results: Mean and standard error of all other figures that every run has.
        against: The comparison with the first group; None for the first itself.
        marks: Differences to the first group that nobody named.
    """

    name: str
    setting: dict[str, Any]
    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    values: tuple[float, ...]
    mean: float
    error: float | None
    results: dict[str, dict[str, float | None]]
    against: Against | None
    marks: tuple[str, ...]


@dataclass(frozen=True)
class RunComparison:
    """What setting runs beside each other found.

    Args:
        metric: The figure that is compared.
        higher_is_better: Its direction.
        vary: Names of what is compared.
        groups: A group for each setting, the first as the base.
        curves: Of each group.
        notes: What a reader should know, in words.
    """

    metric: str
    higher_is_better: bool
    vary: tuple[str, ...]
    groups: tuple[RunGroup, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> RunGroup:
        """The group with the best mean; nobody says that it is so beyond chance."""
        choose = max if self.higher_is_better else min
        return choose(self.groups, key=lambda group: group.mean)

    def to_json(self) -> dict[str, Any]:
        """Plain data: what stands in ``comparison.json``."""
        return asdict(self)

    def write(self, folder: str | Path) -> Path:
        """Write ``comparison.json`` into a folder, whole or not at all."""
        path = Path(folder) / RESULT_FILE
        write_json(path, self.to_json())
        return path

    def render(self) -> RenderableType:
        """The table for a terminal: ``rich.print(comparison.render())``."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        # What is compared is read first: on a narrow terminal it is the last to be cut.
        names = max((len(group.name) for group in self.groups), default=0)
        table.add_column("setting", overflow="fold", min_width=min(names, _NAME_WIDTH))
        heads = ("seeds", f"{self.metric} ± s.e.", "Δ [95 %]", "p", "test", "")
        for head in heads:
            table.add_column(head, justify="left" if head in ("test", "") else "right")
        for group in self.groups:
            table.add_row(*_cells(group))
        return Lines(table, *(Text(f"- {note}") for note in self.notes))


_NAME_WIDTH = 24


def _cells(group: RunGroup) -> list[Text]:
    figure = f"{group.mean:.4f}"
    if group.error is not None:
        figure += f" ± {group.error:.4f}"
    name = f"{group.name} (marked)" if group.marks else group.name
    cells = [Text(name), Text(str(len(group.runs))), Text(figure)]
    against = group.against
    if against is None:
        return [*cells, Text(""), Text(""), Text(""), Text("base", style="dim")]
    told = f"{against.difference:+.4f}"
    if against.test is not None:
        told += f" [{against.test.low:+.4f}, {against.test.high:+.4f}]"
    return [
        *cells,
        Text(told.replace("-", "−")),
        Text("" if against.p is None else told_p(against.p)),
        Text("" if against.test is None else against.test.kind),
        Text(against.verdict, style=_STYLES[against.verdict]),
    ]


def told_p(p: float) -> str:
    """A probability as papers print it.

    Example:
        >>> told_p(0.0314), told_p(0.00002)
        ('0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
