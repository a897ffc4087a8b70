"""Columns of Parquet files in one common type each, batch by batch.

`keys.py` says what ids and times become; here the same is done for one batch of many, where no
batch sees all values. The fast ways (integers, strings, microseconds) are Arrow casts; anything
else goes through `keys.py` itself::

    ids     int8 … uint64, bool, string, bytes  stay     7.0 ─▶ 7      dictionary ─▶ its strings
    times   date, timestamp[any]                ─▶ date, timestamp[µs] in UTC
            whole numbers ─▶ int64              "2024-05-01T10:00"     ─▶ timestamp[µs]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from domainformer.data.keys import normalise_entity, normalise_time, parse_iso
from domainformer.errors import DataError

_DAY_US = 86_400_000_000
_MICROSECONDS = pa.timestamp("us")
# A dictionary that is not at least this many times shorter than its column only costs.
_LEAST_REPETITION = 2


class Place(NamedTuple):
    """Where a column of a batch comes from, for errors.

    Args:
        column: Its name.
        file: The file.
        row: Rows of the file before the batch.
    """

    column: str
    file: str
    row: int

    def locate(self, row: int) -> str:
        """The file and row, counted from 1, of a row of the batch."""
        return f"{self.file}, row {self.row + row + 1:,}"


def is_stringy(kind: pa.DataType) -> bool:
    """Whether values are strings or bytes, by dictionary or not."""
    if pa.types.is_dictionary(kind):
        return is_stringy(kind.value_type)
    views = (pa.string_view(), pa.binary_view())
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or kind in views
    )


def common_types(
    names: Sequence[str],
    stored: Sequence[pa.Schema],
    given: Mapping[str, pa.DataType],
    *,
    entity: str,
    time: str | None,
) -> tuple[pa.Schema, bool]:
    """The types that columns of all files are brought to, and whether times are strings.

    Args:
        names: The columns.
        stored: Schemas of the files.
        given: Types of columns that folders give.
        entity: The entity column.
        time: The time column, or None.

    Raises:
        DataError: A column has types that do not go together.
    """
    fields = []
    text_times = False
    for name in names:
        kinds = [
            _simple(schema.field(name).type) if name in schema.names else _simple(given[name])
            for schema in stored
        ]
        if name == entity:
            kind = _entity_type(name, kinds)
        elif name == time:
            kind, text_times = _time_type(name, kinds)
        else:
            kind = _union(name, kinds)
        fields.append(pa.field(name, kind))
    return pa.schema(fields), text_times


def entities(array: pa.Array, kind: pa.DataType, place: Place) -> pa.Array:
    """A batch of ids in the common type; strings may come by dictionary."""
    simple = _simple(array.type)
    if pa.types.is_floating(simple) or pa.types.is_decimal(simple):
        if array.null_count == len(array):
            return pa.nulls(len(array), kind)
        column = pl.Series(place.column, pl.from_arrow(array))
        return normalise_entity(column, where=place.file, locate=place.locate).to_arrow().cast(kind)
    return plain(array, kind, place)


def times(array: pa.Array, kind: pa.DataType, place: Place) -> pa.Array:
    """A batch of times in the common type."""
    array = _decoded(array)
    stored = array.type
    if array.null_count == len(array):
        return pa.nulls(len(array), kind)
    if pa.types.is_timestamp(stored) and stored.unit == "us":
        # The stored number is the instant in UTC, whatever the zone it is shown in.
        return array.cast(pa.int64()).cast(_MICROSECONDS)
    if stored == pa.date32() or pa.types.is_signed_integer(stored):
        return _cast(array, kind, place)
    column = pl.Series(place.column, pl.from_arrow(array))
    if column.dtype == pl.String:
        column = parse_iso(column, place.locate)
        if column.null_count() == len(column):  # blanks alone, in this batch of many
            return pa.nulls(len(array), kind)
    normal, _, _ = normalise_time(column, where=place.file, locate=place.locate)
    return normal.to_arrow().cast(kind)


def plain(array: pa.Array, kind: pa.DataType, place: Place) -> pa.Array:
    """A batch of any other column in the common type; strings that repeat keep a dictionary."""
    if pa.types.is_dictionary(array.type):
        values = array.dictionary
        few = len(values) * _LEAST_REPETITION <= len(array) and is_stringy(kind)
        if few and array.indices.type == pa.int32() and not values.null_count:
            return pa.DictionaryArray.from_arrays(array.indices, _cast(values, kind, place))
        array = _decoded(array)
    return array if array.type == kind else _cast(array, kind, place)


def all_midnight(array: pa.Array) -> bool:
    """Whether all times are days, as `keys.normalise_time` sees it; nulls do not count."""
    if pa.types.is_date(array.type) or not len(array):
        return True
    if pa.types.is_integer(array.type):
        return False
    values = array.cast(pa.int64()).fill_null(0).to_numpy()
    # Most tables have times of day, and one of the first events shows it.
    return not ((values[:1024] % _DAY_US).any() or (values % _DAY_US).any())


def _simple(kind: pa.DataType) -> pa.DataType:
    """The type of the values, with one form of strings and of bytes."""
    if pa.types.is_dictionary(kind):
        return _simple(kind.value_type)
    if is_stringy(kind):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return pa.string() if text or kind == pa.string_view() else pa.binary()
    return kind


def _union(name: str, kinds: Sequence[pa.DataType]) -> pa.DataType:
    """One type that holds the values of all."""
    try:
        schemas = [pa.schema([(name, kind)]) for kind in dict.fromkeys(kinds)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException as error:
        raise _different(name, kinds) from error


def _entity_type(name: str, kinds: Sequence[pa.DataType]) -> pa.DataType:
    numeric = [pa.types.is_floating(kind) or pa.types.is_decimal(kind) for kind in kinds]
    if any(numeric):
        others = [k for k, fraction in zip(kinds, numeric, strict=True) if not fraction]
        if not all(pa.types.is_integer(kind) or pa.types.is_null(kind) for kind in others):
            raise _different(name, kinds)
        return pa.int64()
    kind = _union(name, kinds)
    if is_stringy(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return kind
    if pa.types.is_null(kind):
        raise DataError(
            f"the entity column {name!r} is empty in every row",
            next_step="name the column that tells whose event each row is",
        )
    raise DataError(
        f"the column {name!r} cannot name entities",
        why=f"its type is {kind}",
        next_step="use an integer or string column, or cast this one to strings before",
    )


def _time_type(name: str, kinds: Sequence[pa.DataType]) -> tuple[pa.DataType, bool]:
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    if known and all(
        pa.types.is_integer(k) or pa.types.is_floating(k) or pa.types.is_decimal(k) for k in known
    ):
        return pa.int64(), False
    if known and all(kind == pa.date32() for kind in known):
        return pa.date32(), False
    moments = [pa.types.is_timestamp(kind) or pa.types.is_date(kind) for kind in known]
    if known and all(moments):
        clocks = {pa.types.is_timestamp(k) and k.tz is not None for k in known if k != pa.date32()}
        if len(clocks) > 1:  # wall clocks of an unknown place, and instants
            raise _different(name, kinds)
        return _MICROSECONDS, False
    if known and all(is_stringy(kind) for kind in known):
        return _MICROSECONDS, True
    if len(set(map(str, known))) > 1:
        raise _different(name, kinds)
    raise DataError(
        f"the column {name!r} is not a time",
        why=f"its type is {known[0] if known else 'null in every row'}",
        next_step="use a date, a timestamp, whole numbers, or ISO 8601 strings",
    )


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _cast(array: pa.Array, kind: pa.DataType, place: Place) -> pa.Array:
    try:
        return pc.cast(array, kind)
    except pa.ArrowException as error:
        raise DataError(
            f"the column {place.column!r} holds values that do not fit",
            where=f"{place.file}, from row {place.row + 1:,}",
            why=str(error).strip().partition("\n")[0],
            next_step="write the files with one type",
        ) from error


def _different(name: str, kinds: Sequence[Any]) -> DataError:
    return DataError(
        f"the column {name!r} has different types in different files",
        why=", ".join(sorted(set(map(str, kinds)))),
        next_step="write the files with one type",
    )
