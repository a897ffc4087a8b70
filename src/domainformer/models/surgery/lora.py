"""LoRA: low-rank additions to frozen matrices, by ``peft``: added, merged, saved, loaded.

::

    y = W x + (α / r) · B A x        W frozen; A [r, in] and B [out, r] trained, B zero at first

The additions are put into the model in place, so that engines, checkpoints and wrappers know
nothing of them. Files are those of peft: ``PeftModel.from_pretrained`` reads them.

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", arXiv 2106.09685.
"""

from __future__ import annotations

import fnmatch
import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from domainformer.artifacts import staged_directory
from domainformer.errors import ArtifactError, MissingExtraError, SurgeryError, nearest
from domainformer.models.surgery.freezing import unfreeze
from domainformer.models.surgery.wrappers import described, inner, named_weights

_WEIGHTS = "adapter_model.safetensors"
_NAME = "default"
_PREFIX = "base_model.model."  # what peft puts before the names of what it wraps


def add_lora(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] | None = None,
    dropout: float = 0.0,
) -> tuple[str, ...]:
    """Freeze a model and put low-rank additions into its linear layers; outputs stay as they are.

    Args:
        model: Any module, changed in place.
        rank: Rank r of each addition.
        alpha: Numerator of the factor α / r.
        targets: Which layers: paths, globs over them, or the last part of a path (``q_proj``);
            None: all but the output layer and tied ones.
        dropout: Of what goes into the additions.

    Returns:
        Paths of the layers that have one now.

    Raises:
        MissingExtraError: peft is not installed.
        SurgeryError: There is no such layer, its weight is tied to another part's, the model has
            additions already, or a number is out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> add_lora(model, rank=2, targets=["0"])
        ('0',)
        >>> [name for name, weight in model.named_parameters() if weight.requires_grad]
        ['0.lora_A.default.weight', '0.lora_B.default.weight']
    """
    peft, own = _peft(), inner(model)
    if lora_layers(own):
        raise SurgeryError(
            f"{described(model)} has low-rank additions already",
            next_step="merge_lora(model) first, or undo them",
        )
    if not isinstance(rank, int) or rank < 1 or not 0 <= dropout < 1:
        raise SurgeryError(
            f"rank={rank} and dropout={dropout} make no additions",
            next_step="give a rank of 1 or more, and a dropout of at least 0 and below 1",
        )
    places = _places(own, targets)
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=places,
        fan_in_fan_out=all(isinstance(own.get_submodule(place), Conv1D) for place in places),
    )
    _inject(settings, own)
    return tuple(places)


def merge_lora(model: nn.Module) -> nn.Module:
    """Add what was learned to the matrices themselves, and take the additions out.

    All weights learn again afterwards.

    Args:
        model: A module with additions; changed in place.

    Returns:
        The same model, plain again.

    Raises:
        MissingExtraError: peft is not installed.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> _ = add_lora(model)
        >>> merge_lora(model)[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    _peft()
    own = inner(model)
    for path, layer in lora_layers(own).items():
        layer.merge()
        parent, _, name = path.rpartition(".")
        setattr(own.get_submodule(parent), name, layer.get_base_layer())
    vars(own).pop("peft_config", None)
    unfreeze(model)
    return model


def save_lora(model: nn.Module, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write the additions alone, as peft does, whole or not at all.

    Args:
        model: A module with additions.
        folder: Where they shall appear.
        overwrite: Replace an existing folder.

    Raises:
        SurgeryError: The model has none.
        ArtifactError: The folder exists already, or cannot be written.
    """
    peft, own = _peft(), inner(model)
    settings: Any = getattr(own, "peft_config", {}).get(_NAME)
    if settings is None:
        raise SurgeryError(
            f"{described(model)} has no low-rank additions", next_step="add_lora(model) first"
        )
    state = peft.get_peft_model_state_dict(own, adapter_name=_NAME)
    with staged_directory(Path(folder), overwrite=overwrite, meta={"kind": "lora"}) as staging:
        settings.save_pretrained(staging)
        tensors = {f"{_PREFIX}{name}": value.contiguous() for name, value in state.items()}
        save_file(tensors, staging / _WEIGHTS, metadata={"format": "pt"})
    return Path(folder)


def load_lora(model: nn.Module, folder: str | Path) -> nn.Module:
    """Put saved additions into a model.

    Args:
        model: The module that they were made for, without additions; changed in place.
        folder: Of :func:`save_lora`, or of peft.

    Returns:
        The same model, frozen but for the additions.

    Raises:
        ArtifactError: The folder holds none, or they are damaged.
        SurgeryError: They were made for another model, which is named, or it has some already.
    """
    peft, own, place = _peft(), inner(model), Path(folder)
    if lora_layers(own):
        raise SurgeryError(
            f"{described(model)} has low-rank additions already",
            next_step="merge_lora(model) first",
        )
    try:
        settings = peft.LoraConfig.from_pretrained(str(place), local_files_only=True)
        state = load_file(place / _WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ArtifactError(
            f"{place} holds no low-rank additions", why=str(error).strip().splitlines()[0]
        ) from error
    try:
        _inject(settings, own)
        wanted = peft.get_peft_model_state_dict(own, adapter_name=_NAME)
        given = {name.removeprefix(_PREFIX): value for name, value in state.items()}
        wrong = sorted(
            name
            for name in wanted.keys() | given.keys()
            if name not in given or name not in wanted or given[name].shape != wanted[name].shape
        )
        if wrong:
            raise ValueError(f"they differ in {wrong[0]} and {len(wrong) - 1} more")
    except ValueError as error:
        raise SurgeryError(
            f"the additions of {place} were made for another model than {described(model)}",
            why=str(error).strip().splitlines()[0],
            next_step="load them into the model that they were trained on",
        ) from error
    peft.set_peft_model_state_dict(own, given, adapter_name=_NAME)
    return model


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """The layers with additions, by their paths; empty where peft is not even installed."""
    try:
        kind = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    except ImportError:
        return {}
    return {name: part for name, part in model.named_modules() if isinstance(part, kind)}


def _places(model: nn.Module, targets: Sequence[str] | None) -> list[str]:
    linear = {
        name: part for name, part in model.named_modules() if isinstance(part, (nn.Linear, Conv1D))
    }
    tied = {key for key, (_, names) in named_weights(model).items() if len(names) > 1}
    ends = getattr(model, "get_output_embeddings", lambda: None)()
    if targets is None:
        return [
            name
            for name, part in linear.items()
            if id(part.weight) not in tied and part is not ends
        ]
    found: dict[str, None] = {}
    for target in targets:
        hits = [n for n in linear if target == n.rpartition(".")[2] or fnmatch.fnmatch(n, target)]
        if not hits:
            known = {name.rpartition(".")[2] for name in linear} | linear.keys()
            raise SurgeryError(
                f"the model has no linear layer {target!r}",
                where="targets",
                next_step=nearest(target, known),
            )
        found |= dict.fromkeys(hits)
    for name in found:
        if id(linear[name].weight) in tied:
            raise SurgeryError(
                f"the weight of {name!r} is tied to another part of {described(model)}",
                why="merging the addition would change that part as well",
                next_step="leave it out of the targets",
            )
    return list(found)


def _inject(settings: Any, model: nn.Module) -> None:
    with warnings.catch_warnings():
        # Where both kinds of linear layers get additions, peft corrects the flag by itself, aloud.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", module="peft")
        _peft().inject_adapter_in_model(settings, model, adapter_name=_NAME)


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError:
        raise MissingExtraError("peft", extra="peft", purpose="LoRA") from None
