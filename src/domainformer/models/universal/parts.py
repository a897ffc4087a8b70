"""What a wrapped module is made of, and loading weights into it.

Nothing here knows a family: the embedding is the table with a row for each id, the context is what
a module says of itself, and weights fit by their names or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from domainformer.errors import RegistryError
from domainformer.models.universal.forward import unwrapped

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "block_size", "context", "max_seq_len")

_OF_AUTO_CLASSES = frozenset({"adapter_kwargs", "trust_remote_code"})


def context_of(module: nn.Module) -> int | None:
    """Most tokens of a row, as its config or the module itself says under one of the usual names.

    Example:
        >>> model = nn.Embedding(9, 4)
        >>> model.block_size = 32
        >>> context_of(model)
        32
    """
    own = unwrapped(module)
    values = (
        getattr(one, name, None)
        for one in (getattr(own, "config", None), own)
        for name in _CONTEXT_NAMES
    )
    return next(
        (one for one in values if isinstance(one, int) and one > 0 and one is not True), None
    )


def embedding_of(module: nn.Module, vocab_size: int) -> nn.Embedding | None:
    """The first embedding with a row for each id, none of those for positions or types."""
    tables = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    exact = [part for part in tables if part.num_embeddings == vocab_size]
    # Vocabularies are padded for speed, but not by half.
    near = [part for part in tables if vocab_size <= part.num_embeddings <= vocab_size * 1.5 + 64]
    return next(iter([*exact, *near]), None)


def replace_module(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` everywhere where ``old`` is."""
    for part in list(root.modules()):
        for name, child in list(part.named_children()):
            if child is old:
                setattr(part, name, new)


def fill(model: Any, files: list[Path]) -> None:
    """Load the weights; what is missing or left over is an error, not a random number."""
    state = {name: value for path in files for name, value in load_file(path).items()}
    try:
        found = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _of_another(files[0], " ".join(str(error).split())[:300]) from error
    tied = model._tied_weights_keys
    saved = {tied.get(name, name) for name in state}
    missing = [name for name in found.missing_keys if tied.get(name, name) not in saved]
    for what, names in (("missing", missing), ("left over", list(found.unexpected_keys))):
        if names:
            more = ", …" if len(names) > 3 else ""
            raise _of_another(files[0], f"{what}: {', '.join(names[:3])}{more}")


def _of_another(path: Path, why: str) -> RegistryError:
    return RegistryError(
        "the weights are not those of the module",
        where=str(path.parent),
        why=why,
        next_step="make the module with the arguments that it had when it was saved",
    )


def refuse_options(options: Mapping[str, Any], folder: Path) -> None:
    """Refuse what transformers knows for the models alone that it builds itself.

    Raises:
        RegistryError: An option has a value.
    """
    # Auto classes pass on what they keep for themselves, and defaults that nobody asked for.
    asked = sorted(
        name for name, value in options.items() if value and name not in _OF_AUTO_CLASSES
    )
    if asked:
        raise RegistryError(
            f"a module of the user's own cannot be loaded with {', '.join(asked)}",
            where=str(folder),
            why="transformers splits and quantises the models that it builds itself",
            next_step="load it without, then move or quantise the module",
        )
