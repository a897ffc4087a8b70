"""Keeping training, validation and test apart, by time or by entity.

::

    by time     entity a  t t t t t t v v x x      by entity   a  t t t t t t t
                entity b      t t t t v x x x                  b  v v v v
                          ───────────▶ time                    c  x x x x x x

A split gives every event a role and says in a plain record how it came about, so that a run can
name it and a later process can make it again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from domainformer.data.keys import NULL_TIME
from domainformer.data.table import EventTable
from domainformer.errors import DataError, nearest

TRAIN, VALIDATION, TEST = 0, 1, 2
ROLE_NAMES = ("train", "validation", "test")

Cut = str | int | dt.date | dt.datetime
_DAY_US = 86_400_000_000
_EPOCH = dt.datetime(1970, 1, 1)  # all times are UTC, without a zone


@dataclass(frozen=True, eq=False)
class Split:
    """A role for every event of a table.

    Args:
        kind: ``"time"`` or ``"entity"``.
        roles: uint8 ``[n_events]``: ``TRAIN``, ``VALIDATION`` or ``TEST``.
        record: How it was made (JSON-able): cuts or seed, fractions, counts.
    """

    kind: Literal["time", "entity"]
    roles: np.ndarray
    record: dict[str, Any]

    def events(self, table: EventTable, role: int | str) -> EventTable:
        """The events of one part, by role (0, 1, 2) or name ("train", "validation", "test").

        Raises:
            DataError: The table is not the one that was split, or the part is empty.
        """
        if len(self.roles) != table.n_events:
            raise DataError(
                "this split was made for another table",
                why=f"it has {len(self.roles):,} events, the table {table.n_events:,}",
            )
        if isinstance(role, str):
            if role not in ROLE_NAMES:
                raise DataError(f"there is no part {role!r}", next_step=nearest(role, ROLE_NAMES))
            role = ROLE_NAMES.index(role)
        chosen = self.roles == role
        if not chosen.any():
            raise DataError(
                f"the {ROLE_NAMES[role]} part is empty", next_step="give it a larger fraction"
            )
        return table.filter(chosen)

    def check(self, table: EventTable) -> None:
        """Raise unless the parts of this table are disjoint in time, or in entities.

        Raises:
            DataError: An event of an earlier part lies at or after the start of a later one, or
                an entity is in two parts.
        """
        present = [role for role in (TRAIN, VALIDATION, TEST) if (self.roles == role).any()]
        parts = [self.events(table, role) for role in present]
        for i, earlier in enumerate(parts):
            for j in range(i + 1, len(parts)):
                check_disjoint(
                    earlier,
                    parts[j],
                    by=self.kind,
                    names=(ROLE_NAMES[present[i]], ROLE_NAMES[present[j]]),
                )

    @staticmethod
    def from_record(table: EventTable, record: Mapping[str, Any]) -> Split:
        """Make the split again that a record describes, on this or on a newer table.

        Raises:
            DataError: The record is not one of a split, or a part would be empty.
        """
        if record.get("kind") == "time" and "test_from" in record:
            return split_by_time(
                table, validation_from=record["validation_from"], test_from=record["test_from"]
            )
        if record.get("kind") == "entity" and "seed" in record:
            return split_by_entity(table, fractions=record["fractions"], seed=record["seed"])
        raise DataError("this is no record of a split", why=f"it holds {dict(record)}")


def check_disjoint(
    earlier: EventTable,
    later: EventTable,
    *,
    by: Literal["time", "entity"],
    names: tuple[str, str] = ("train", "test"),
) -> None:
    """Raise if what was trained on reaches into what is tested on.

    Args:
        earlier: The events of the training (or validation) part.
        later: The events of a later part.
        by: ``"time"``: every earlier event lies before every later one. ``"entity"``: no entity
            is in both.
        names: What errors call the two.

    Raises:
        DataError: There is a leak; the first shared entity or time is named.
    """
    if by == "entity":
        both = earlier.entity_ids.filter(earlier.entity_ids.is_in(later.entity_ids.implode()))
        if len(both):
            raise DataError(
                f"the {names[0]} part leaks into the {names[1]} part",
                where=f"entity {both[0]!r}",
                why=f"{len(both):,} entities are in both",
                next_step="split again by entity, and fit on the training part alone",
            )
        return
    times = earlier.time_values
    last = int(times.max(initial=NULL_TIME))
    known = later.time_values[later.time_values != NULL_TIME]
    if last != NULL_TIME and len(known) and last >= known.min():
        first = int(known.min())
        raise DataError(
            f"the {names[0]} part leaks into the {names[1]} part",
            where=f"time {_show(earlier, first)}",
            why=f"{int((times >= first).sum()):,} {names[0]} events lie at or after this first "
            f"{names[1]} event",
            next_step="split again by time, and fit on the training part alone",
        )


def split_by_time(
    table: EventTable,
    *,
    validation_from: Cut | None = None,
    test_from: Cut | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Split:
    """Train on the past, validate and test on what came later.

    ``train < validation_from <= validation < test_from <= test``. A cut that is not given is put
    where the parts come nearest to their fractions of *events*, between two days (or between two
    times, in tables of less than ten days), so that a day is never torn. Events without a time
    are known from the start and belong to the training part.

    Args:
        table: A table with times.
        validation_from: First time of the validation part: ISO string, date, datetime (UTC), or
            the whole number of an integer time. Equal to ``test_from``: no validation part.
        test_from: First time of the test part.
        fractions: Shares of train, validation and test; a zero leaves that part out.

    Raises:
        DataError: The table has no time, a cut is no time, or a part would be empty.

    Example:
        >>> frame = pl.DataFrame({"id": [1] * 10, "day": list(range(10))})
        >>> split = split_by_time(EventTable.of(frame, entity="id", time="day"))
        >>> split.roles.tolist(), split.record["test_from"]
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], 9)
    """
    if table.time is None:
        raise DataError(
            "a table without times cannot be split by time",
            next_step="split by entity, or name the time column",
        )
    shares = _check_fractions(fractions)
    known = np.sort(table.time_values[table.time_values != NULL_TIME])
    validation = None if validation_from is None else _to_int(table, validation_from)
    test = None if test_from is None else _to_int(table, test_from)
    if test is None:
        later = known if validation is None else known[known >= validation]
        before = shares[0] + shares[1] if validation is None else shares[1] / (1 - shares[0])
        test = _cut(table, later, before, parts_before=1 + (validation is None and shares[1] > 0))
    if validation is None:
        share = shares[0] / (shares[0] + shares[1])
        validation = test if not shares[1] else _cut(table, known[known < test], share, 1)
    if validation > test:
        raise DataError(
            "the cuts are in the wrong order",
            why=f"validation begins at {_show(table, validation)}, "
            f"test before it at {_show(table, test)}",
        )
    roles = (table.time_values >= validation).astype(np.uint8)
    roles[table.time_values >= test] = TEST
    roles[table.time_values == NULL_TIME] = TRAIN
    record = {
        "kind": "time",
        "time": table.time,
        "validation_from": _show(table, validation),
        "test_from": _show(table, test),
    }
    expected = (True, validation < test, True)
    return _finish(table, "time", roles, record, expected)


def split_by_entity(
    table: EventTable, *, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Split:
    """Train on some entities, validate and test on others.

    An entity's role is a seeded BLAKE2 hash of its id as text, compared with the fractions: it
    depends neither on other entities nor on the order of rows, so that an entity keeps its role
    when the table grows. The shares are therefore met on average, not exactly.

    Args:
        table: The events.
        fractions: Shares of train, validation and test; a zero leaves that part out (the test part
            too, where a table of training entities is divided once more).
        seed: Another seed, another split.

    Raises:
        DataError: A part would be empty, as it must with a single entity.

    Example:
        >>> frame = pl.DataFrame({"id": list(range(1000)), "day": [0] * 1000})
        >>> split = split_by_entity(EventTable.of(frame, entity="id", time="day"), seed=7)
        >>> split.record["entities"]
        {'train': 815, 'validation': 90, 'test': 95}
    """
    shares = _check_fractions(fractions, needs_test=False)
    present = sum(share > 0 for share in shares)
    if table.n_entities < present:
        raise DataError(
            f"{table.n_entities} entities cannot be split into {present} parts",
            next_step="split by time instead (split_by_time)",
        )
    bounds = np.cumsum(shares)[:2]
    drawn = np.searchsorted(bounds, _hash_unit(table.entity_ids, seed), side="right")
    # Rounding must not put an entity into a part that was left out.
    last = max(role for role in (TRAIN, VALIDATION, TEST) if shares[role] > 0)
    roles = np.repeat(np.minimum(drawn, last).astype(np.uint8), table.lengths)
    record = {"kind": "entity", "fractions": list(shares), "seed": seed}
    return _finish(table, "entity", roles, record, tuple(share > 0 for share in shares))


def _finish(
    table: EventTable,
    kind: Literal["time", "entity"],
    roles: np.ndarray,
    record: dict[str, Any],
    expected: Sequence[bool],
) -> Split:
    """Count the parts and refuse empty ones."""
    counts = np.bincount(roles, minlength=3).tolist()
    entity = np.repeat(np.arange(table.n_entities), table.lengths)
    entities = [len(np.unique(entity[roles == role])) for role in (TRAIN, VALIDATION, TEST)]
    for role, count in enumerate(counts):
        if expected[role] and not count:
            advice = (
                "move the cut, or change the fractions"
                if kind == "time"
                else "take another seed, a larger fraction, or split by time"
            )
            raise DataError(
                f"the {ROLE_NAMES[role]} part would be empty",
                why=f"the split is {record}; events a part: {counts}",
                next_step=advice,
            )
    record["events"] = dict(zip(ROLE_NAMES, counts, strict=True))
    record["entities"] = dict(zip(ROLE_NAMES, entities, strict=True))
    return Split(kind, roles, record)


def _check_fractions(
    fractions: Sequence[float], *, needs_test: bool = True
) -> tuple[float, float, float]:
    values = [float(value) for value in fractions]
    if len(values) != 3 or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        raise DataError(
            "fractions are three shares of train, validation and test that add up to 1",
            why=f"they are {values}",
        )
    if not values[0] or (needs_test and not values[2]):
        raise DataError("the train and the test part need a share above zero")
    return values[0], values[1], values[2]


def _cut(table: EventTable, times: np.ndarray, share: float, parts_before: int) -> int:
    """The boundary that leaves nearest to ``share`` of sorted ``times`` before it.

    Args:
        table: Tells the kind of the times.
        times: Sorted times, without nulls.
        share: Wanted share of events before the cut.
        parts_before: Parts that must find room before the cut, so many boundaries are left.
    """
    if not len(times):
        raise DataError(
            "a part would be empty", why="no events are left for it", next_step="move the cut"
        )
    if table.time_kind == "datetime" and times[-1] - times[0] > 10 * _DAY_US:
        times = times // _DAY_US * _DAY_US
    values, starts = np.unique(times, return_index=True)
    if len(values) <= parts_before:
        raise DataError(
            "the parts cannot be told apart by time",
            why=f"there are only {len(values)} different days or times to cut between",
            next_step="split by entity, or leave out the validation part (its fraction 0)",
        )
    distance = np.abs(starts[parts_before:] / len(times) - share)
    return int(values[parts_before + int(np.argmin(distance))])


def _to_int(table: EventTable, cut: Cut) -> int:
    return cut_value(cut, time=str(table.time), integer=table.time_kind == "integer")


def cut_value(cut: Cut, *, time: str, integer: bool) -> int:
    """A cut as ``EventTable.time_values`` has times: µs since 1970, or a whole number.

    Args:
        cut: ISO string, date, datetime (UTC), or whole number.
        time: Name of the time column, for errors.
        integer: Whether the times are whole numbers.

    Raises:
        DataError: The cut is no such time.

    Example:
        >>> cut_value("1970-01-02", time="day", integer=False)
        86400000000
    """
    if integer:
        if isinstance(cut, int) and not isinstance(cut, bool):
            return cut
        raise DataError(f"the cut {cut!r} is no whole number", why=f"{time} holds whole numbers")
    try:
        moment = dt.datetime.fromisoformat(cut) if isinstance(cut, str) else cut
        if not isinstance(moment, dt.date):
            raise ValueError("a date or a time is needed")  # noqa: TRY004
    except ValueError as error:
        raise DataError(
            f"the cut {cut!r} is no time",
            why=str(error),
            next_step="write it as 2024-05-31 or 2024-05-31T12:00",
        ) from error
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.combine(moment, dt.time())
    if moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def _show(table: EventTable, value: int) -> str | int:
    """A time as it is written in a record."""
    if table.time_kind == "integer":
        return value
    moment = _EPOCH + dt.timedelta(microseconds=value)
    return moment.date().isoformat() if value % _DAY_US == 0 else moment.isoformat()


def _hash_unit(ids: pl.Series, seed: int) -> np.ndarray:
    """A number in [0, 1) for every id, the same in every process and version."""
    texts = ids.to_list() if ids.dtype == pl.Binary else ids.cast(pl.String).to_list()
    key = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    raw = b"".join(
        hashlib.blake2b(
            text if isinstance(text, bytes) else text.encode(), digest_size=8, key=key
        ).digest()
        for text in texts
    )
    return (np.frombuffer(raw, dtype="<u8") >> np.uint64(11)) * 2.0**-53
