"""What was checked on a model, what was found, and what it means.

::

    probe ─▶ CheckResult (name, status, reason, remedy, value against limit)
                 └─ many ─▶ Verdict ─▶ runs                        "it runs"
                                    ─▶ is_causal_language_model    another question
                                    ─▶ render() for people, to_json() for programs

May import ``rich`` and the standard library; the probes that fill these are in ``probes.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Status = Literal["pass", "fail", "warn", "skip"]

_MARKS: dict[str, tuple[str, str]] = {
    "pass": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "warn": ("!", "yellow"),
    "skip": ("–", "dim"),
}
# Logits at t are a function of the row's own tokens up to t, and of nothing else. Padding and
# caching are about how a model is used, and gradients about how it learns: they have their own
# lines, and a model can fail them and still be a causal language model.
RUNS = ("shapes",)
CAUSAL_LANGUAGE_MODEL = ("shapes", "determinism", "causality", "batch_invariance")
# Where this was asked and failed, the loss reads the answers, whatever evaluation shows.
REFUTES = "causality_in_training"


@dataclass(frozen=True)
class CheckResult:
    """One check, its outcome, and why.

    Args:
        name: Of the check, in snake case, such as ``causality``.
        status: ``pass``; ``fail``; ``warn`` (it may hurt, and may be meant); ``skip`` (it could
            not be asked of this model, and nothing is claimed).
        reason: One sentence that says what was seen, also for a pass.
        remedy: What to do about it, for ``fail`` and ``warn``.
        value: What was measured, in the units of the limit.
        limit: What it was held against.
        seconds: Wall time of the check.

    Example:
        >>> result = CheckResult("causality", "fail", "changing token 9 moves logits at 3",
        ...                      remedy="mask the future", value=0.4, limit=1e-4)
        >>> result.failed, result.to_json()["status"]
        (True, 'fail')
    """

    name: str
    status: Status
    reason: str
    remedy: str | None = None
    value: float | None = None
    limit: float | None = None
    seconds: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it was asked, and answered well."""
        return self.status == "pass"

    @property
    def failed(self) -> bool:
        """Whether it was asked, and answered badly."""
        return self.status == "fail"

    def to_json(self) -> dict[str, Any]:
        """Plain data; a value that is not finite is written as its name, as JSON has none."""
        facts = asdict(self)
        for key in ("value", "limit"):
            number = facts[key]
            if number is not None and not math.isfinite(number):
                facts[key] = str(number)
        return facts


@dataclass(frozen=True)
class Verdict:
    """All checks of one model, and the two questions that they answer together.

    ``runs`` and ``is_causal_language_model`` are two different lines: a bidirectional encoder runs
    very well, and trained on next tokens it would read the answers.

    Args:
        results: In the order in which they were made.
        subject: What was checked, for the headline.

    Example:
        >>> encoder = Verdict((CheckResult("shapes", "pass", "logits [2, 8, 50]"),
        ...                    CheckResult("causality", "fail", "logits see the future")))
        >>> encoder.runs, encoder.is_causal_language_model, encoder.passed
        (True, False, False)
    """

    results: tuple[CheckResult, ...]
    subject: str = "the model"

    def __iter__(self) -> Iterator[CheckResult]:
        """The results, one by one."""
        return iter(self.results)

    def __getitem__(self, name: str) -> CheckResult:
        """The result of a name; ``KeyError`` where that was not checked."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed; what was skipped does not count."""
        return any(one.passed for one in self.results) and not any(
            one.failed for one in self.results
        )

    @property
    def runs(self) -> bool:
        """Whether it takes token ids and gives finite logits for each of them."""
        return self._missing(RUNS) is None

    @property
    def is_causal_language_model(self) -> bool:
        """Whether logits at t were seen to depend on the row's own tokens up to t alone."""
        return self._missing(CAUSAL_LANGUAGE_MODEL) is None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "subject": self.subject,
            "passed": self.passed,
            "runs": self.runs,
            "is_causal_language_model": self.is_causal_language_model,
            "results": [one.to_json() for one in self.results],
        }

    def render(self) -> RenderableType:
        """The two lines, then a table with one row per check."""
        lines = [
            _line("it runs", self._missing(RUNS)),
            _line("it is a causal language model", self._missing(CAUSAL_LANGUAGE_MODEL)),
        ]
        return Group(Text(self.subject, style="bold"), *lines, results_table(self.results))

    def _missing(self, names: tuple[str, ...]) -> str | None:
        """Why these checks together do not hold; None: they do."""
        by_name = {one.name: one for one in self.results}
        for name in names:
            result = by_name.get(name)
            if result is None:
                return f"{name} was not checked"
            if not result.passed:
                return f"{name}: {result.reason}"
        refuted = by_name.get(REFUTES) if "causality" in names else None
        if refuted is not None and refuted.failed:
            return f"{REFUTES}: {refuted.reason}"
        return None


def results_table(results: tuple[CheckResult, ...]) -> Table:
    """A table for a terminal: each check with its mark, figures, reason and remedy."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("what was seen", overflow="fold")
    for one in results:
        mark, style = _MARKS[one.status]
        says = Text(one.reason, style="dim" if one.status == "skip" else "")
        if one.remedy:
            says.append(f"\n→ {one.remedy}", style="cyan")
        table.add_row(
            Text(one.name), Text(mark, style=style), _number(one.value), _number(one.limit), says
        )
    return table


def _line(claim: str, missing: str | None) -> Text:
    mark, style = _MARKS["pass" if missing is None else "fail"]
    line = Text(f"{mark} ", style=style).append(claim, style="bold")
    return line if missing is None else line.append(f": not shown ({missing})", style="red")


def _number(value: float | None) -> Text:
    return Text("" if value is None else f"{value:.3g}")
