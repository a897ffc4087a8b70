"""Whether a tokenizer keeps its promises on a user's own events.

::

    table ─sample─▶ whole histories ─▶ encode ─▶ eight checks (checks.py) ─▶ ValidationReport
                                                                     ├─▶ render()  for people
                                                                     └─▶ to_json() for programs

A report that is not ``ok`` means a fault in this library or in its installation, never in the data:
values that the fit did not know are counted, and are no failure (`drift` judges them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.inspection import checks
from domainformer.tokenizers.inspection.checks import Check
from domainformer.tokenizers.inspection.look import new_table
from domainformer.tokenizers.inspection.sample import Sample
from domainformer.tokenizers.inspection.truth import Seen

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ValidationReport:
    """What was checked on a sample of events, and what was found.

    Args:
        fingerprint: Of the tokenizer.
        n_events: Events that were looked at one by one.
        n_entities: Entities that they, and the events encoded beside them, belong to.
        n_tokens: Tokens of the events that were looked at.
        checks: One per promise.
        fields: How often each field's tokens said nothing, or not all.
    """

    fingerprint: str
    n_events: int
    n_entities: int
    n_tokens: int
    checks: tuple[Check, ...]
    fields: tuple[Seen, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return all(check.ok for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0, or 1 where a promise was broken."""
        return 0 if self.ok else 1

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ok": self.ok,
            "fingerprint": self.fingerprint,
            "events": self.n_events,
            "entities": self.n_entities,
            "tokens": self.n_tokens,
            "checks": [{**asdict(check), "ok": check.ok} for check in self.checks],
            "fields": [asdict(field) for field in self.fields],
        }

    def render(self) -> RenderableType:
        """Tables for a terminal: the promises, then the fields."""
        verdict = Text("every promise is kept", style="bold green")
        if not self.ok:
            broken = sum(not check.ok for check in self.checks)
            verdict = Text(f"{broken} of {len(self.checks)} promises broken", style="bold red")
        head = Text(
            f"{self.n_events:,} events of {self.n_entities:,} entities, {self.n_tokens:,} tokens: "
        )
        return Group(head.append_text(verdict), self._promises(), self._fields())

    def _promises(self) -> RenderableType:
        table = new_table()
        table.add_column("check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("looked at", justify="right", no_wrap=True)
        table.add_column("promise", overflow="fold")
        for check in self.checks:
            mark = Text("✓", style="green") if check.ok else Text("✗", style="bold red")
            mark = Text("–", style="dim") if check.skipped else mark
            says = Text(check.skipped or check.promise, style="dim" if check.skipped else "")
            for example in check.examples:
                says.append(f"\n{example}", style="red")
            if check.failures > len(check.examples):
                says.append(f"\n{check.failures:,} in all", style="red")
            table.add_row(Text(check.name), mark, f"{check.examined:,}", says)
        return table

    def _fields(self) -> RenderableType:
        table = new_table()
        table.add_column("field", no_wrap=True)
        for name in ("no value", "not in the vocabulary", "cut short"):
            table.add_column(name, justify="right", no_wrap=True)
        for field in self.fields:
            shares = (field.missing, field.unknown, field.cut)
            table.add_row(Text(field.field), *(_share(one, field.values) for one in shares))
        return table


def validate_tokenizer(
    tokenizer: DomainTokenizer,
    table: EventTable | pl.DataFrame,
    *,
    events: int = 2_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> ValidationReport:
    """Check a tokenizer on a sample of events: ids, three equal paths, meaning, and the way back.

    Args:
        tokenizer: A fitted tokenizer.
        table: The user's events; whole histories of randomly drawn entities are taken. A frame is
            one history.
        events: Events to look at one by one (about 2,000 in a second).
        seed: Of the sample.
        progress: Called with (checks done, checks in all).

    Raises:
        DataError: ``events`` is below 1, or there are none.
        SchemaError: The table does not fit the schema.
        TokenizerError: This is no table, or a column holds what its field cannot read.

    Example:
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
        >>> frame = pl.DataFrame({"who": [1, 1, 2], "kind": ["tea", None, "gin"]})
        >>> table = EventTable.of(frame, entity="who")
        >>> report = validate_tokenizer(DomainTokenizer(schema).fit(table), table)
        >>> report.ok, report.n_events, [check.name for check in report.checks][:2]
        (True, 3, ['id ranges', 'specials'])
    """
    check_count(events)
    return validate_sample(Sample.draw(tokenizer, table, events, seed), progress)


def check_count(events: int) -> None:
    """Refuse a sample of no events."""
    if events < 1:
        raise DataError(
            f"{events} events cannot be looked at", next_step="ask for one event or more"
        )


def validate_sample(sample: Sample, progress: Progress | None = None) -> ValidationReport:
    """Check a tokenizer on events that were drawn already."""
    steps: list[Callable[[Sample], Check]] = [
        checks.check_ranges,
        checks.check_specials,
        checks.check_compiled,
        checks.check_events,
        checks.check_hub,
        checks.check_decode,
        checks.check_injection,
    ]
    done: list[Check] = []
    for step in steps:
        done.append(step(sample))
        if progress is not None:
            progress(len(done), len(steps) + 1)
    told, seen = checks.check_meaning(sample)
    if progress is not None:
        progress(len(steps) + 1, len(steps) + 1)
    return ValidationReport(
        fingerprint=sample.tokenizer.fingerprint,
        n_events=len(sample.rows),
        n_entities=sample.table.n_entities,
        n_tokens=sum(map(len, sample.ids)),
        checks=(*done, told),
        fields=tuple(seen),
    )


def _share(part: int, whole: int) -> str:
    """A share as a percentage; what exists never reads as 0."""
    if not part or not whole:
        return "·"
    share = part / whole
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
