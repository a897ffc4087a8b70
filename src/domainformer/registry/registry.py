"""``Registry``: models by name, each with where it came from and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainformer.registry.entry import Entry

if TYPE_CHECKING:
    import torch

    from domainformer.models.families import BaseAdapter


class Registry:
    """A folder of models, described by ``registry.json``.

    Args:
        root: The folder.
        timeout: Seconds to wait for another process that is changing it.
    """

    def __init__(self, root: str | Path = "models", *, timeout: float = 30.0) -> None:
        self.root = Path(root)
        self.timeout = timeout

    def publish(
        self,
        folder: str | Path,
        name: str | None = None,
        *,
        fine_tuned_from: str | None = None,
        license: str | None = None,  # noqa: A002 - the field's name
        metrics: Mapping[str, Any] | None = None,
        rules: Sequence[str] = (),
    ) -> Entry:
        """Copy a model folder into the registry and enter it."""
        raise NotImplementedError

    def resolve(self, name: str) -> Entry:
        """The entry of a name."""
        raise NotImplementedError

    def folder(self, name: str) -> Path:
        """Where a registered model lies."""
        raise NotImplementedError

    def load(
        self, name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> BaseAdapter:
        """Verify a model's files, then load it with the adapter of its family."""
        raise NotImplementedError
