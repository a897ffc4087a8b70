"""From a flat sequence of ids to events: a walk through the automaton of the forms, all at once.

::

    [BOS] [SOURCE=a] kind amount  [SOURCE=b] kind [TEXT] bpe bpe  [SOURCE=a] kind amount  [PAD]
          ╰────── event 0 ─────╯  ╰───────── event 1 ─────────╯  ╰────── event 2 ─────╯

No separator is needed: an event begins where an opening id stands, the opening id tells its form,
and form and slot tell what may come next. BPE ids follow only the marker of a text; generic
specials (padding, begin, end) stand only between events. All checks are array operations over the
whole sequence, whatever its length; the first wrong position is named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError
from domainformer.tokenizers.base import Ragged
from domainformer.tokenizers.forms import BETWEEN, EventForm, Forms, Ints, Mask, slot_names
from domainformer.tokenizers.slots import BPE, GENERIC, UNK_ID


@dataclass(frozen=True)
class ParsedEvents:
    """The events of one form among some ids.

    Args:
        form: Their form.
        events: Their numbers among all events, ascending.
        heads: Global id at each slot of the form, MISSING where it is left out, int64
            [n_events, n_slots].
        texts: BPE ids that follow the head of a ragged slot, by slot of the form.
    """

    form: EventForm
    events: Ints
    heads: Ints
    texts: dict[int, Ragged]


def parse_ids(forms: Forms, ids: npt.ArrayLike, vocab_size: int) -> list[ParsedEvents]:
    """Divide a flat sequence of ids into events.

    Args:
        forms: The forms of a fitted tokenizer.
        ids: Token ids, [n_tokens]; whole events, with generic specials only between them.
        vocab_size: Number of ids.

    Returns:
        The events of each form, in the order of the forms.

    Raises:
        TokenizerError: The ids are not a sequence of whole events; the first wrong position is
            named.
    """
    flat = _as_flat(ids, vocab_size)
    slots = forms.layout.slot_of_id[flat]
    at = np.flatnonzero(slots >= 0)
    event, form, states = _states(forms, flat[at], slots[at])
    _check(forms, flat, slots, at, states)
    # A head is followed by as many BPE ids as lie between it and the next other id.
    others = np.flatnonzero(slots != BPE)
    followers = np.diff(np.append(others, len(flat))) - 1
    lengths = followers[slots[others] >= 0]
    # Events count from the first opening id; a valid sequence has none of its heads before it.
    form_of_event = form[slots[at] == 0]
    parsed = []
    for number, one in enumerate(forms.each):
        own = np.flatnonzero(form == number)
        events = np.flatnonzero(form_of_event == number)
        place = (np.searchsorted(events, event[own]), states[own] - forms.first_state[number])
        shape = (len(events), len(one.slots))
        parsed.append(_of_form(one, flat, at[own], lengths[own], place, shape, events))
    return parsed


def _of_form(
    form: EventForm,
    flat: Ints,
    at: Ints,
    lengths: Ints,
    place: tuple[Ints, Ints],
    shape: tuple[int, int],
    events: Ints,
) -> ParsedEvents:
    """Heads and texts of the events of one form; ``place`` is where each head goes."""
    heads = np.empty(shape, np.int64)
    heads[:] = [slot.missing for slot in form.slots]
    heads[place] = flat[at]
    begin, count = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    begin[place], count[place] = at + 1, lengths
    texts = {
        index: _spans(flat, begin[:, index], count[:, index])
        for index, slot in enumerate(form.slots)
        if slot.ragged
    }
    return ParsedEvents(form, events, heads, texts)


def _states(forms: Forms, heads: Ints, slots: Ints) -> tuple[Ints, Ints, Ints]:
    """For each head its event, the event's form, and the state after it (−1: there is none)."""
    opens = slots == 0
    event = np.cumsum(opens) - 1
    form_of_event = forms.form_of_id[heads[opens]]
    form = np.full(len(heads), -1, np.int64)
    form[event >= 0] = form_of_event[event[event >= 0]]
    states = np.where(form >= 0, forms.state_of[form, slots], -1)
    return event, form, states


def _check(forms: Forms, flat: Ints, slots: Ints, at: Ints, states: Ints) -> None:
    """Find the first position that breaks the grammar, whichever rule it breaks."""
    # The state before each position, and before the end: that after the last head.
    heads_before = np.searchsorted(at, np.arange(len(flat) + 1))
    before = np.concatenate([[BETWEEN], states])[heads_before]
    # A generic special ends an event that might have gone on.
    generic = np.maximum.accumulate(
        np.append(-1, np.where(slots == GENERIC, np.arange(len(flat)), -1))
    )
    before[generic > np.append(-1, at)[heads_before]] = BETWEEN
    known = np.maximum(before[:-1], BETWEEN)
    is_head = slots >= 0
    wrong = is_head & ~(forms.follows[known, np.maximum(slots, 0)])
    wrong[at] |= states < 0
    wrong |= (slots == GENERIC) & (~forms.ends[known] | (flat == UNK_ID))
    wrong |= (slots == BPE) & ~_opened(forms, flat, slots)
    never = np.zeros(forms.layout.vocab_size, np.bool_)
    never[forms.never] = True
    found = np.flatnonzero(wrong | never[flat])
    names = forms.layout.slots
    if found.size:
        position = int(found[0])
        raise TokenizerError(
            f"the id {flat[position]} cannot stand here",
            where=f"position {position}",
            why=f"{slot_names(names, forms.follows[known[position]])} comes next",
            next_step="decode whole events, as encode or generate gives them",
        )
    if not forms.ends[before[-1]]:
        raise TokenizerError(
            "the ids end inside an event",
            where=f"position {len(flat)}",
            why=f"{slot_names(names, forms.follows[before[-1]])} is missing",
            next_step="cut the ids where an event begins",
        )


def _opened(forms: Forms, flat: Ints, slots: Ints) -> Mask:
    """Where a BPE id may stand: the last id before it that is not BPE opens a text."""
    owner = np.maximum.accumulate(np.where(slots == BPE, -1, np.arange(len(flat))))
    opens = np.zeros(forms.layout.vocab_size, dtype=bool)
    for slot in forms.layout.slots:
        if slot.ragged:
            opens[slot.index] = True
            opens[slot.missing] = False
    opened = np.zeros(len(flat), dtype=bool)
    owned = (slots == BPE) & (owner >= 0)
    opened[owned] = opens[flat[owner[owned]]]
    return opened


def _as_flat(ids: npt.ArrayLike, vocab_size: int) -> Ints:
    flat = np.asarray(ids)
    if flat.size == 0:
        return np.empty(0, np.int64)
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise TokenizerError(
            f"cannot decode {flat.dtype} of shape {flat.shape}",
            next_step="pass a flat sequence of integer ids",
        )
    flat = flat.astype(np.int64)
    outside = np.flatnonzero((flat < 0) | (flat >= vocab_size))
    if outside.size:
        raise TokenizerError(
            f"the id {flat[outside[0]]} is outside the vocabulary of {vocab_size}",
            where=f"position {outside[0]}",
        )
    return flat


def _spans(flat: Ints, first: Ints, lengths: Ints) -> Ragged:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    source = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    return Ragged(flat[source].astype(np.int32), offsets)
