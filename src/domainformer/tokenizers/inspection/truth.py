"""Whether an id tells the truth about the value that it stands for.

The plain reading of `describe`, value by value: a label is the value's own text, a bin holds the
number, a calendar part is that of the date, pieces of text spell the text's beginning.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.events import gap
from domainformer.tokenizers.fields import ElapsedTimeTokenizer, TextTokenizer
from domainformer.tokenizers.fields.columns import canonical_text
from domainformer.tokenizers.fields.shapes import SMALLEST
from domainformer.tokenizers.fields.text import FIRST_PIECE, MARKER
from domainformer.tokenizers.forms import Forms
from domainformer.tokenizers.slots import BPE

_PARTS: dict[str, Callable[[Any], int]] = {
    "month": lambda t: t.month,
    "dow": lambda t: t.isoweekday(),
    "dom": lambda t: t.day,
    "hour": lambda t: t.hour,
    "quarter": lambda t: (t.month - 1) // 3 + 1,
}


@dataclass
class Seen:
    """How often a field's tokens said nothing, or not all.

    Args:
        field: The field.
        values: Events looked at.
        missing: Of these, without a value.
        unknown: With a value that the fit did not keep, or that shares a bucket.
        cut: With a text longer than its budget.
    """

    field: str
    values: int = 0
    missing: int = 0
    unknown: int = 0
    cut: int = 0


class Truth:
    """Judges events of one tokenizer, and counts what its tokens leave unsaid.

    Args:
        forms: Of the tokenizer.

    Attributes:
        seen: By field.
    """

    def __init__(self, forms: Forms) -> None:
        self.seen = {b.spec.name: Seen(b.spec.name) for b in forms.layout.blocks}
        self._forms = forms
        layout = forms.layout
        self._slot_of_id = layout.slot_of_id.tolist()
        self._local_of_id = layout.local_of_id.tolist()
        places = {slot: index for index, slot in enumerate(layout.slots)}
        self._fields = [
            [(block, [places[slot] for slot in block.slots]) for block in form.layout.blocks]
            for form in forms.each
        ]
        self._facts: dict[tuple[str, str, int], dict[str, Any]] = {}

    def problem(self, ids: list[int], event: Mapping[str, Any], before: Any) -> str | None:
        """The first id that is not true of its value, told; None where all are.

        Args:
            ids: Of the event.
            event: Its values.
            before: The time of its predecessor.
        """
        heads, pieces = self._by_slot(ids)
        number = int(self._forms.form_of_id[ids[0]])
        budget = self._forms.each[number].most
        for block, slots in self._fields[number]:
            field, spec = block.tokenizer, block.spec
            local = [heads[slot] for slot in slots if slot in heads]
            count, value = self.seen[spec.name], event[spec.source]
            if isinstance(field, ElapsedTimeTokenizer):
                value = gap(value, before, field=spec.source)
            else:
                count.values += 1
            if not local:
                problem = self._left_out(spec, value, count, budget)
            elif isinstance(field, TextTokenizer):
                own = pieces.get(slots[0], [])
                problem = _text(field, local[0], own, value, count, budget is None)
            else:
                facts = [self._describe(field, index) for index in local]
                problem = _labels(field, facts, value, count)
            if problem is not None:
                return f"{spec.name}: {problem}"
        return None

    def _by_slot(self, ids: list[int]) -> tuple[dict[int, int], dict[int, list[int]]]:
        """Local head ids and the BPE's own ids behind each head, by slot."""
        heads: dict[int, int] = {}
        pieces: dict[int, list[int]] = {}
        last = BPE
        for index in ids:
            slot, local = self._slot_of_id[index], self._local_of_id[index]
            if slot == BPE:
                pieces.setdefault(last, []).append(local - FIRST_PIECE)
            elif slot >= 0:
                last = slot
                heads[slot] = local
        return heads, pieces

    def _describe(self, field: FieldTokenizer, index: int) -> dict[str, Any]:
        key = (field.spec.name, field.kind, index)
        if key not in self._facts:
            self._facts[key] = field.describe(index)
        return self._facts[key]

    @staticmethod
    def _left_out(spec: FieldSpec, value: Any, seen: Seen, budget: int | None) -> str | None:
        seen.missing += 1
        if not spec.optional:
            return "it is left out, and is not optional"
        if value is None or value != value or budget is not None:
            return None
        if spec.calendar_fields == ("hour",) and not isinstance(value, dt.datetime):
            return None  # a date has no hour
        return f"{value!r} is left out"


