"""A trained language model, ready to be used: from a run, a folder or the registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.models.families import BaseAdapter, adapter_for
from domainformer.registry import Registry
from domainformer.training.language.run import inherited_rules, model_of
from domainformer.training.plan import device
from domainformer.training.rules import attach


@dataclass(frozen=True)
class LanguageModel:
    """A model with what it needs to be used.

    Args:
        adapter: The model and its tokenizer.
        folder: Where it was read from.
        context: Tokens that it was trained to see.
    """

    adapter: BaseAdapter
    folder: Path
    context: int | None

    @property
    def model(self) -> Any:
        """The model."""
        return self.adapter.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.adapter.tokenizer


@contextlib.contextmanager
def open_language_model(
    source: str | Path, *, registry: str | Path = "models", where: str = "auto"
) -> Iterator[LanguageModel]:
    """Open a run folder, a model folder, or a registered model by its name.

    Learning rules that changed what the model computes are part of it: they are attached for as
    long as it is open.

    Args:
        source: A path, or a name of the registry.
        registry: Folder of the registry.
        where: ``cpu``, ``cuda``, ``mps`` or ``auto``.

    Raises:
        RegistryError: It is neither a folder with a model nor a registered name, or its files
            were changed.
        RuleError: The model needs a rule whose code is not part of the library.
    """
    folder = model_of(source)
    if folder.is_dir():
        adapter = adapter_for(folder)
    else:
        adapter, folder = (
            Registry(registry).load(str(source)),
            Registry(registry).folder(str(source)),
        )
    record = adapter.record or {}
    adapter.model.to(device(where)).eval()
    needed = inherited_rules(adapter, source)
    with attach(needed, adapter.model):
        yield LanguageModel(adapter, folder, record.get("context"))
