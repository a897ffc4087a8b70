"""Whether a tokenizer still fits the data: each field of a table against what the fit has seen.

::

    reference (saved by the fit) ─╮
                                  ├─▶ per position: unknown, missing, out of range, PSI ─▶ verdict
    table of today ───────────────╯   text: bytes per token

What to do follows from what a tokenizer can do about it: unknown values and badly spelt texts are
cured by `extend`; bins whose occupancy has shifted need a new fit (and a new model); a shift among
known categories is the model's business alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.change.comparison import Group, compared
from domainformer.tokenizers.change.observing import Events, Observation, observe
from domainformer.tokenizers.change.stability import differs_by_chance
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fields import ElapsedTimeTokenizer, MagnitudeBucketTokenizer
from domainformer.tokenizers.reference import Reference, SlotReference, TextReference
from domainformer.tokenizers.slots import Block, Slot

Verdict = Literal["fine", "watch", "extend", "refit"]
_ORDER: tuple[Verdict, ...] = ("fine", "watch", "extend", "refit")

# From these shares on a finding is to be watched, and to be acted on.
_UNKNOWN = (0.01, 0.05)
_MISSING = (0.05, 0.20)
_OUTSIDE = (0.01, 0.05)
# A table of a few weeks has few of these, which says nothing.
_SEASONAL = ("month", "quarter", "year", "dom")
# By this much fewer bytes per token.
_SPELLING = (0.10, 0.25)
# A text is spelt byte by byte, but for a word here and there.
_MOSTLY_BARE = 0.5


@dataclass(frozen=True)
class SlotDrift:
    """One position of an event.

    Args:
        slot: Its name (`Slot.name`).
        rows: Events of the table that have it.
        unknown_then: Share of values outside of the vocabulary at the fit; None: not known.
        unknown: The same in the table.
        missing_then: Share of events without a value at the fit; None: not known.
        missing: The same in the table.
        outside: Share of magnitudes or gaps outside of the range that the fit has seen, and of
            years outside of the tokens'; None where there is no range.
        psi: Population stability index; None where the reference is not known.
        chance: What the index exceeds by chance in one of 1,000 tables of this size.
        groups: What the index compares.
        verdict: ``"fine"``, ``"watch"``, ``"extend"`` or ``"refit"``.
        why: What was found, for people.
    """

    slot: str
    rows: int
    unknown_then: float | None
    unknown: float
    missing_then: float | None
    missing: float
    outside: float | None
    psi: float | None
    chance: float | None
    groups: tuple[Group, ...]
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class TextDrift:
    """How well the byte-pair model spells the texts of all fields together.

    Args:
        bytes_per_token_then: At the fit; None: not known.
        bytes_per_token: In the table.
        bare_then: Share of tokens that are single bytes, at the fit.
        bare: The same in the table.
        verdict: ``"fine"``, ``"watch"`` or ``"extend"``.
        why: What was found, for people.
    """

    bytes_per_token_then: float | None
    bytes_per_token: float
    bare_then: float | None
    bare: float
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class DriftReport:
    """A table against what a tokenizer was fitted on.

    Args:
        fingerprint: Of the tokenizer.
        events: Events of the table.
        reference_events: Events that the fit has seen; None: not known, nothing was compared.
        slots: Every position of an event.
        text: The texts; None where no field is text.
        verdict: The gravest of all.
        next_step: What to do.
    """

    fingerprint: str
    events: int
    reference_events: int | None
    slots: tuple[SlotDrift, ...]
    text: TextDrift | None
    verdict: Verdict
    next_step: str

    def slot(self, name: str) -> SlotDrift:
        """One position by its name."""
        return next(one for one in self.slots if one.slot == name)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def render(self) -> Table:
        """A row per position, for people."""
        seen = self.reference_events
        title = f"{self.events:,} events against {'?' if seen is None else f'{seen:,}'} of the fit"
        names = ("position", "PSI", "unknown", "missing", "outside", "verdict", "why")
        table = Table(*names, title=title, caption=f"{self.verdict}: {self.next_step}")
        for one in self.slots:
            table.add_row(
                one.slot,
                "" if one.psi is None else f"{one.psi:.3f}",
                _then_now(one.unknown_then, one.unknown),
                _then_now(one.missing_then, one.missing),
                "" if one.outside is None else f"{one.outside:.1%}",
                one.verdict,
                one.why,
            )
        if self.text is not None:
            table.add_row("(text)", "", "", "", "", self.text.verdict, self.text.why)
        return table


def drift(
    tokenizer: DomainTokenizer | str | Path,
    table: Events | Iterable[Events],
    *,
    reference: Events | Iterable[Events] | Reference | None = None,
    progress: Callable[[str], None] | None = None,
) -> DriftReport:
    """Compare a table with what a tokenizer was fitted on, and say whether to act.

    Per position of an event: the share of unknown and missing values, the share outside of the
    fitted range, and the population stability index (see `stability`) over bins, calendar parts or
    the 20 most frequent values (not first events, whose number depends on where histories are
    cut; months, days and years are told but not judged). 0.1 and 0.25 are the usual thresholds; an
    index counts only where chance would not give it.

    Args:
        tokenizer: A fitted tokenizer, or its folder.
        table: Events of now, of the same schema; or the parts of a larger table, one after the
            other, with all events of an entity in one part.
        reference: Compare with these events instead of what the fit has kept; needed for
            tokenizers of format 1, which kept nothing.
        progress: Called with the name of each field that is looked at.

    Raises:
        SchemaError: The table does not fit the schema.
        DataError: The table has no events.

    Example:
        >>> import polars as pl
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
        >>> tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["tea", "cake"] * 99}))
        >>> report = drift(tokenizer, pl.DataFrame({"kind": ["tea", "mug"] * 99}))
        >>> report.verdict, report.slot("kind").unknown
        ('extend', 0.5)
    """
    if not isinstance(tokenizer, DomainTokenizer):
        tokenizer = DomainTokenizer.from_pretrained(tokenizer)
    layout, schema = tokenizer.layout, tokenizer.schema
    if reference is None:
        then = tokenizer.reference
    elif isinstance(reference, Reference):
        then = reference
    else:
        then = observe(layout, schema, reference, None).counts
    seen = observe(layout, schema, table, then, progress)
    now = seen.counts
    slots = [one for block in layout.blocks for one in _block(block, seen, then)]
    text = None if now.text is None else _text(None if then is None else then.text, now.text)
    verdicts = [one.verdict for one in slots] + ([] if text is None else [text.verdict])
    verdict = max(verdicts, key=_ORDER.index)
    return DriftReport(
        fingerprint=tokenizer.fingerprint,
        events=now.events,
        reference_events=None if then is None else then.events,
        slots=tuple(slots),
        text=text,
        verdict=verdict,
        next_step=_next_step(verdict, known=then is not None),
    )


def _block(block: Block, seen: Observation, then: Reference | None) -> list[SlotDrift]:
    found = []
    for slot in block.slots:
        before = None if then is None else then.slot(slot.name)
        after = seen.counts.slot(slot.name)
        assert after is not None
        outside = seen.outside_share(slot.name)
        found.append(_slot(block.tokenizer, slot, before, after, outside))
    return found


def _slot(
    tokenizer: FieldTokenizer,
    slot: Slot,
    before: SlotReference | None,
    after: SlotReference,
    outside: float | None,
) -> SlotDrift:
    unknown = after.unknown / max(1, after.rows - after.missing)
    missing = after.missing / max(1, after.rows)
    stability, groups = (None, ()) if before is None else compared(tokenizer, before, after)
    unknown_then = missing_then = None
    if before is not None:
        unknown_then = before.unknown / max(1, before.rows - before.missing)
        missing_then = before.missing / max(1, before.rows)
    findings: list[tuple[Verdict, str]] = [
        _found(_OUTSIDE, outside or 0.0, "refit", f"{outside or 0:.1%} out of the fitted range")
    ]
    # Where the fit has seen no value at all there is nothing that chance could explain.
    unseen = before is not None and before.rows == before.missing
    if before is None or unseen or not _chance(before, after, "unknown"):
        more = unknown - (unknown_then or 0.0)
        findings.append(_found(_UNKNOWN, more, "extend", f"{unknown:.1%} unknown"))
    if missing_then is not None and before is not None and not _chance(before, after, "missing"):
        change = abs(missing - missing_then)
        findings.append(_found(_MISSING, change, "watch", f"missing: {missing:.1%}"))
    if stability is not None and stability.level and slot.part not in _SEASONAL:
        learned = isinstance(tokenizer, (MagnitudeBucketTokenizer, ElapsedTimeTokenizer))
        verdict: Verdict = "refit" if learned and stability.level == 2 else "watch"
        findings.append((verdict, f"PSI {stability.psi:.2f}"))
    if before is not None and _bins_of_nothing(tokenizer, before, after):
        findings.append(("refit", "the fit has seen no value"))
    worst = max((verdict for verdict, _ in findings), key=_ORDER.index)
    return SlotDrift(
        slot=slot.name,
        rows=after.rows,
        unknown_then=unknown_then,
        unknown=unknown,
        missing_then=missing_then,
        missing=missing,
        outside=outside,
        psi=None if stability is None else stability.psi,
        chance=None if stability is None else stability.chance,
        groups=groups,
        verdict=worst,
        why=", ".join(why for verdict, why in findings if verdict != "fine"),
    )


def _bins_of_nothing(
    tokenizer: FieldTokenizer, before: SlotReference, after: SlotReference
) -> bool:
    """Whether bins are needed that could not be learned, since the fit has seen no number."""
    learned = isinstance(tokenizer, (MagnitudeBucketTokenizer, ElapsedTimeTokenizer))
    given = tokenizer.spec.binning == "fixed"
    return learned and not given and before.low is None and after.low is not None


def _chance(before: SlotReference, after: SlotReference, what: str) -> bool:
    """Whether the shares of missing or unknown values differ by no more than chance."""
    sides = []
    for one in (before, after):
        of = one.rows if what == "missing" else one.rows - one.missing
        sides += [getattr(one, what), of]
    return differs_by_chance(*sides)


def _found(
    limits: tuple[float, float], value: float, remedy: Verdict, why: str
) -> tuple[Verdict, str]:
    watch, act = limits
    if value < watch:
        return "fine", why
    return (remedy if value >= act else "watch"), why


def _text(then: TextReference | None, now: TextReference) -> TextDrift:
    before = None if then is None or not then.tokens else then.bytes_per_token
    after = now.bytes_per_token if now.tokens else 0.0
    loss = 0.0 if before is None or not now.tokens else 1 - after / before
    why = f"{after:.2f} bytes per token" + ("" if before is None else f", {before:.2f} at the fit")
    verdict, _ = _found(_SPELLING, loss, "extend", why)
    if then is not None and not then.tokens and now.tokens and now.bare_share > _MOSTLY_BARE:
        verdict, why = "extend", f"{why}; the fit has seen no text"
    return TextDrift(
        bytes_per_token_then=before,
        bytes_per_token=after,
        bare_then=None if then is None or not then.tokens else then.bare_share,
        bare=now.bare_share if now.tokens else 0.0,
        verdict=verdict,
        why=why,
    )


def _next_step(verdict: Verdict, *, known: bool) -> str:
    steps = {
        "fine": "nothing to do",
        "watch": "compare again with more data; if it stays, fine-tune the model on new events",
        "extend": "`domainformer tokenizer extend` adds tokens and keeps every id; then extend "
        "the model and fine-tune it",
        "refit": "`domainformer tokenizer fit` on new events, and pretrain a model for it",
    }
    if known:
        return steps[verdict]
    return f"{steps[verdict]} (what the fit has seen is not known: give the training table, too)"


def _then_now(then: float | None, now: float) -> str:
    return f"{now:.1%}" if then is None else f"{then:.1%} → {now:.1%}"