def _text(
    field: TextTokenizer, head: int, pieces: list[int], value: Any, seen: Seen, whole: bool
) -> str | None:
    text = canonical_text(value)
    if text is None or head != MARKER:
        seen.missing += 1
        return None if text is None and head != MARKER and not pieces else f"{value!r} is missing"
    assert field.bpe is not None
    spelt = field.bpe.decode(pieces)
    # A lone surrogate, which no column can hold, is written as a question mark.
    text = text.encode("utf-8", "replace").decode("utf-8")
    seen.cut += spelt != text
    if not text.startswith(spelt):
        return f"the text {value!r:.60} is spelt {spelt!r:.60}"
    if whole and spelt != text and len(field.bpe.encode(text)) <= field.spec.max_tokens:
        return f"the text {value!r:.60} is cut, and would have been within its budget"
    return None


def _labels(
    field: FieldTokenizer, facts: list[dict[str, Any]], value: Any, seen: Seen
) -> str | None:
    kinds = {fact["kind"] for fact in facts}
    absent = value is None or value != value
    if isinstance(field, ElapsedTimeTokenizer):
        return _elapsed(facts[0], value)
    if "missing" in kinds:
        seen.missing += 1
        timeless = not isinstance(value, dt.datetime) and isinstance(value, dt.date)
        hours = all(f.get("part") == "hour" for f in facts if f["kind"] == "missing")
        return None if absent or (timeless and hours) else f"{value!r} is said to be missing"
    if absent:
        return f"{value!r} is said to be {facts[0]['token']}"
    if kinds & {"unknown", "hash"}:
        seen.unknown += 1
        known = getattr(field, "values", None)
        listed = isinstance(known, list) and canonical_text(value) in known
        return f"{value!r} is known, and said to be {facts[0]['token']}" if listed else None
    return next((told for fact in facts if (told := _fact(field, fact, value))), None)


def _fact(field: FieldTokenizer, fact: dict[str, Any], value: Any) -> str | None:
    wrong = f"{value!r} is said to be {fact['token']}"
    kind, spec = fact["kind"], field.spec
    if spec.field_type is FieldType.SIGN:
        return None if (float(value) < 0) == fact["token"].endswith("=NEG]") else wrong
    if fact.get("part") == "year":
        anchor = field.anchor  # type: ignore[attr-defined]
        return None if fact["value"] == min(max(value.year, anchor), anchor + 9) else wrong
    if fact.get("part") in _PARTS:
        return None if _PARTS[fact["part"]](value) == fact["value"] else wrong
    if kind == "zero":
        return None if abs(float(value)) < SMALLEST else wrong
    if kind == "bin":
        return None if _holds(fact, abs(_number(value))) else wrong
    if kind == "value" and spec.field_type is FieldType.NUMERICAL_DISCRETE:
        return None if value == fact["value"] else wrong
    if kind == "value" and "value" in fact:
        return None if canonical_text(value) == fact["value"] else wrong
    return None


def _elapsed(fact: dict[str, Any], gap: float | None) -> str | None:
    kind = fact["kind"]
    if gap is None or gap != gap:
        right = kind == ("first" if gap is None else "missing")
    elif kind == "zero":
        # A gap below zero counts as a tie; one below the clock's resolution cannot be told apart.
        right = gap < 1
    else:
        right = kind == "bin" and _holds(fact, gap)
    return None if right else f"a gap of {gap} is said to be {fact['token']}"


def _holds(fact: dict[str, Any], number: float) -> bool:
    low = -math.inf if fact["low"] is None else fact["low"]
    return low <= number and (fact["high"] is None or number < fact["high"])


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
