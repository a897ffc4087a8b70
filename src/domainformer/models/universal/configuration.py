"""``UniversalConfig``: what has to be known of a module that is not ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig


class UniversalConfig(PretrainedConfig):
    """The configuration of a wrapped module; it describes the module and does not build it.

    Code is never kept in a model folder, nor run from one: whoever loads it gives the module, and
    ``module_name`` and ``module_source`` tell whether it is the one that was saved.

    Args:
        vocab_size: Ids that the model knows, V.
        hidden_size: Width of its token embedding; 0 where it has none.
        num_hidden_layers: Length of its list of blocks; 0 where it has none.
        max_position_embeddings: Longest row in tokens; None: it states no limit.
        module_name: Qualified name of the module's class.
        module_source: SHA-256 of the source of its classes; None where there is no source.
        module_arguments: What its constructor was given, where that was told.
        roles: What the arguments of its ``forward`` are for, where their names do not tell.
        logits: Which field of its output are the logits, where that was said.
        kwargs: What every configuration has, such as ``eos_token_id``.

    Example:
        >>> config = UniversalConfig(vocab_size=50, hidden_size=16, module_name="my.Model")
        >>> UniversalConfig.from_dict(config.to_dict()).module_name
        'my.Model'
    """

    model_type = "universal"

    def __init__(
        self,
        vocab_size: int = 0,
        hidden_size: int = 0,
        num_hidden_layers: int = 0,
        max_position_embeddings: int | None = None,
        module_name: str = "",
        module_source: str | None = None,
        module_arguments: Mapping[str, Any] | None = None,
        roles: Mapping[str, str] | None = None,
        logits: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.max_position_embeddings = max_position_embeddings
        self.module_name = module_name
        self.module_source = module_source
        self.module_arguments = None if module_arguments is None else dict(module_arguments)
        self.roles = dict(roles or {})
        self.logits = logits
        super().__init__(**kwargs)
