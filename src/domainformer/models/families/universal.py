"""The family of modules that are nobody's family: whoever loads one gives the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from domainformer.models.families.base import BaseAdapter
from domainformer.models.universal.configuration import UniversalConfig
from domainformer.models.universal.identity import Given, given_module
from domainformer.models.universal.pretrained import UniversalForCausalLM


class UniversalAdapter(BaseAdapter):
    """A wrapped module of the user's own, as the registry and the engine take models.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> module = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        >>> model = UniversalForCausalLM.wrap(module, roles={"input": "tokens"})
        >>> folder = UniversalAdapter(model).save_checkpoint(Path(tempfile.mkdtemp()) / "mine")
        >>> again = UniversalAdapter.load_checkpoint(folder, module=module)
        >>> again.architecture, again.get_config()["module_name"]
        ('UniversalForCausalLM', 'torch.nn.modules.container.Sequential')
    """

    model_types = (UniversalConfig.model_type,)
    architectures = (UniversalForCausalLM.__name__,)

    @classmethod
    def load_checkpoint(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device | None = "cpu",
        dtype: torch.dtype | None = None,
        module: Given | None = None,
        **options: Any,
    ) -> Self:
        """Read a model into a module that the caller gives.

        Args:
            folder: As ``save_checkpoint``, ``save_pretrained`` or a training checkpoint left it.
            device: Where the weights shall go.
            dtype: Cast the weights; as they were saved by default.
            module: A module, of which a copy is filled, its class, or a function that makes it;
                None: what :func:`~domainformer.models.universal.given_module` says.
            **options: None is known: a module of the user's own is not split over devices.

        Raises:
            RegistryError: No module is given, or the weights are not its own.
            FingerprintError: Its source changed since it was saved.
        """
        if module is None:
            return super().load_checkpoint(folder, device=device, dtype=dtype, **options)
        with given_module(module):
            return super().load_checkpoint(folder, device=device, dtype=dtype, **options)

    @classmethod
    def read_model(cls, folder: Path, dtype: torch.dtype | None, **options: Any) -> Any:
        """The module that was given, with the weights of the folder.

        Raises:
            RegistryError: None is given: a folder holds no code, and none would be run. Or it is
                asked for in a way that transformers knows for its own models alone.
        """
        return UniversalForCausalLM.from_pretrained(folder, dtype=dtype, **options)
