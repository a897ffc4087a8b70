"""How often each value of a column occurs, as far as that needs no look at every row in Python."""

from __future__ import annotations

import polars as pl

from domainformer.tokenizers.fields.columns import as_whole_numbers, canonical_text, dictionary
from domainformer.tokenizers.statistics.tally import COUNT, VALUE


def count_texts(column: pl.Series, *, field: str) -> pl.DataFrame:
    """The distinct canonical texts of a column (``value``) with their counts (``count``).

    Null and NaN are left out. Two values may have one text (3 and "3" in different columns).

    Raises:
        TokenizerError: The column holds lists, structs or other compound values.

    Example:
        >>> count_texts(pl.Series([3.0, None, 3.0, 2.5]), field="x").sort("value").rows()
        [('2.5', 1), ('3', 2)]
    """
    if column.dtype != pl.String:
        dictionary(column.head(0), field=field)  # an error, where the type cannot be read
    counted = column.drop_nulls().alias(VALUE).value_counts(name=COUNT)
    counted = counted.with_columns(pl.col(COUNT).cast(pl.Int64))
    if column.dtype == pl.String:
        return counted
    distinct = counted[VALUE]
    if distinct.dtype in (pl.Categorical, pl.Enum) or distinct.dtype.is_integer():
        return counted.with_columns(distinct.cast(pl.String))
    codes, values = dictionary(distinct, field=field)
    texts = pl.Series([canonical_text(value) for value in values], dtype=pl.String)
    counted = counted.with_columns(texts.gather(codes).alias(VALUE)).drop_nulls()
    return counted.group_by(VALUE).agg(pl.col(COUNT).sum())


def count_integers(column: pl.Series, *, field: str) -> pl.DataFrame:
    """The distinct whole numbers of a column (``value``) with their counts (``count``).

    Null, NaN, fractions, infinities and integers beyond 64 bits are left out.

    Raises:
        TokenizerError: The column holds no numbers.

    Example:
        >>> count_integers(pl.Series([2.0, None, 2.0, 0.5]), field="x").rows()
        [(2, 2)]
    """
    if column.dtype.is_integer():
        numbers = column.cast(pl.Int64, strict=False).drop_nulls()
    else:
        whole, missing, odd = as_whole_numbers(column, field=field)
        numbers = pl.Series(whole[~(missing | odd)])
    counted = numbers.alias(VALUE).value_counts(name=COUNT)
    return counted.with_columns(pl.col(COUNT).cast(pl.Int64))
