"""What ``check`` gives back: every result with its reason, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from domainformer.models.universal.verdict import CheckResult, Verdict, results_table


@dataclass(frozen=True)
class CheckReport(Verdict):
    """All checks of one model, up to a tier.

    Args:
        results: In the order in which they were made.
        subject: Name of the model's class.
        kind: ``causal``, ``bidirectional``, ``encoder-decoder`` or ``classifier``.
        tier: The highest tier that was asked for.
        facts: What the model is: parameters, vocabulary, context.

    Example:
        >>> report = CheckReport((CheckResult("shapes", "pass", "logits [2, 8, 50]"),), "Tiny",
        ...                      kind="causal", tier=1)
        >>> report.passed, report.failures, report.to_json()["counts"]["pass"]
        (True, (), 1)
    """

    kind: str = "causal"
    tier: int = 1
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(one for one in self.results if one.failed)

    @property
    def counts(self) -> dict[str, int]:
        """How many checks passed, failed, warned and were skipped."""
        names = [one.status for one in self.results]
        return {status: names.count(status) for status in ("pass", "fail", "warn", "skip")}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = super().to_json()
        results = found.pop("results")
        own = {"kind": self.kind, "tier": self.tier, "facts": self.facts, "counts": self.counts}
        return {**found, **own, "results": results}

    def render(self) -> RenderableType:
        """A headline, a table with one row per check, and how many did what."""
        facts = ", ".join(f"{name} {_told(value)}" for name, value in self.facts.items())
        head = Text(self.subject, style="bold").append(f"  {self.kind}; {facts}", style="dim")
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        seconds = sum(one.seconds or 0.0 for one in self.results)
        last = f"tier {self.tier}: {counts} ({seconds:.1f} s)"
        return Group(head, results_table(self.results), Text(last, style="bold"))


def _told(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
