"""The plan of a sweep: every setting with every seed, as complete configurations.

::

    base:    recipes/shakespeare_char.yaml
    kind:    train
    seeds:   [0, 1, 2]
    vary:
      training.learning_rate: [0.001, 0.003]      # dotted keys, each with its values
      rules: [[], [{name: lion}]]                 # the first of all is what others are set beside
    output:  {root: runs, name: rules}

All mistakes show here, before anything is trained.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from domainformer.config import StrictConfig, build, read_yaml
from domainformer.errors import ConfigError
from domainformer.evaluation.ablations.plan import with_values
from domainformer.evaluation.comparisons.labels import setting
from domainformer.evaluation.comparisons.runs import called
from domainformer.run import SEED_KEYS, flatten, is_inert, result_hash
from domainformer.training.config import OutputConfig

CELLS = "cells"
DEFAULT_NAME = "sweep"
_SEED = "training.seed"
# Where the configuration and the training of each kind are; imported when they are asked for.
_KINDS = {
    "pretrain": ("domainformer.training", "RunConfig", "pretrain"),
    "train": ("domainformer.training.language", "TextRunConfig", "train"),
}
Train = Callable[[Any], Any]


class SweepConfig(StrictConfig):
    """A grid of runs: every combination of values, with every seed.

    Args:
        base: Configuration file of the run that is varied.
        kind: What the file configures: ``pretrain`` (events) or ``train`` (text).
        seeds: Of the trainings; every setting is trained once with each.
        vary: Dotted keys of the configuration and their values, the usual one first.
        set: Dotted keys that are other than in the file, in every run.
        output: Where the sweep is written.
        metric: The figure that is compared; None takes the validation loss.

    Example:
        >>> config = build(SweepConfig, {
        ...     "base": "run.yaml", "vary": {"training.learning_rate": [0.1, 0.2]}})
        >>> config.kind, config.folder.name
        ('pretrain', 'sweep')
    """

    base: str
    kind: Literal["train", "pretrain"] = "pretrain"
    seeds: tuple[int, ...] = (0, 1, 2)
    vary: dict[str, list[Any]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    output: OutputConfig = OutputConfig(name=DEFAULT_NAME)
    metric: str | None = None

    @field_validator("vary", "set", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        """Nested sections are dotted keys: a setting is changed, never a section replaced."""
        return flatten(value) if isinstance(value, Mapping) else value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("seeds are one or more different numbers, none below 0")
        return value

    @field_validator("vary")
    @classmethod
    def _values_for_each_key(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        empty = [key for key, values in value.items() if not values]
        if empty:
            raise ValueError(f"{empty[0]} has no values")
        return value

    @property
    def folder(self) -> Path:
        """Where the sweep is written."""
        return Path(self.output.root) / (self.output.name or DEFAULT_NAME)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Args:
        name: Its setting in words.
        setting: Values of the keys that are varied.
        seed: Of its training.
        folder: Its run folder, named by a hash of all its settings but the seed: another base or
            other values are other folders, and never mixed with these.
        config: Its complete configuration.
    """

    name: str
    setting: dict[str, Any]
    seed: int
    folder: Path
    config: StrictConfig


def make_cells(config: SweepConfig) -> list[Cell]:
    """All runs of a sweep, seed by seed, so that a comparison of all settings is there early.

    Raises:
        ConfigError: A key or a value does not fit, is told twice, or cannot change a result.
    """
    _check_keys(config)
    cls, _ = kind_of(config.kind)
    base = read_yaml(config.base)
    settings = [
        dict(zip(config.vary, values, strict=True))
        for values in itertools.product(*config.vary.values())
    ]
    cells = [_cell(config, cls, base, chosen, seed) for seed in config.seeds for chosen in settings]
    taken: dict[Path, Cell] = {}
    for cell in cells:
        other = taken.setdefault(cell.folder, cell)
        if other is not cell:
            raise ConfigError(
                "two settings of the sweep are the same run",
                where=f"vary: {other.name} and {cell.name}",
                next_step="name each value once",
            )
    return cells


def kind_of(kind: str) -> tuple[type[StrictConfig], Train]:
    """The configuration class and the training of a kind."""
    module, cls, train = _KINDS[kind]
    home = importlib.import_module(module)
    return getattr(home, cls), getattr(home, train)


def compared(config: SweepConfig) -> list[str]:
    """What the runs of a sweep are compared by, as :func:`compare` names it."""
    return list(dict.fromkeys(called(key) for key in config.vary))


def _cell(
    config: SweepConfig,
    cls: type[StrictConfig],
    base: Mapping[str, Any],
    chosen: dict[str, Any],
    seed: int,
) -> Cell:
    name = setting(list(chosen), chosen) or "base"
    values = with_values(base, {**config.set, **chosen, _SEED: seed})
    made = build(cls, values, where=f"{config.base}, {name}")
    folder = config.folder / CELLS / result_hash(made, SEED_KEYS) / f"seed-{seed}"
    quiet: dict[str, Any] = {"training.resume": True, "training.quiet": True}
    if "registry" in cls.model_fields:
        quiet["registry.publish"] = None  # all runs would have one name
    place = {"output.root": str(folder.parent), "output.name": folder.name}
    made = build(cls, with_values(values, {**quiet, **place}), where=f"{config.base}, {name}")
    return Cell(name, chosen, seed, folder, made)


def _check_keys(config: SweepConfig) -> None:
    for key in (*config.vary, *config.set):
        if key in SEED_KEYS:
            raise ConfigError(
                "seeds are not a setting", where=key, next_step="name them under seeds"
            )
        if is_inert(key):
            raise ConfigError(f"{key} cannot change a result", next_step="leave it out")
    both = sorted(config.vary.keys() & config.set.keys())
    if both:
        raise ConfigError(f"{both[0]} is varied and set", next_step="leave it out of one of them")
