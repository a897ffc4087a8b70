"""Bundles: a model and the tokenizer that it was trained with, in one folder.

::

    model/
      config.json, model.safetensors, …    what transformers reads (AutoModel)
      tokenizer.json, …                    what transformers reads (AutoTokenizer), fitted fields
      schema.yaml                          what the columns mean
      merges.json                          tokens of several fields, where the model reads such
      domainformer.json                    who belongs to whom: fingerprints, version, record
      manifest.json                        size and SHA-256 of every file, written last

A model is only a table of numbers per token id, so a model run with another tokenizer answers
nonsense without any error. The tokenizer's fingerprint therefore stands in ``config.json`` (it
travels with the weights) and in ``domainformer.json``, and :func:`load_bundle` compares both with
the tokenizer that it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from domainformer import models
from domainformer.artifacts import read_facts, staged_directory, verify_directory, write_json
from domainformer.data.table import EventTable
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ArtifactError, FingerprintError
from domainformer.inference.belonging import (
    BUNDLE_FILE,
    MERGES_FILE,
    check_fingerprints,
    check_merges,
    check_sizes,
    ids_of,
    mismatch,
    read_merges,
)
from domainformer.models.families.loading import without_progress_bar
from domainformer.schema import DomainSchema
from domainformer.tokenizers import ActionPieceMerges, DomainTokenizer, hub
from domainformer.tokenizers.hub import SCHEMA_FILE
from domainformer.version import __version__

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """A model with its tokenizer, its schema and the record of how it came about.

    Args:
        model: In evaluation mode; a causal language model or a classifier.
        tokenizer: The fitted tokenizer whose ids the model understands.
        schema: The schema that the tokenizer was fitted for.
        record: Plain data of the run that made it (identity, split, metrics…).
        folder: Where it was read from, if anywhere.
        merges: What joins the tokenizer's ids to those that the model understands, if anything.
    """

    model: PreTrainedModel
    tokenizer: DomainTokenizer
    schema: DomainSchema
    record: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    merges: ActionPieceMerges | None = None

    @property
    def fingerprint(self) -> str:
        """Short name of all that decides the ids that the model understands."""
        return ids_of(self.tokenizer, self.merges).fingerprint

    @property
    def permuted(self) -> bool:
        """Whether the model was trained on events whose tokens stood in random order."""
        return self.merges is not None and bool(self.record.get("permutations"))

    def encode(self, source: EventTable | TokenizedEvents) -> TokenizedEvents:
        """Events as the ids that the model understands.

        Args:
            source: A table, the ids of single fields (of `tokenizer`), or what this has given.

        Raises:
            FingerprintError: The events were made by another tokenizer.
            DataError: The table does not fit the schema.
        """
        events = self.tokenizer.encode(source) if isinstance(source, EventTable) else source
        if events.tokenizer_fingerprint == self.fingerprint:
            return events
        if self.merges is not None and events.tokenizer_fingerprint == self.tokenizer.fingerprint:
            # Whoever asks of a history may see all of it: no split cuts it.
            return self.merges.encode(replace(events, roles=None))
        raise FingerprintError(
            "the events were made by another tokenizer than the model's",
            why=f"events: {events.tokenizer_fingerprint}, model: {self.fingerprint}",
            next_step="encode the table with the bundle's tokenizer",
        )

    @property
    def context(self) -> int:
        """The longest window that the model may see, in tokens (BOS included)."""
        return int(self.record.get("context") or self.model.config.max_position_embeddings)

    @property
    def language_model(self) -> PreTrainedModel:
        """The model, provided that it predicts tokens.

        Raises:
            ArtifactError: It is a classifier.
        """
        if self.model.get_output_embeddings() is None:
            raise ArtifactError(
                "this model does not predict tokens",
                where=str(self.folder) if self.folder else None,
                why=f"it is a {type(self.model).__name__}",
                next_step="use the pretrained model that it was made from",
            )
        return self.model

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device


def save_bundle(
    folder: str | Path,
    model: PreTrainedModel,
    tokenizer: DomainTokenizer,
    record: Mapping[str, Any] | None = None,
    *,
    merges: ActionPieceMerges | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model and its tokenizer into one folder, whole or not at all.

    Args:
        folder: Where the bundle shall appear.
        model: A domainformer model of ``transformers`` kind.
        tokenizer: The tokenizer that the model was trained with.
        record: Plain data worth keeping beside the weights. ``"context"`` (tokens) is used as
            the default window length later.
        merges: What joins the tokenizer's ids to the model's, where the model reads merged ones.
        overwrite: Replace an existing folder.

    Returns:
        The folder.

    Raises:
        FingerprintError: The model has another vocabulary size, or its configuration names
            another tokenizer; or the merges belong to another.
        ArtifactError: The folder exists already, or cannot be written.
    """
    folder = Path(folder)
    ids = ids_of(tokenizer, merges)
    check_merges(tokenizer, merges, where=str(folder))
    check_sizes(model.config, ids, where=str(folder))
    named = getattr(model.config, "tokenizer_fingerprint", None)
    if named not in (None, ids.fingerprint):
        raise mismatch("the model", named, ids.fingerprint, where=str(folder))
    model.config.tokenizer_fingerprint = ids.fingerprint
    facts = {
        "format": FORMAT_VERSION,
        "domainformer": __version__,
        "architecture": type(model).__name__,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "merges_fingerprint": None if merges is None else merges.fingerprint,
        "schema_fingerprint": tokenizer.schema.fingerprint(),
        "record": dict(record or {}),
    }
    with staged_directory(folder, overwrite=overwrite, meta={"kind": "bundle"}) as staging:
        with without_progress_bar():
            model.save_pretrained(staging)
        hub.write_files(tokenizer, staging)
        if merges is not None:
            merges.save(staging / MERGES_FILE)
        write_json(staging / BUNDLE_FILE, facts)
    return folder


