"""The configuration of a run: what to read, how to split, what to train, for how long.

Every section is strict (an unknown key is an error that names the nearest one) and every value has
a default that works, except the table itself::

    data:      {path: cards.parquet, entity: client_id, time: timestamp}
    split:     {kind: time}
    model:     {preset: tiny}
    training:  {context: 256, max_tokens: 2000000}
    output:    {root: runs, name: cards}
"""

from __future__ import annotations

import warnings
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from domainformer.config import StrictConfig
from domainformer.training.merged_config import MergesConfig
from domainformer.training.objective_config import (
    ContrastiveConfig,
    HorizonConfig,
    MaskedFieldConfig,
    ObjectiveWeights,
)
from domainformer.training.optimisation_config import (
    OPTIMISATION_MAY_DIFFER,
    OptimisationConfig,
)
from domainformer.training.rules.config import RulesConfig


def _plain_date(value: Any) -> Any:
    # YAML reads an unquoted 2014-07-01 as a date; the split takes ISO text.
    return value.isoformat() if isinstance(value, date) else value


Cut = Annotated[str | int | None, BeforeValidator(_plain_date)]


class DataConfig(StrictConfig):
    """The table of events.

    Args:
        path: Parquet file, glob or hive folder, CSV, Arrow file, or MEDS folder. None: the table
            is given as an argument.
        entity: Column that names whose event it is (client, patient, …).
        time: Column of the event's time; None keeps the order of the file.
        columns: Columns to read; None reads all.
        label: Column that is a target and must not become a field.
    """

    path: str | None = None
    entity: str = "entity"
    time: str | None = None
    columns: tuple[str, ...] | None = None
    label: str | None = None


class SplitConfig(StrictConfig):
    """How events are divided into training, validation and test.

    Args:
        kind: ``time`` tests on later events of the same entities, ``entity`` on other entities.
        fractions: Shares of training, validation and test events (or entities); they sum to 1.
        validation_from: First time of the validation period (ISO text; a number for integer times).
        test_from: First time of the test period.
        seed: Of the assignment of entities.
    """

    kind: Literal["time", "entity"] = "time"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    validation_from: Cut = None
    test_from: Cut = None
    seed: int = 0

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or value[0] <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("the three fractions must sum to 1, and training needs some")
        return value

    @model_validator(mode="after")
    def _cuts_are_times(self) -> SplitConfig:
        if self.kind == "entity" and (self.validation_from, self.test_from) != (None, None):
            raise ValueError("validation_from and test_from belong to kind: time")
        return self


class TokenizerConfig(StrictConfig):
    """The fitted tokenizer.

    Args:
        bpe_vocab_size: Byte-pair tokens for text fields (256 bytes and merges).
        merges: Tokens of several fields; None: each field has its own.
    """

    bpe_vocab_size: int = Field(4096, ge=256)
    merges: MergesConfig | None = None


class ModelConfig(StrictConfig):
    """The Transformer.

    Args:
        preset: ``tiny``, ``24m``, ``24m-wide-heads`` or ``330m``.
        overrides: Values of :class:`~domainformer.models.DomainTransformerConfig` to change.
    """

    preset: str = "tiny"
    overrides: dict[str, Any] = Field(default_factory=dict)


class TrainingConfig(OptimisationConfig):
    """The optimisation of a model of events, and what it learns from.

    Length, batches, rates and checkpoints are those of
    :class:`~domainformer.training.optimisation_config.OptimisationConfig`.

    Args:
        packed: Put several short histories into one row, without attention between them.
        substitute_values: Probability that a habitual categorical value is replaced throughout a
            training history, so that the model trusts the history (see
            :mod:`domainformer.data.augment`).
        objectives: What is learned, with weights; what is not named is not trained.
        contrastive: Settings of the contrastive objective.
        masked_field: Settings of the masked-field objective.
        horizon: Settings of the horizon objective.
    """

    packed: bool = True
    substitute_values: float = Field(0.0, ge=0, le=1)
    objectives: ObjectiveWeights = ObjectiveWeights(next_token=1.0)
    contrastive: ContrastiveConfig = ContrastiveConfig()
    masked_field: MaskedFieldConfig = MaskedFieldConfig()
    horizon: HorizonConfig = HorizonConfig()


class OutputConfig(StrictConfig):
    """Where the run is written.

    Args:
        root: The folder of all runs.
        name: The run's folder; None: a name made of the time.
    """

    root: str = "runs"
    name: str | None = None


with warnings.catch_warnings():
    # pydantic warns that a field called ``schema`` hides its long deprecated method of that name;
    # the key is what users write, and nobody calls the method.
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class RunConfig(RulesConfig):
        """Everything that decides a pretraining run.

        Args:
            data: The table.
            schema: A schema file (YAML) or the name of a preset (``finance``, ``ecommerce``,
                ``health``); None infers it from the table.
            split: Training, validation and test.
            tokenizer: The fitted tokenizer.
            model: The Transformer.
            training: The optimisation.
            output: Where to write.
            rules: Learning rules, in order; with ``rule_code`` and ``allow_rule_code`` as in
                :class:`~domainformer.training.rules.config.RulesConfig`.

        Example:
            >>> from domainformer.config import build
            >>> config = build(RunConfig, {"training": {"max_steps": 100}})
            >>> config.training.max_steps, config.training.epochs, config.split.kind
            (100, None, 'time')
            >>> build(RunConfig, {"training": {"max_stpes": 100}})
            Traceback (most recent call last):
            ...
            domainformer.errors.ConfigError: the configuration has 1 error
              why:   training.max_stpes: unknown key (did you mean 'max_steps'?)
        """

        data: DataConfig = DataConfig()
        schema: str | None = None  # type: ignore[assignment]
        split: SplitConfig = SplitConfig()
        tokenizer: TokenizerConfig = TokenizerConfig()
        model: ModelConfig = ModelConfig()
        training: TrainingConfig = TrainingConfig()
        output: OutputConfig = OutputConfig()

        @model_validator(mode="after")
        def _resume_needs_a_name(self) -> RunConfig:
            if self.training.resume and self.output.name is None:
                raise ValueError("training.resume needs output.name, the run to continue")
            return self

        @model_validator(mode="after")
        def _merges_go_together(self) -> RunConfig:
            if self.tokenizer.merges is not None:
                self.tokenizer.merges.refuse(
                    objectives=self.training.objectives.used,
                    substitute_values=self.training.substitute_values,
                )
            return self


# These do not decide the weights, so a resumed run may change them.
MAY_DIFFER_ON_RESUME = OPTIMISATION_MAY_DIFFER | {"data.path", "output.root"}
