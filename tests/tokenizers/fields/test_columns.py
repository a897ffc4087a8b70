"""Wall clocks of the far future, where polars and Python know different rules."""

from __future__ import annotations

import polars as pl
import pytest

from domainformer.schema import FieldSpec
from domainformer.tokenizers.fields import CalendarTokenizer
from domainformer.tokenizers.fields.columns import wall_clock

TIMES = ["2023-07-01T12:00", "2120-07-01T12:00", None, "9999-07-02T22:40", "9999-12-31T09:30"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/London", "Australia/Sydney", "America/St_Johns"])
def test_late_clocks_are_read_as_python_reads_one(zone):
    utc = pl.Series(TIMES, dtype=pl.String).str.to_datetime().dt.replace_time_zone("UTC")
    column = utc.dt.convert_time_zone(zone)
    naive = [time and time.replace(tzinfo=None) for time in column.to_list()]
    assert wall_clock(column).to_list() == naive
    spec = FieldSpec("at", "temporal", calendar_fields=("hour", "dom"))
    calendar = CalendarTokenizer(spec).fit(column)
    singles = [list(calendar.encode_one(time)) for time in column.to_list()]
    assert calendar.encode(column).tolist() == singles


def test_the_last_hour_of_the_calendar_stays_as_it_is():
    last = pl.Series(["9999-12-31T23:30"]).str.to_datetime().dt.replace_time_zone("UTC")
    for zone in ("UTC", "Australia/Sydney"):
        column = last.dt.convert_time_zone(zone)
        assert wall_clock(column).equals(column.dt.replace_time_zone(None))


def test_nanoseconds_and_nulls():
    late = pl.Series(["2120-07-01T12:00", None]).str.to_datetime().dt.cast_time_unit("ns")
    shown = wall_clock(late.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/London"))
    assert shown.dt.hour().to_list() == [13, None]
    assert shown.dtype == pl.Datetime("ns")
