"""What an event leaves out: optional fields without a value, and what its budget has no room for.

::

    as the fields give it   [SOURCE=lab] [CODE=Na] [VALUE_MISSING] [NOTE] a b c d e f
    optional, null          [SOURCE=lab] [CODE=Na]                 [NOTE] a b c d e f
    max_tokens_per_event 6  [SOURCE=lab] [CODE=Na]                 [NOTE] a b c
    max_tokens_per_event 3  [SOURCE=lab] [CODE=Na]                 [NOTE]

Over its budget an event first loses text: the last text field is shortened, down to its marker,
then the one before it. Then it loses whole optional fields, from the last to the first. What is
left of a text is encoded anew (as `TextTokenizer.truncate` does), so that the ids of a shortened
event are the ids of its shortened values, and Hugging Face gives the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.base import Ragged
from domainformer.tokenizers.fields import BytePairModel, TextTokenizer
from domainformer.tokenizers.fields.text import FIRST_PIECE
from domainformer.tokenizers.forms import EventForm, Ints
from domainformer.tokenizers.kernels import Joined
from domainformer.tokenizers.slots import BPE

_EVENTS_PER_PASS = 1 << 18
# Events whose ids, and what is counted of them, stay in the L2 cache.
_BLOCK = 1 << 12
_ODD = np.random.default_rng(0).integers(0, 1 << 62, 1 << 16, dtype=np.int64) * 2 + 1


def trim(form: EventForm, joined: Joined) -> Joined:
    """The events of one form without what they leave out.

    Args:
        form: The form of all events.
        joined: Ids as the fields give them, the MISSING of optional fields included.
    """
    if len(form.never):
        joined = _without(form, joined)
    if form.most is None:
        return joined
    lengths = np.diff(joined.offsets)
    over = np.flatnonzero(lengths > form.most)
    if not len(over):
        return joined
    every = Ragged(joined.ids, joined.offsets)  # type: ignore[arg-type]
    rows, parts = np.arange(len(lengths)), [every]
    rows[over] = len(lengths) + np.arange(len(over))
    for start in range(0, len(over), _EVENTS_PER_PASS):
        long = every.take(over[start : start + _EVENTS_PER_PASS])
        short = _shortened(form, long.values.astype(np.int64), long.offsets)
        parts.append(Ragged(short.values.astype(joined.ids.dtype), short.offsets))
    values = np.concatenate([part.values for part in parts])
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    trimmed = Ragged(values, offsets).take(rows)
    return Joined(trimmed.values, trimmed.offsets)  # type: ignore[arg-type]


def trim_one(form: EventForm, hidden: frozenset[int], ids: list[int]) -> list[int]:
    """One event without what it leaves out; equal to `trim`.

    Args:
        form: Its form.
        hidden: ``form.never`` as a set.
        ids: As the fields give them.
    """
    if hidden:
        # A MISSING hour goes with its neighbour, so it is judged before that is gone.
        gone = [
            at
            for lacking, step, other in form.lacking
            for at, index in enumerate(ids)
            if index == lacking and ids[at + step] == other
        ]
        ids = [x for at, x in enumerate(ids) if x not in hidden and at not in gone]
    if form.most is None or len(ids) <= form.most:
        return ids
    offsets = np.array([0, len(ids)], np.int64)
    return _shortened(form, np.array(ids, np.int64), offsets).values.tolist()


def _without(form: EventForm, joined: Joined) -> Joined:
    """Drop the tokens of optional fields without a value wherever they stand."""
    kept = np.ones(form.layout.vocab_size, np.bool_)
    kept[form.never] = False
    ids, offsets = np.empty_like(joined.ids), np.empty_like(joined.offsets)
    offsets[0] = written = 0
    for start in range(0, len(offsets) - 1, _BLOCK):
        ends = joined.offsets[start : start + _BLOCK + 1]
        own = joined.ids[ends[0] : ends[-1]]
        keep = kept[own]
        for lacking, step, other in form.lacking:
            at = np.flatnonzero(own == lacking)
            keep[at] = own[at + step] != other
        before = np.cumsum(keep, dtype=np.int32)
        stays = own[keep]
        # No event is empty, so that each has a last id.
        offsets[start + 1 : start + len(ends)] = written + before[ends[1:] - ends[0] - 1]
        ids[written : written + len(stays)] = stays
        written += len(stays)
    return Joined(ids[:written], offsets)


def _shortened(form: EventForm, values: Ints, offsets: Ints) -> Ragged:
    """Events that are over their budget, brought within it.

    Args:
        form: Their form, with a budget.
        values: Ids, changed in place.
        offsets: Where events begin.
    """
    assert form.most is not None
    slots = form.layout.slot_of_id[values]
    event = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    excess = np.diff(offsets) - form.most
    keep = np.ones(len(values), np.bool_)
    # A piece belongs to the last head before it.
    owner = np.maximum.accumulate(np.where(slots == BPE, 0, np.arange(len(values))))
    pieces = np.bincount(owner[slots == BPE], minlength=len(values))
    first_slot = np.cumsum([0, *(len(block.slots) for block in form.layout.blocks)])
    blocks = list(zip(form.layout.blocks, first_slot, strict=False))
    for block, slot in reversed(blocks):
        if not isinstance(block.tokenizer, TextTokenizer):
            continue
        at = np.flatnonzero(slots == slot)
        at = at[(pieces[at] > 0) & (excess[event[at]] > 0)]
        if not len(at):
            continue
        assert block.tokenizer.bpe is not None
        room = np.maximum(pieces[at] - excess[event[at]], 0)
        written = _rewrite(form, block.tokenizer.bpe, values, keep, at + 1, pieces[at], room)
        excess[event[at]] -= pieces[at] - written
    for block, slot in reversed(blocks):
        if block.spec.optional:
            own = (slots >= slot) & (slots < slot + len(block.slots)) & (excess[event] > 0)
            keep &= ~own
            excess -= np.bincount(event[own], minlength=len(excess))
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    return Ragged(values[keep], before[offsets])  # type: ignore[arg-type]


def _rewrite(
    form: EventForm,
    bpe: BytePairModel,
    values: Ints,
    keep: npt.NDArray[np.bool_],
    first: Ints,
    counts: Ints,
    room: Ints,
) -> Ints:
    """Shorten texts in place: write the ids of what is left, and drop the rest.

    Args:
        form: The form of the events.
        bpe: The model of the texts.
        values: Ids; changed.
        keep: Which of them stay; changed.
        first: Where the pieces of each text begin.
        counts: How many each has.
        room: How many each may keep.

    Returns:
        How many each has now.
    """
    own = form.layout.local_of_id[values] - FIRST_PIECE
    matrix = np.full((len(first), int(counts.max()) + 1), -1, np.int64)
    columns = np.arange(matrix.shape[1] - 1)
    inside = columns < counts[:, None]
    where = (first[:, None] + columns)[inside]
    matrix[:, :-1][inside] = own[where]
    matrix[:, -1] = room
    # Many events say the same, so that each text is shortened once for each room.
    distinct, code = _distinct_rows(matrix)
    rows: list[list[int]] = [[] for _ in distinct]
    for budget in np.unique(distinct[:, -1]).tolist():
        of_budget = np.flatnonzero(distinct[:, -1] == budget)
        texts = [bpe.decode(row[row >= 0].tolist()) for row in distinct[of_budget, :-1]]
        for index, cut in zip(of_budget, bpe.truncate(texts, budget), strict=True):
            rows[index] = cut.ids
    short = Ragged.of(rows).take(code)
    written = np.diff(short.offsets)
    keep[where] = False
    stay = (first[:, None] + columns)[columns < written[:, None]]
    values[stay] = form.layout.of_pieces(short.values.astype(np.int64))
    keep[stay] = True
    return written


def _distinct_rows(matrix: Ints) -> tuple[Ints, Ints]:
    """The distinct rows of a matrix, and for each row which of them it is.

    Rows are told apart by a 64-bit sum, which sorts many times faster than rows do; should two
    share a sum, they are compared themselves.

    Example:
        >>> distinct, code = _distinct_rows(np.array([[2, 1], [1, 2], [2, 1]]))
        >>> len(distinct), distinct[code].tolist()
        (2, [[2, 1], [1, 2], [2, 1]])
    """
    sums = matrix @ _ODD[np.arange(matrix.shape[1]) % len(_ODD)]
    _, first, code = np.unique(sums, return_index=True, return_inverse=True)
    distinct, code = matrix[first], code.reshape(-1)
    if not np.array_equal(distinct[code], matrix):
        distinct, code = np.unique(matrix, axis=0, return_inverse=True)
    return distinct, code.reshape(-1)
