"""CSV files, whose columns have no types until somebody decides.

All cells are read as text and typed by looking at *all* of them, not at the first hundred: a
column becomes numbers, truth values or times only if every cell agrees. A column that nearly
agrees is an error that names the cell::

    amount: 12.50, 3, -4e2            ─▶ Float64
    amount: 12.50, 3, … 10,000 … n/a  ─▶ Float64, "n/a" is missing (noted)
    amount: 12.50, 3, … 10,000 … 7 EUR ─▶ DataError: cards.csv, row 10,003
    card:   0007, 0042                ─▶ text, for numbers have no leading zeros
    date:   2024-05-31                ─▶ Date;  31/05/2024 stays text, for 05/04 has two readings
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO

import polars as pl

from domainformer.data.frames import check_unique
from domainformer.data.keys import Locate, parse_iso
from domainformer.errors import DataError

NULL_WORDS = ("na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "?", ".")
"""What stands for a missing number in the files of the world (case does not matter)."""

_SAMPLE = 1_000
# Up to these shares of other cells are errors in a column of numbers; with more, it is text. Codes
# are often whole numbers with some letters among them, but hardly ever have a decimal point.
_STRAY, _STRAY_FRACTIONS = 0.02, 0.5
_ISO = r"^\s*\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?\s*$"


def scan(path: Path) -> pl.LazyFrame:
    """Scan a CSV file (UTF-8, comma, semicolon, tab or bar between the cells), all cells as text.

    Raises:
        DataError: The file is empty, is not UTF-8, or names a column twice.
    """
    with _open_text(path) as handle:
        try:
            header = handle.readline()
        except (UnicodeDecodeError, EOFError, OSError) as error:
            raise _not_text(path, error) from error
    if not header.strip():
        raise DataError(
            "the file is empty", where=str(path), next_step="it should begin with column names"
        )
    separator = max(",;\t|", key=header.count)
    check_unique(next(csv.reader(io.StringIO(header), delimiter=separator)), where=str(path))
    return pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)


def explain(path: Path, error: BaseException) -> DataError:
    """Why a CSV file could not be read: the first row of another width, or not UTF-8."""
    try:
        with _open_text(path) as handle:
            separator = max(",;\t|", key=handle.readline().count)
            handle.seek(0)
            rows = csv.reader(handle, delimiter=separator)
            width = len(next(rows))
            for cells in rows:
                if len(cells) > width:
                    return DataError(
                        f"a row has {len(cells)} cells and the header {width}",
                        where=f"{path}, line {rows.line_num:,}",
                        next_step=f"put cells that contain {separator!r} into double quotes",
                    )
    except (UnicodeDecodeError, EOFError, OSError, csv.Error) as cause:
        return _not_text(path, cause)
    return DataError("the file cannot be read as CSV", where=str(path), why=str(error))


def infer_types(
    frame: pl.DataFrame, *, keep: set[str], locate: Locate
) -> tuple[pl.DataFrame, list[str]]:
    """Give text columns the type that all their cells have.

    Args:
        frame: Columns of text; others are left alone.
        keep: Columns that stay text.
        locate: Names a row in errors.

    Returns:
        The typed frame and remarks about words that were read as missing.

    Raises:
        DataError: Nearly all cells of a column agree (98 % of whole numbers, half of numbers with
            fractions, the first thousand times), and some cell does not.

    Example:
        >>> frame = pl.DataFrame({"n": ["1", "2"], "card": ["007", "1"], "ok": ["true", "False"]})
        >>> infer_types(frame, keep=set(), locate="row {}".format)[0].dtypes
        [Int64, String, Boolean]
    """
    notes: list[str] = []
    typed = []
    for column in frame.iter_columns():
        if column.dtype == pl.String and column.name not in keep:
            column = _infer(column, notes, locate)
        typed.append(column)
    return pl.DataFrame(typed), notes


def _infer(column: pl.Series, notes: list[str], locate: Locate) -> pl.Series:
    sample = column.drop_nulls().head(_SAMPLE)
    if not len(sample):
        return column
    if sample.str.contains(_ISO).all():
        return parse_iso(column, locate)
    if sample.str.to_lowercase().is_in(["true", "false"]).all():
        lowered = column.str.to_lowercase()
        if lowered.drop_nulls().is_in(["true", "false"]).all():
            return lowered == "true"
    if sample.str.strip_chars().cast(pl.Float64, strict=False).null_count() > len(sample) // 2:
        return column
    return _infer_number(column, notes, locate)


def _infer_number(column: pl.Series, notes: list[str], locate: Locate) -> pl.Series:
    text = column.str.strip_chars()
    if text.str.contains(r"^[+-]?0\d").any():
        return column
    numbers = text.cast(pl.Float64, strict=False).fill_nan(None)
    odd = text.is_not_null() & numbers.is_null()
    n_odd, n_cells = odd.sum(), len(text) - text.null_count()
    if n_odd:
        words = text.filter(odd).str.to_lowercase()
        if words.is_in(NULL_WORDS).all():
            shown = ", ".join(repr(word) for word in text.filter(odd).unique().sort().head(3))
            notes.append(f"{column.name}: {n_odd:,} cells ({shown}) were read as missing")
            text = text.set(odd, None)
        elif n_odd > _stray_cells(numbers, n_cells):
            return column
        else:
            row = odd.arg_max() or 0
            raise DataError(
                f"the column {column.name!r} holds numbers and text",
                where=locate(row),
                why=f"it holds {column[row]!r}; {n_odd:,} of {n_cells:,} cells are no numbers",
                next_step=f"correct them, or keep the column as text: text=[{column.name!r}]",
            )
    whole = text.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == text.null_count() else numbers


def _stray_cells(numbers: pl.Series, n_cells: int) -> float:
    """How many cells that are no numbers are still mistakes in a column of numbers."""
    fractional = (numbers.fill_null(0.0) % 1 != 0).any()
    return max(1 if n_cells > 3 else 0, (_STRAY_FRACTIONS if fractional else _STRAY) * n_cells)


def _open_text(path: Path) -> IO[str]:
    opener: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _not_text(path: Path, error: BaseException) -> DataError:
    return DataError(
        "the file is not text in UTF-8",
        where=str(path),
        why=str(error),
        next_step="convert it, for example: iconv -f latin1 -t utf-8 OLD > NEW",
    )
