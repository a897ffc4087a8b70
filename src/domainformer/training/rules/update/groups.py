"""Which parameter is what, and groups of parameters with settings of their own.

::

    hidden     matrices [out, in] between features      decay      Muon's
    embedding  tables of ids and positions              no decay
    head       the output matrix, where it is its own   decay
    vector     norms, biases, scales                    no decay
    tensor     anything else with two or more axes      decay

The same parameters decay as in :func:`domainformer.training.optimizer.parameter_groups`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import nn

from domainformer.config import StrictConfig
from domainformer.errors import RuleError, nearest
from domainformer.training.rules.sites import matches, site_names

Kind = Literal["hidden", "embedding", "head", "vector", "tensor"]
_DECAYS = ("hidden", "head", "tensor")


class GroupSettings(StrictConfig):
    """Settings of some parameters in place of the run's.

    Args:
        parameters: Patterns of the paths of parameters or of modules that hold them, such as
            ``embedding``, ``blocks.*.mlp`` or ``**.bias``. The first group that fits counts.
        learning_rate: Peak learning rate; None keeps the one that they would have.
        weight_decay: Decay per unit of learning rate; None keeps the one that they would have.
    """

    parameters: tuple[str, ...] = Field(min_length=1)
    learning_rate: float | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)


def parameter_kinds(model: nn.Module) -> dict[str, Kind]:
    """What each trainable parameter is, by name.

    A matrix that is tied to the embedding counts as an embedding.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
        >>> parameter_kinds(model)
        {'0.weight': 'embedding', '1.weight': 'hidden', '1.bias': 'vector'}
    """
    modules = dict(model.named_modules())
    head = getattr(model, "get_output_embeddings", lambda: None)()
    kinds: dict[str, Kind] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        module = modules[name.rpartition(".")[0]]
        if isinstance(module, nn.Embedding):
            kinds[name] = "embedding"
        elif parameter.ndim < 2:
            kinds[name] = "vector"
        elif module is head:
            kinds[name] = "head"
        elif parameter.ndim == 2 and (isinstance(module, nn.Linear) or is_transposed(module)):
            kinds[name] = "hidden"
        else:
            kinds[name] = "tensor"
    return kinds


def is_transposed(module: nn.Module) -> bool:
    """Whether a linear layer keeps its matrix as [in, out], as those of GPT-2 do."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def make_groups(
    model: nn.Module,
    settings: Sequence[GroupSettings],
    *,
    learning_rate: float,
    weight_decay: float,
    by_kind: Mapping[Kind, Mapping[str, Any]] | None = None,
    rule: str,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: parameters with equal settings share one.

    Args:
        model: The model.
        settings: Groups of the rule; the first that fits a parameter counts.
        learning_rate: Of the run.
        weight_decay: Of the run, for what decays.
        by_kind: Options of an optimizer's group, such as ``lr``, for all parameters of a kind;
            settings go before them.
        rule: Whose groups they are, for errors.

    Raises:
        RuleError: A pattern fits no parameter.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
        >>> low = GroupSettings(parameters=("0",), learning_rate=0.01)
        >>> groups = make_groups(model, [low], learning_rate=0.1, weight_decay=0.2, rule="sgd")
        >>> [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups]
        [(1, 0.01, 0.0), (1, 0.1, 0.2), (1, 0.1, 0.0)]
    """
    parameters = dict(model.named_parameters())
    kinds = parameter_kinds(model)
    paths = _paths(model, list(kinds))
    _check_patterns(paths, settings, rule)
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, kind in kinds.items():
        options: dict[str, Any] = {
            "lr": learning_rate,
            "weight_decay": weight_decay if kind in _DECAYS else 0.0,
            **(by_kind or {}).get(kind, {}),
        }
        for group in settings:
            if any(_fits(paths[name], pattern) for pattern in group.parameters):
                if group.learning_rate is not None:
                    options["lr"] = group.learning_rate
                if group.weight_decay is not None:
                    options["weight_decay"] = group.weight_decay
                break
        key = tuple(sorted(options.items()))
        groups.setdefault(key, {"params": [], **options})["params"].append(parameters[name])
    return list(groups.values())


def _paths(model: nn.Module, names: Sequence[str]) -> dict[str, list[list[str]]]:
    """All ways to write the path of each parameter, split at the dots."""
    written: dict[str, list[str]] = {}
    for name, path in site_names(model).items():
        written.setdefault(path, [path]).append(name)
    found = {}
    for name in names:
        path, _, own = name.rpartition(".")
        prefixes = dict.fromkeys(written.get(path, [path]))
        found[name] = [[*prefix.split("."), own] if prefix else [own] for prefix in prefixes]
    return found


def _fits(paths: Sequence[Sequence[str]], pattern: str) -> bool:
    parts = pattern.split(".")
    return any(matches(path[:n], parts) for path in paths for n in range(1, len(path) + 1))


def _check_patterns(
    paths: Mapping[str, list[list[str]]], settings: Sequence[GroupSettings], rule: str
) -> None:
    for pattern in (pattern for group in settings for pattern in group.parameters):
        if not any(_fits(written, pattern) for written in paths.values()):
            offered = {
                ".".join("*" if part.isdigit() else part for part in path[:n])
                for written in paths.values()
                for path in written
                for n in range(1, len(path) + 1)
            }
            raise RuleError(
                f"the group {pattern!r} of the rule {rule!r} fits no trainable parameter",
                next_step=nearest(pattern, offered),
            )
