"""The configuration of an ablation: that of a run, which axes to vary, and how to judge.

::

    data:      {path: finance.parquet, entity: client_id, time: timestamp, label: label}
    training:  {context: 256, max_tokens: 500000}
    output:    {root: runs, name: ablation}
    axes:
      context:                                     # an axis of ours with its usual variants
      bins:      [8, 64]                           # or with your own
      dropout:   {model.overrides.dropout: [0.1]}  # an axis of yours: dotted keys of the run
    ablation:  {seeds: [0, 1, 2]}
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from domainformer.config import StrictConfig, apply_overrides, build, load_config
from domainformer.run import RUN_FILE, read_run
from domainformer.training.config import RunConfig
from domainformer.training.preparation import SCHEMA_FILE

DEFAULT_NAME = "ablation"


def _as_mapping(value: Any) -> Any:
    """A list of names stands for these axes with their usual variants."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value)
    return value


Variants = list[Any] | dict[str, list[Any]] | None
Axes = Annotated[dict[str, Variants] | None, BeforeValidator(_as_mapping)]


class AblationSettings(StrictConfig):
    """How variants are repeated and judged.

    Args:
        seeds: Of initialisation and order; each variant is trained once with each.
        role: The events that the loss is told on. Choices belong on ``validation``; ``test`` is
            for the one look at the end.
        max_events: At most so many events, drawn once for all variants; None takes all.
        samples: Completions per event behind the distribution of a field given the history alone.
        label: Column with one value per entity for the downstream score; ``data.label`` where it
            is not given, and no downstream score where neither is.
        label_table: Table with the label, one row per entity; None: the label is in the events.
        folds: Folds of the downstream probe.
        keep_stores: Keep the tokens and checkpoints of each run, not only its model.
    """

    seeds: tuple[int, ...] = (0,)
    role: Literal["validation", "test"] = "validation"
    max_events: int | None = Field(1000, ge=1)
    samples: int = Field(8, ge=2)
    label: str | None = None
    label_table: str | None = None
    folds: int = Field(5, ge=2)
    keep_stores: bool = False

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("seeds are one or more different numbers, none below 0")
        return value


with warnings.catch_warnings():
    # As in RunConfig: ``schema`` is what users write.
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class AblationConfig(RunConfig):
        """A run as the base, the axes on which it is varied, and how variants are judged.

        Args:
            axes: Axes by name. A name of ours alone takes its usual variants, with a list those
                values; a mapping of dotted keys to values is an axis of your own (several keys
                of one axis change together). None: all of ours.
            ablation: How variants are repeated and judged.

        Example:
            >>> config = build(AblationConfig, {"axes": ["context"], "ablation": {"seeds": [0, 1]}})
            >>> config.axes, config.base.training.context
            ({'context': None}, 512)
        """

        axes: Axes = None
        ablation: AblationSettings = AblationSettings()

        @property
        def base(self) -> RunConfig:
            """The run that is varied."""
            values = self.model_dump(exclude={"axes", "ablation"})
            label = self.ablation.label
            if label is not None and self.ablation.label_table is None:
                # A column of the events that is predicted must not be one of the fields.
                values["data"]["label"] = values["data"]["label"] or label
            return build(RunConfig, values)

        @property
        def folder(self) -> Path:
            """Where the ablation is written."""
            return Path(self.output.root) / (self.output.name or DEFAULT_NAME)


def load_ablation(source: str | Path, overrides: list[str] | None = None) -> AblationConfig:
    """The configuration of an ablation from a YAML file, or from the folder of a run.

    Args:
        source: A file as at the top of this page (that of a run will do), or a run's folder, which
            gives its configuration and its very schema; the ablation is then written beside it.
        overrides: Dotted ``key.key=value``.

    Raises:
        ConfigError: The file is wrong, or an override is.
        ArtifactError: The folder is no run.
    """
    source = Path(source)
    if not source.is_dir():
        return load_config(AblationConfig, source, overrides or [])
    record = read_run(source)
    values: dict[str, Any] = dict(record.config)
    if (source / SCHEMA_FILE).is_file():
        values["schema"] = str(source / SCHEMA_FILE)
    output = {"root": str(source.parent), "name": f"{source.name}-{DEFAULT_NAME}"}
    values["output"] = output
    values["training"] = _without_progress(values.get("training", {}))
    return build(
        AblationConfig, apply_overrides(values, overrides or []), where=str(source / RUN_FILE)
    )


def _without_progress(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in training.items() if key not in ("quiet", "resume")}
