"""Merges in a run: learned from its training events, kept beside its tokenizer, and its rows.

::

    store/ ─▶ merges.json ─▶ merged events in memory ─▶ rows
                        └──▶ permuted anew per epoch ─▶ rows       (permutations: true)

The store keeps the ids of single fields: evaluation needs them, and so does every permutation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.splits import TRAIN, VALIDATION
from domainformer.data.store import TokenStore
from domainformer.errors import ConfigError, FingerprintError
from domainformer.inference.belonging import MERGES_FILE
from domainformer.schema import DomainSchema, FieldType
from domainformer.tokenizers import (
    ActionPieceMerges,
    DomainTokenizer,
    PermutedSequenceDataset,
    learn_merges,
)
from domainformer.training.config import TrainingConfig
from domainformer.training.merged_config import MergesConfig


def check_schema(schema: DomainSchema) -> None:
    """Refuse, before anything is fitted, a schema whose events cannot be merged.

    Raises:
        ConfigError: It has text fields, or sources with shares of the context.
    """
    texts = [spec.name for spec in schema.fields if spec.field_type == FieldType.TEXT]
    if texts:
        raise ConfigError(
            f"the field {texts[0]!r} is text, whose pieces have an order and cannot be merged",
            where="tokenizer.merges",
            next_step="take text fields out of the schema or make them categorical, or leave "
            "tokenizer.merges out",
        )
    if any(source.share is not None for source in schema.sources.values()):
        raise ConfigError(
            "a source's share of the context is counted in its own tokens, and merges blur those",
            where="tokenizer.merges",
            next_step="leave out the shares of the sources, or tokenizer.merges",
        )


def merges_of_run(
    folder: Path,
    config: MergesConfig,
    tokenizer: DomainTokenizer,
    store: TokenStore,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> ActionPieceMerges:
    """The merges of a run: those in its folder, else learned from its training events.

    Args:
        folder: The run's folder.
        config: Settings.
        tokenizer: The run's.
        store: Its events, with roles.
        say: Receives lines for the user.

    Raises:
        FingerprintError: The folder holds merges of another tokenizer.
        TokenizerError: The events cannot be merged, or the size cannot be.
    """
    path = folder / MERGES_FILE
    if path.is_file():
        merges = ActionPieceMerges.load(path)
        if merges.base_fingerprint != tokenizer.fingerprint:
            raise FingerprintError(
                f"{path} belongs to another tokenizer",
                why=f"it names {merges.base_fingerprint}, the run's is {tokenizer.fingerprint}",
                next_step="delete the folder and start the run again",
            )
        return merges
    result = learn_merges(
        store,
        config.vocab_size,
        slot_of_id=tokenizer.layout.slot_of_id,
        across_events=config.across_events,
    )
    say(f"{result.merges.note}; {result.shortening[0].share:.0%} fewer training tokens")
    result.merges.save(path)
    return result.merges


def merged_rows(
    store: TokenStore, merges: ActionPieceMerges, config: MergesConfig, training: TrainingConfig
) -> tuple[DomainSequenceDataset | PermutedSequenceDataset, DomainSequenceDataset | None]:
    """Rows to train on, and rows that score the validation events (None where there are none).

    Args:
        store: Ids of single fields.
        merges: Learned for them.
        config: Settings.
        training: Context, packing and seed.
    """
    events = store.events()
    options: dict[str, Any] = {
        "context": training.context,
        "packed": training.packed,
        "seed": training.seed,
    }
    train_rows: DomainSequenceDataset | PermutedSequenceDataset
    if config.permutations:
        train_rows = PermutedSequenceDataset(events, merges, train_roles=(TRAIN,), **options)
        judged = merges.encode_permuted(events, seed=training.seed)
    else:
        judged = merges.encode(events)
        train_rows = DomainSequenceDataset(judged, train_roles=(TRAIN,), **options)
    if not np.any(np.asarray(events.roles) == VALIDATION):
        return train_rows, None
    eval_rows = DomainSequenceDataset(judged, score_roles=(VALIDATION,), shuffle=False, **options)
    return train_rows, eval_rows