def load_bundle(
    folder: str | Path,
    *,
    device: str | torch.device | None = "cpu",
    dtype: torch.dtype | None = None,
    verify: bool = True,
    **options: Any,
) -> Bundle:
    """Read a bundle, and refuse one whose parts were not made for each other.

    Args:
        folder: A folder written by :func:`save_bundle`.
        device: Where the weights shall go; None: where `options` put them.
        dtype: Cast the weights; as they were saved by default.
        verify: Compare every file with its checksum (reads each byte once more).
        **options: For ``from_pretrained``: ``device_map``, ``quantization_config``.

    Raises:
        ArtifactError: The folder is no bundle, is incomplete or damaged.
        FingerprintError: Tokenizer, weights and schema do not belong together.
    """
    folder = Path(folder)
    facts = _read_facts(folder)
    verify_directory(folder, checksums=verify)
    tokenizer = DomainTokenizer.from_pretrained(folder)
    schema = DomainSchema.from_yaml(folder / SCHEMA_FILE)
    config = models.DomainTransformerConfig.from_pretrained(folder)
    merges = read_merges(folder, facts)
    check_fingerprints(folder, facts, config, tokenizer, merges, schema)
    model_class = _model_class(folder, facts)
    with without_progress_bar():
        model = model_class.from_pretrained(folder, config=config, dtype=dtype or "auto", **options)
    if device is not None:
        model.to(device)
    model.eval()
    return Bundle(model, tokenizer, schema, dict(facts["record"]), folder, merges)


def is_bundle(folder: str | Path) -> bool:
    """Whether a folder looks like one written by :func:`save_bundle` (nothing is verified)."""
    return (Path(folder) / BUNDLE_FILE).is_file()


def _read_facts(folder: Path) -> dict[str, Any]:
    return read_facts(
        folder,
        BUNDLE_FILE,
        kind="bundle",
        version=FORMAT_VERSION,
        remedy="give the model/ folder of a run, or write one with save_bundle",
    )


def _model_class(folder: Path, facts: dict[str, Any]) -> type[Any]:
    """The class that was saved, by the name of its architecture."""
    found = getattr(models, str(facts["architecture"]), None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    raise ArtifactError(
        f"{folder} holds a model of an unknown kind",
        where=BUNDLE_FILE,
        why=f"domainformer {__version__} has no {facts['architecture']}; "
        f"it was written by domainformer {facts.get('domainformer')}",
    )
