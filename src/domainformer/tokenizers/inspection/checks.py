"""What a tokenizer promises, checked event by event in the plainest way.

Each check takes a `Sample` (events with the ids that `encode` gave their columns) and tells what it
examined and what it found::

    ranges      every id stands at a position that its own field owns
    specials    padding, BOS, EOS and UNK never stand inside an event; each token has its id
    compiled    the compiled path gives the ids of the plain one
    event       one event at a time gives the ids of the columns
    hub         Hugging Face gives them, too, on the rendered string
    meaning     what each id says is true of the value it stands for
    decode      ids decode to events whose ids they are
    injection   text that spells tokens stays text, and moves no other field

They share no code with the encoder beyond the fitted tables, so that they can catch it out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from domainformer.errors import DomainformerError
from domainformer.schema.fields import GENERIC_SPECIALS, FieldType
from domainformer.tokenizers.fields.columns import canonical_text
from domainformer.tokenizers.inspection.sample import Positions, Sample
from domainformer.tokenizers.inspection.truth import Seen, Truth
from domainformer.tokenizers.kernels import numba_available
from domainformer.tokenizers.slots import GENERIC

_EXAMPLES = 3
_POISONED = 200


@dataclass(frozen=True)
class Check:
    """What one check found.

    Args:
        name: Short name.
        promise: What was checked, as a sentence.
        examined: How many things were looked at.
        unit: What they are.
        failures: How many of them break the promise.
        examples: The first of these, told.
        skipped: Why there was nothing to check; else empty.
    """

    name: str
    promise: str
    examined: int
    unit: str
    failures: int
    examples: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.failures == 0


def _check(
    name: str, promise: str, found: Iterable[str | None], unit: str = "events", skipped: str = ""
) -> Check:
    """A check from one entry per thing examined: None, or what is wrong with it."""
    examined = failures = 0
    examples: list[str] = []
    for problem in found:
        examined += 1
        if problem is not None:
            failures += 1
            if len(examples) < _EXAMPLES:
                examples.append(problem)
    return Check(name, promise, examined, unit, failures, tuple(examples), skipped)


def check_ranges(sample: Sample) -> Check:
    """Every id stands at a position that its own field owns."""
    positions = Positions(sample.tokenizer)
    found = (_at(sample, i, positions.problem(ids)) for i, ids in enumerate(sample.ids))
    return _check("id ranges", "each id stands where its own field has its place", found)


def check_specials(sample: Sample) -> Check:
    """Generic specials stand in no event, and every token is found under its own id."""
    tokenizer = sample.tokenizer
    vocab, backend = tokenizer.vocab, tokenizer.backend
    place = tokenizer.layout.slot_of_id

    def problems() -> Iterable[str | None]:
        for index, token in enumerate(vocab):
            known = backend.token_to_id(token)
            yield None if known == index else f"{token} has the id {known}, and should have {index}"
        for index, token in enumerate(GENERIC_SPECIALS):
            yield None if vocab[index] == token else f"id {index} is {vocab[index]}, not {token}"
        for i, ids in enumerate(sample.ids):
            inside = [vocab[index] for index in ids if place[index] == GENERIC]
            yield _at(sample, i, f"{inside[0]} stands inside the event" if inside else None)

    promise = "every token has its own id, and no [PAD] or [BOS] stands in an event"
    return _check("specials", promise, problems(), "tokens and events")


def check_compiled(sample: Sample) -> Check:
    """The compiled path gives the ids of the plain one."""
    name, promise = "compiled path", "numba gives the ids of the plain path"
    if not numba_available():
        return _check(name, promise, [], skipped="numba is not installed (extra 'fast')")
    plain = sample.tokenizer.encode(sample.table, compiled=False)
    fast = sample.tokenizer.encode(sample.table, compiled=True)
    same = np.array_equal(plain.ids, fast.ids)
    same = same and np.array_equal(plain.event_offsets, fast.event_offsets)
    if same:
        return Check(name, promise, sample.table.n_events, "events", 0)
    return Check(name, promise, sample.table.n_events, "events", 1, ("the ids differ",))


def check_events(sample: Sample) -> Check:
    """One event at a time gives the ids of the columns."""
    encode = sample.tokenizer.encode_event
    found = (
        _at(sample, i, _differs(sample, i, partial(encode, *pair)))
        for i, pair in enumerate(sample.events)
    )
    return _check("single events", "one event at a time gives the ids of the columns", found)


def check_hub(sample: Sample) -> Check:
    """Hugging Face gives the ids of the columns on the rendered string."""
    render, backend = sample.tokenizer.render_event, sample.tokenizer.backend

    def ids(pair: tuple[dict[str, Any], Any]) -> list[int]:
        return backend.encode(render(*pair), add_special_tokens=False).ids

    found = (
        _at(sample, i, _differs(sample, i, partial(ids, pair)))
        for i, pair in enumerate(sample.events)
    )
    return _check("Hugging Face", "so does tokenizer.json on the rendered event", found)


def check_meaning(sample: Sample) -> tuple[Check, list[Seen]]:
    """What each id says is true of the value that it stands for; also what was seen per field."""
    truth = Truth(sample.tokenizer.forms)
    found = (
        _at(sample, i, truth.problem(ids, event, before))
        for i, ((event, before), ids) in enumerate(zip(sample.events, sample.ids, strict=True))
    )
    promise = "what each id says is true of its value: labels and dates exactly, numbers in the bin"
    return _check("meaning", promise, found), list(truth.seen.values())


def check_decode(sample: Sample) -> Check:
    """Ids decode to events whose ids they are, alone and joined with padding between them."""
    tokenizer = sample.tokenizer
    between = [tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id]
    name, promise = "decode", "ids decode to one row per event, and text and labels encode to them"
    try:
        joined = list(itertools.chain.from_iterable([*ids, *between] for ids in sample.ids))
        decoded = tokenizer.decode(joined)
        again = tokenizer.decode(list(itertools.chain.from_iterable(sample.ids)))
    except DomainformerError as error:
        return Check(name, promise, len(sample.ids), "events", 1, (error.what,))
    wrong = []
    if decoded.height != len(sample.ids):
        wrong.append(f"{len(sample.ids)} events decode to {decoded.height} rows")
    if not decoded.equals(again):
        wrong.append("[EOS] and [BOS] between events change what they decode to")
    wrong += _labels_come_back(sample, decoded)
    return Check(name, promise, len(sample.ids), "events", len(wrong), tuple(wrong[:_EXAMPLES]))


def _labels_come_back(sample: Sample, decoded: pl.DataFrame) -> list[str]:
    """Decoded labels that are neither null nor the label that was encoded."""
    wrong = []
    specs = sample.tokenizer.schema.fields
    readers = Counter(spec.source for spec in specs)
    for spec in specs:
        # A column that several fields read comes back by the names of the fields.
        if not spec.field_type.is_categorical or readers[spec.source] > 1:
            continue
        given = [canonical_text(event.get(spec.source)) for event, _ in sample.events]
        pairs = zip(decoded[spec.source].to_list(), given, strict=True)
        bad = next((pair for pair in pairs if pair[0] is not None and pair[0] != pair[1]), None)
        if bad is not None:
            wrong.append(f"{spec.name}: {bad[1]!r} decodes to {bad[0]!r}")
    return wrong


def check_injection(sample: Sample) -> Check:
    """Text that spells tokens stays text, and moves no other field."""
    tokenizer = sample.tokenizer
    readers: dict[str, list[FieldType]] = {}
    for spec in tokenizer.schema.fields:
        readers.setdefault(spec.source, []).append(spec.field_type)
    frame = sample.table.frame
    columns = [
        name
        for name, kinds in readers.items()
        if all(kind.is_categorical or kind is FieldType.TEXT for kind in kinds)
        and frame.schema[name] in (pl.String, pl.Categorical, pl.Enum)
    ]
    name, promise = "injection", "text that spells tokens stays text, and moves no other field"
    if not columns:
        return _check(name, promise, [], skipped="no field reads text or labels")
    spelt = [token for token in tokenizer.vocab if token.startswith("[") and token.endswith("]")]
    positions = Positions(tokenizer)
    found = (
        _at(sample, i, _injected(sample, positions, i, columns, spelt[i * 7 % len(spelt)]))
        for i in range(min(_POISONED, len(sample.ids)))
    )
    return _check(name, promise, found)


def _injected(
    sample: Sample, positions: Positions, i: int, columns: list[str], token: str
) -> str | None:
    """Encode an event whose texts and labels spell a token, and look where the tokens went."""
    tokenizer, (event, before) = sample.tokenizer, sample.events[i]
    harm = {name: f"[PAD]{token}[BOS] {event[name] or ''}{token}" for name in columns}
    poisoned = {**event, **harm}
    ids = tokenizer.encode_event(poisoned, before)
    rendered = tokenizer.render_event(poisoned, before)
    if tokenizer.backend.encode(rendered, add_special_tokens=False).ids != ids:
        return f"{token} in a text is read as a token by Hugging Face"
    problem = positions.problem(ids)
    if problem is not None:
        return f"{token} in a text: {problem}"
    if any(form.most is not None for form in tokenizer.forms.each):
        return None  # a longer text may push other fields out of the budget
    harmed = {b.spec.name for b in tokenizer.layout.blocks if b.spec.source in columns}

    def others(some: list[int]) -> list[int]:
        places = [(index, positions.place[index]) for index in some]
        return [n for n, p in places if p >= 0 and positions.slots[p].field not in harmed]

    if others(ids) != others(sample.ids[i]):
        return f"{token} in a text changes the tokens of other fields"
    return None


def _differs(sample: Sample, i: int, ids: Callable[[], list[int]]) -> str | None:
    try:
        found = ids()
    except DomainformerError as error:
        return error.what
    wanted = sample.ids[i]
    if found == wanted:
        return None
    vocab = sample.tokenizer.vocab
    pairs = itertools.zip_longest(found, wanted)
    place, (left, right) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    names = ["nothing" if index is None else vocab[index] for index in (left, right)]
    return f"token {place} is {names[0]}, and {names[1]} by the columns"


def _at(sample: Sample, i: int, problem: str | None) -> str | None:
    """A problem with the event that has it: entity and number within the history."""
    if problem is None:
        return None
    table, row = sample.table, sample.rows[i]
    owner = int(np.searchsorted(table.offsets, row, side="right")) - 1
    number = row - int(table.offsets[owner]) + 1
    return f"{table.entity} {table.entity_ids[owner]}, event {number}: {problem}"
