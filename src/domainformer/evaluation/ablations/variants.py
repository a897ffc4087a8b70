"""Which variants an axis has: one of ours with its usual values or yours, or one of your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainformer.errors import ConfigError, nearest
from domainformer.evaluation.ablations.axes import AXES, Base, Found, Variant


def variants_of(base: Base, name: str, values: list[Any] | dict[str, list[Any]] | None) -> Found:
    """The variants of one axis.

    Args:
        base: What is varied.
        name: An axis of `AXES`; any name for an axis of the user's own.
        values: None for the usual variants, the user's values, or dotted keys of the run.

    Raises:
        ConfigError: There is no such axis, it takes no values, or keys have unequal numbers.
    """
    if isinstance(values, dict):
        yield from _own(name, values)
        return
    if name not in AXES:
        raise ConfigError(
            f"there is no axis {name!r}",
            next_step=nearest(name, AXES),
            why="an axis of your own is a mapping of dotted keys to values, such as "
            "axes: {dropout: {model.overrides.dropout: [0, 0.1]}}",
        )
    axis = AXES[name]
    if values is not None and axis.takes is None:
        raise ConfigError(
            f"the axis {name!r} takes no values",
            where=f"axes.{name}",
            why=f"it changes {axis.changes}",
            next_step="name it alone, or give dotted keys",
        )
    yield from axis.make(base, values)


def _own(name: str, keys: Mapping[str, list[Any]]) -> Found:
    """An axis of the user's own: its keys change together, value by value."""
    lengths = {len(values) for values in keys.values()}
    if len(lengths) != 1 or not lengths.pop():
        raise ConfigError(
            f"the axis {name!r} needs one or more values, and as many for each key",
            where=f"axes.{name}",
            why=", ".join(f"{key} has {len(values)}" for key, values in keys.items()) or "no key",
        )
    for row in zip(*keys.values(), strict=True):
        overrides = dict(zip(keys, row, strict=True))
        short = {key.rpartition(".")[2]: value for key, value in overrides.items()}
        told = short if len(short) > 1 else {"": next(iter(short.values()))}
        label = ", ".join(f"{key}={value}" if key else str(value) for key, value in told.items())
        yield Variant(name, label, overrides)
