"""Where in the calendar an event lies: month, weekday, day of the month, hour, quarter, year.

All parts of a column come from one look-up: the time is divided into steps (days, or hours where
the hour is a part), and a table over the steps from the first to the last event holds the ids of
all parts of a step::

    2024-03-29 17:45  ──÷ 1 h──▶  step 475,409  ──table──▶  [03] [5] [29] [17]
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import TokenizerError
from domainformer.schema.fields import CALENDAR_PARTS, calendar_missing_token, calendar_tokens
from domainformer.tokenizers.base import Int32Array, Int64Array, SlotRange
from domainformer.tokenizers.fields.columns import wall_clock, wrong_type, wrong_value
from domainformer.tokenizers.fields.shapes import Codes, LookupTokenizer
from domainformer.tokenizers.statistics import ExtremesSketch, Limits

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

_PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_YEARS = 10
# Steps that span more than this (an hour table of 119 years) are looked up by distinct value.
_WIDEST_TABLE = 1 << 20
# The anchor of a column in which no time was seen.
_NO_YEAR = 1970


class CalendarPlan(NamedTuple):
    """A temporal column as steps into a table: ``table[times // unit - first + 1]``.

    Attributes:
        times: The column's physical integers, int64; arbitrary where ``missing``.
        unit: Physical units per step (1 for dates, an hour or a day of them for datetimes).
        first: The step of the table's row 1. Row 0 holds the missing tokens.
        table: Local ids, int32 ``[1 + steps, width]``.
        missing: Mask of nulls, or None where there are none.
    """

    times: Int64Array
    unit: int
    first: int
    table: Int32Array
    missing: npt.NDArray[np.bool_] | None


class CalendarTokenizer(LookupTokenizer):
    """The calendar parts of a date or time: ``[TIME_MONTH=03] [TIME_DOW=5] [TIME_HOUR=17]``.

    ======= ======================= =====================================================
    part    tokens                  meaning
    ======= ======================= =====================================================
    month   01 … 12
    dow     1 … 7                   ISO weekday, 1 is Monday
    dom     01 … 31                 day of the month
    hour    00 … 23                 missing for a column of dates, which has no time of day
    quarter 1 … 4
    year    0 … 9                   years since the anchor; earlier and later years are 0 and 9
    ======= ======================= =====================================================

    Each part is one position with its own missing token, first in its block of ids. A null gives
    the missing token at every position. Times with a zone are read as that zone's wall clock
    (17:45 in London is hour 17), times without one as they stand. Only the anchor year is learned
    (the first year of the training data), unless the spec names it.

    Args:
        spec: A field of type TEMPORAL with at least one calendar part.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> spec = FieldSpec("time", "temporal", calendar_fields=("month", "dow", "hour"))
        >>> column = pl.Series([dt.datetime(2024, 3, 29, 17, 45)])
        >>> calendar = CalendarTokenizer(spec).fit(column)
        >>> [calendar.vocab[i] for i in calendar.encode(column)[0]]
        ['[TIME_MONTH=03]', '[TIME_DOW=5]', '[TIME_HOUR=17]']
    """

    kind: ClassVar[str] = "calendar"

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__(spec)
        if not spec.calendar_fields:
            raise TokenizerError(
                f"field {spec.name!r} has no calendar parts",
                next_step="name some in calendar_fields, or use ElapsedTimeTokenizer alone",
            )
        self.parts = spec.calendar_fields
        self.width = len(self.parts)
        sizes = [CALENDAR_PARTS[part].size + 1 for part in self.parts]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self._slots = tuple(
            SlotRange(part, start, start + size)
            for part, start, size in zip(self.parts, starts, sizes, strict=False)
        )
        self._all_missing = tuple(slot.start for slot in self._slots)

    @property
    def slots(self) -> tuple[SlotRange, ...]:
        """One slot per part, in token order; each starts with the part's missing token."""
        return self._slots

    def new_statistics(self, limits: Limits) -> ExtremesSketch:
        """A sketch of the first and the last year."""
        return ExtremesSketch()

    def observe(self, sketch: ExtremesSketch, column: pl.Series) -> None:
        """Add the years of a column."""
        self._check(column)
        # An all-null column may have the Null type, which has no years.
        if len(column) > column.null_count():
            years = _extremes(column).dt.year().drop_nulls().to_numpy()
            if len(years):  # times beyond the calendar have none either
                sketch.add(int(years.min()), int(years.max()))

    def fit_statistics(self, sketch: ExtremesSketch) -> Self:
        """Learn the anchor year."""
        first = _NO_YEAR if sketch.low is None else sketch.low
        return self._built(first if self.spec.year_anchor is None else self.spec.year_anchor)

    def _built(self, anchor: int) -> Self:
        self.anchor = anchor
        name = self.spec.name
        self._vocab = [
            token
            for part in self.parts
            for token in (calendar_missing_token(name, part), *calendar_tokens(name, part))
        ]
        return self

    def plan(self, column: pl.Series) -> CalendarPlan | None:
        """The column as steps into a table, or None where its range is too wide for a table."""
        self._require_fitted()
        times, unit, missing = self._physical(column)
        if missing is not None and missing.all():
            return CalendarPlan(times, 1, 0, self._table(np.empty(0, np.int64), 1), missing)
        present = times if missing is None else times[~missing]
        if not len(present):
            return CalendarPlan(times, 1, 0, self._table(np.empty(0, np.int64), 1), None)
        first, last = int(present.min()) // unit, int(present.max()) // unit
        if last - first >= _WIDEST_TABLE:
            return None
        steps = np.arange(first, last + 1)
        table = self._table(steps, self._steps_per_day(column))
        return CalendarPlan(times, unit, first, table, missing)

    def codes(self, column: pl.Series) -> Codes:
        """Codes of the column's steps, and the ids of all parts for each."""
        plan = self.plan(column)
        if plan is None:
            times, unit, missing = self._physical(column)
            distinct, rows = np.unique(times // unit, return_inverse=True)
            table = self._table(distinct, self._steps_per_day(column))
            codes = rows.astype(np.int32) + np.int32(1)
        else:
            missing, table = plan.missing, plan.table
            steps = plan.times if plan.unit == 1 else plan.times // plan.unit
            codes = np.subtract(steps, plan.first - 1).astype(np.int32)
        if missing is not None:
            codes[missing] = 0
        return Codes(codes, table)

    def _check(self, column: pl.Series) -> None:
        if column.dtype not in (pl.Date, pl.Datetime, pl.Null):
            raise wrong_type(column, field=self.spec.name, wanted="dates or datetimes")

    def _steps_per_day(self, column: pl.Series) -> int:
        return 24 if "hour" in self.parts and column.dtype == pl.Datetime else 1

    def _physical(self, column: pl.Series) -> tuple[Int64Array, int, npt.NDArray[np.bool_] | None]:
        """Physical integers of the wall clock, units per step, and the mask of nulls."""
        self._check(column)
        unit = 1
        if isinstance(column.dtype, pl.Datetime):
            day = 86_400 * _PER_SECOND[column.dtype.time_unit]
            if column.dtype.time_zone is not None:
                column = wall_clock(column)
            unit = day // self._steps_per_day(column)
        missing = column.is_null().to_numpy() if column.null_count() else None
        times = column.to_physical().cast(pl.Int64)
        return (times if missing is None else times.fill_null(0)).to_numpy(), unit, missing

    def _table(self, steps: Int64Array, per_day: int) -> Int32Array:
        """Local ids of every step; row 0 is missing."""
        days = steps // per_day
        first, last = (int(days[0]), int(days[-1])) if len(days) else (0, 0)
        # Many steps share a day, so the arithmetic runs over the days where these are fewer.
        dense = last - first < len(days)
        civil = _civil(np.arange(first, last + 1) if dense else days)
        table = np.empty((len(steps) + 1, len(self.parts)), dtype=np.int32)
        for position, slot in enumerate(self._slots):
            table[0, position] = slot.start
            if slot.part == "hour":
                values = steps % 24 + 1 if per_day == 24 else np.zeros(len(steps), np.int64)
            else:
                values = self._index(slot.part, civil)
                values = values[days - first] if dense else values
            table[1:, position] = slot.start + values
        return table

    def _index(self, part: str, civil: dict[str, Int64Array]) -> Int64Array:
        """Position of each day's part within its block, from 1 on."""
        if part == "year":
            return np.clip(civil["year"] - self.anchor, 0, _YEARS - 1) + 1
        return civil[part] - CALENDAR_PARTS[part].first + 1

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local ids of one date or datetime, by its own wall clock."""
        self._require_fitted()
        if value is None or value != value:  # pandas' NaT differs from itself
            return self._all_missing
        if not isinstance(value, dt.date):
            raise wrong_value(value, field=self.spec.name, wanted="a date or datetime")
        return tuple(slot.start + self._index_one(slot.part, value) for slot in self._slots)

    def _index_one(self, part: str, value: dt.date) -> int:
        if part == "month":
            return value.month
        if part == "dow":
            return value.isoweekday()
        if part == "dom":
            return value.day
        if part == "hour":
            return value.hour + 1 if isinstance(value, dt.datetime) else 0
        if part == "quarter":
            return (value.month + 2) // 3
        return min(max(value.year - self.anchor, 0), _YEARS - 1) + 1

    def decode(self, ids: Any) -> pl.Series:
        """A struct per event with one integer per part, null where missing."""
        array = self._checked(ids)
        parts = []
        for position, slot in enumerate(self._slots):
            offset = array[:, position] - slot.start
            values = offset - 1 + self._first(slot.part)
            column = pl.Series(slot.part, values, dtype=pl.Int64)
            parts.append(column.set(pl.Series(offset == 0), None))
        return pl.DataFrame(parts).to_struct(self.spec.name)

    def _first(self, part: str) -> int:
        return self.anchor if part == "year" else CALENDAR_PARTS[part].first

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, value), part and the part's value."""
        token = self._token(local_id)
        slot = next(slot for slot in self._slots if slot.start <= local_id < slot.stop)
        if local_id == slot.start:
            return {"token": token, "kind": "missing", "part": slot.part}
        value = local_id - slot.start - 1 + self._first(slot.part)
        return {"token": token, "kind": "value", "part": slot.part, "value": value}

    def state(self) -> dict[str, Any]:
        """The anchor year."""
        self._require_fitted()
        return {"kind": self.kind, "anchor": self.anchor}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from what `state` gave."""
        return cls(spec)._built(int(state["anchor"]))


def _extremes(column: pl.Series) -> pl.Series:
    """A few of the times, the first and the last among them, where order tells which these are."""
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
        return column  # a zone's clock can be put back
    times = column.to_physical()
    return pl.Series([times.min(), times.max()], dtype=times.dtype).cast(column.dtype)


def _civil(days: Int64Array) -> dict[str, Int64Array]:
    """Calendar parts of days since 1970-01-01 in the proleptic Gregorian calendar.

    Years begin in March here, so that the leap day is a year's last, and 400 years (146,097 days)
    make one era. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    shifted = days + 719_468  # days since 0000-03-01
    era = shifted // 146_097
    in_era = shifted - era * 146_097
    year = (in_era - in_era // 1_460 + in_era // 36_524 - in_era // 146_096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    march_month = (5 * in_year + 2) // 153
    month = np.where(march_month < 10, march_month + 3, march_month - 9)
    return {
        "year": year + era * 400 + (month <= 2),
        "month": month,
        "quarter": (month + 2) // 3,
        "dom": in_year - (153 * march_month + 2) // 5 + 1,
        "dow": (days + 3) % 7 + 1,  # 1970-01-01 was a Thursday
    }
