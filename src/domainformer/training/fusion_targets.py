"""Labels of examples as targets of a fusion model: one or several, of any kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ConfigError, DataError, nearest
from domainformer.inference.fusion import FusionTarget
from domainformer.models.configuration_fusion import TARGET_KINDS

Floats = npt.NDArray[np.float64]
Labels = str | Sequence[str] | Mapping[str, str]


def read_fusion_targets(frame: pl.DataFrame, labels: Labels) -> tuple[FusionTarget, ...]:
    """What the label columns of training rows ask for.

    Args:
        frame: Training rows.
        labels: A column, several, or columns with their kind. A kind that is not given follows
            from the column: two values or booleans are ``binary``, text ``multiclass``, floats
            ``regression``; more than two whole numbers are ambiguous.

    Raises:
        DataError: A column is missing, has one class, infinite values, or an ambiguous kind.
        ConfigError: There is no label, or no such kind.

    Example:
        >>> frame = pl.DataFrame({"late": [0, 1, 0], "next": ["a", "c", "b"], "sum": [1.0, 2, 3]})
        >>> [(t.kind, t.classes) for t in read_fusion_targets(frame, ["late", "next", "sum"])]
        [('binary', (0, 1)), ('multiclass', ('a', 'b', 'c')), ('regression', ())]
    """
    if isinstance(labels, str):
        labels = [labels]
    kinds = dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
    if not kinds:
        raise ConfigError("there is no label", next_step="name the label's column")
    for name, kind in kinds.items():
        if name not in frame.columns:
            raise DataError(
                f"there is no label column {name!r}",
                where="the training rows",
                next_step=nearest(name, frame.columns),
            )
        if kind and kind not in TARGET_KINDS:
            raise ConfigError(
                f"there is no target kind {kind!r}",
                where=f"label {name!r}",
                next_step=nearest(kind, TARGET_KINDS),
            )
    return tuple(_target(frame[name], kind) for name, kind in kinds.items())


def encode_labels(frame: pl.DataFrame, targets: Sequence[FusionTarget]) -> Floats:
    """Labels as float64 [rows, targets]: 0 or 1, the class's place, or the value.

    NaN where a label is null, or a class that training did not have.

    Raises:
        DataError: A label column is missing.
    """
    result = np.full((frame.height, len(targets)), np.nan)
    for place, target in enumerate(targets):
        if target.name not in frame.columns:
            raise DataError(
                f"there is no label column {target.name!r}",
                where="the validation rows",
                next_step=nearest(target.name, frame.columns),
            )
        column = frame[target.name]
        if target.kind == "regression":
            numbers = column.cast(pl.Float64)
        else:
            classes = pl.Series(list(target.classes))
            codes = pl.Series(np.arange(len(classes), dtype=np.float64))
            numbers = _plain(column).replace_strict(
                classes, codes, default=None, return_dtype=pl.Float64
            )
        result[:, place] = numbers.fill_null(math.nan).to_numpy()
    return result


def labelled(frame: pl.DataFrame, targets: Sequence[FusionTarget]) -> pl.DataFrame:
    """The rows that have at least one known label.

    Raises:
        DataError: There is none.
    """
    known = ~np.isnan(encode_labels(frame, targets)).all(axis=1)
    if not known.any():
        raise DataError(
            "no row has a label",
            where=", ".join(repr(target.name) for target in targets),
            next_step="check the label columns; validation rows need classes of training",
        )
    return frame.filter(pl.Series(known))


def _target(column: pl.Series, kind: str) -> FusionTarget:
    known = _plain(column).drop_nulls()
    if column.dtype.is_float():
        known = known.drop_nans()
    kind = kind or _guess(column, known)
    if kind == "regression":
        return _regression(column, known)
    classes = known.unique().sort().to_list()
    if len(classes) < 2:
        raise DataError(
            f"the label {column.name!r} has {len(classes)} class(es), and two are needed",
            where="the training rows",
            why=f"found {classes}",
            next_step="check the label, or the filter that chose these rows",
        )
    if kind == "binary" and len(classes) > 2:
        raise DataError(
            f"the label {column.name!r} has {len(classes)} classes and shall be binary",
            where="the training rows",
            why=f"found {classes[:5]} and more",
            next_step='give it the kind "multiclass"',
        )
    return FusionTarget(column.name, kind, tuple(classes))


def _guess(column: pl.Series, known: pl.Series) -> str:
    n = known.n_unique()
    if known.dtype == pl.String or known.dtype == pl.Boolean or n <= 2:
        return "multiclass" if n > 2 else "binary"
    if known.dtype.is_float():
        return "regression"
    raise DataError(
        f"the label {column.name!r} could be classes or amounts",
        where="the training rows",
        why=f"it has {n} different values of type {column.dtype}",
        next_step=f'say which: {{"{column.name}": "multiclass"}} or "regression"',
    )


def _regression(column: pl.Series, known: pl.Series) -> FusionTarget:
    if not known.dtype.is_numeric():
        raise DataError(
            f"the label {column.name!r} of type {column.dtype} is no number",
            where="the training rows",
            next_step="cast it, or give it another kind",
        )
    values = known.cast(pl.Float64).to_numpy()
    if not len(values) or not bool(np.isfinite(values).all()):
        raise DataError(
            f"the label {column.name!r} has no value, or infinite ones",
            where="the training rows",
            why=f"{int((~np.isfinite(values)).sum()):,} of {len(values):,} values are infinite",
            next_step="leave these rows out, or clip them",
        )
    if values.min() == values.max():
        raise DataError(
            f"the label {column.name!r} is always {values[0]}",
            where="the training rows",
            next_step="check the label, or the filter that chose these rows",
        )
    center, scale = float(values.mean()), float(values.std())
    return FusionTarget(column.name, "regression", (), center, scale)


def _plain(column: pl.Series) -> pl.Series:
    """Classes as values that JSON keeps: text, whole numbers, floats, booleans."""
    kind: Any = column.dtype
    plain = kind.is_numeric() or kind == pl.Boolean or kind == pl.String
    return column if plain else column.cast(pl.String)
