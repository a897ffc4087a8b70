"""Where a rule acts: patterns over the paths of a model's modules.

``*`` stands for one part of a path, ``**`` for any number of them, and a few words mean the same
place in every family of models::

    blocks           the list of blocks          model.layers · transformer.h
    attention        inside a block              self_attn · attn · attention
    mlp              inside a block              mlp · feed_forward
    embedding, head  the input and output layers
    blocks.*.mlp     the MLP of every block      model.layers.0.mlp, model.layers.1.mlp, …
    **.q_proj        every query projection
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from domainformer.errors import RuleError, nearest
from domainformer.training.rules.base import Site

_WORDS = {
    "attention": ("self_attn", "attn", "attention"),
    "mlp": ("mlp", "feed_forward"),
}


def blocks_path(model: nn.Module) -> str | None:
    """The path of a model's list of blocks: the one with the most weights; None where none is.

    Where a model names its backbone (``base_model``), lists beside it do not count.

    Example:
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=9, num_hidden_layers=1)
        >>> blocks_path(DomainTransformerForCausalLM(config))
        'model.layers'
    """
    backbone = getattr(model, "base_model", model)
    inside = {id(module) for module in backbone.modules()}
    sizes = {
        path: sum(weight.numel() for weight in module.parameters())
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and id(module) in inside
    }
    return max(sizes, key=sizes.__getitem__) if sizes else None


def site_names(model: nn.Module) -> dict[str, str]:
    """Every module's path, by the name that is the same in every family of models.

    Example:
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=9, num_hidden_layers=1)
        >>> names = site_names(DomainTransformerForCausalLM(config))
        >>> names["blocks.0.attention.q_proj"], names["embedding"]
        ('model.layers.0.self_attn.q_proj', 'model.embed_tokens')
    """
    blocks = blocks_path(model)
    ends = {}
    for word, getter in (("embedding", "get_input_embeddings"), ("head", "get_output_embeddings")):
        module = getattr(model, getter, lambda: None)()
        if module is not None:
            ends[id(module)] = word
    names: dict[str, str] = {}
    for path, module in model.named_modules():
        if not path:
            continue
        names[path] = path
        if id(module) in ends:
            names[ends[id(module)]] = path
        elif blocks is not None and (path == blocks or path.startswith(f"{blocks}.")):
            parts = ["blocks", *path.removeprefix(blocks).split(".")[1:]]
            if len(parts) > 2:
                parts[2] = next((w for w, own in _WORDS.items() if parts[2] in own), parts[2])
            names[".".join(parts)] = path
    return names


def find_sites(model: nn.Module, patterns: Sequence[str], *, rule: str) -> list[Site]:
    """The modules that patterns name, in the model's own order, each once.

    Containers (``blocks`` itself) are no sites: nothing calls them, so a rule would never act.

    Args:
        model: The model.
        patterns: As above.
        rule: Whose patterns they are, for errors.

    Raises:
        RuleError: A pattern matches nothing; the nearest name is told.
    """
    modules = dict(model.named_modules())
    names = {
        name: path
        for name, path in site_names(model).items()
        if not isinstance(modules[path], nn.ModuleList | nn.ModuleDict)
    }
    chosen: set[str] = set()
    for pattern in patterns:
        parts = pattern.split(".")
        found = [path for name, path in names.items() if matches(name.split("."), parts)]
        if not found:
            # Numbers of blocks would fill the suggestion: one block stands for all.
            offered = {_starred(name) for name in names}
            raise RuleError(
                f"the site {pattern!r} of the rule {rule!r} matches nothing in the model",
                next_step=nearest(pattern, offered),
            )
        chosen.update(found)
    ordered = [(path, module) for path, module in modules.items() if path in chosen]
    return [Site(path, module, index) for index, (path, module) in enumerate(ordered)]


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path fits a pattern, both split at their dots.

    Example:
        >>> matches(["blocks", "0", "mlp"], ["**", "mlp"])
        True
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and matches(parts[1:], pattern[1:])
    )


def _starred(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
