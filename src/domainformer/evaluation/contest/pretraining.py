"""A backbone that has read the training histories, and no label."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache

import polars as pl

from domainformer.config import StrictConfig
from domainformer.errors import DataError
from domainformer.evaluation.contest.schemas import GivenSchema, schema_of, training_events
from domainformer.evaluation.tasks import EXAMPLE, Task
from domainformer.inference import Bundle, load_bundle
from domainformer.training import RunConfig, pretrain
from domainformer.training.config import ModelConfig, TokenizerConfig, TrainingConfig


class Pretraining(StrictConfig):
    """How the backbone is trained on histories before any label is shown.

    Args:
        tokenizer: Byte-pair tokens of text fields.
        model: The Transformer.
        training: Objectives with weights (``next_token``, ``contrastive``, …), length, batch,
            learning rate; its seed is that of the contest.
        validation_share: Entities held out to choose the best weights by.
    """

    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig(epochs=3, context=256, quiet=True)
    validation_share: float = 0.1


def pretrained(
    task: Task, examples: pl.DataFrame, schema: GivenSchema, settings: Pretraining, seed: int
) -> Bundle:
    """A backbone of the histories of training examples, each entity's events once.

    The newest result is kept, because several contestants of one fold ask for the same.

    Args:
        task: The task.
        examples: Training examples.
        schema: As in :func:`~domainformer.evaluation.contest.schemas.schema_of`.
        settings: How it is trained.
        seed: Of everything random.

    Raises:
        DataError: No example has any event, or there are too few entities to hold some out.
    """
    numbers = tuple(examples[EXAMPLE].to_list())
    return _pretrained(task, numbers, json.dumps(schema), settings.model_dump_json(), seed)


@lru_cache(maxsize=1)
def _pretrained(
    task: Task, numbers: tuple[int, ...], schema_json: str, settings_json: str, seed: int
) -> Bundle:
    settings = Pretraining.model_validate_json(settings_json)
    examples = task.examples.filter(pl.col(EXAMPLE).is_in(list(numbers)))
    events = training_events(task, examples)
    if events.n_entities < 3:
        raise DataError(
            f"{events.n_entities} histories are too few to pretrain on", where=f"task {task.name!r}"
        )
    training = settings.training.model_copy(update={"seed": seed, "quiet": True})
    share = settings.validation_share
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig.model_validate(
            {
                "data": {"entity": EXAMPLE, "time": events.time},
                "split": {"kind": "entity", "fractions": (1 - share, share, 0.0), "seed": seed},
                "tokenizer": settings.tokenizer,
                "model": settings.model,
                "training": training,
                "output": {"root": folder, "name": "backbone"},
            }
        )
        result = pretrain(
            config, table=events, schema=schema_of(task, examples, json.loads(schema_json))
        )
        return load_bundle(result.model_dir)
