"""Vocabularies that grow or shrink: all weights with a row for each token, and how rows begin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from domainformer.errors import SurgeryError, nearest
from domainformer.models.surgery.rebuild import proven
from domainformer.models.surgery.wrappers import configurations, described, inner

Initialisation = Literal["mean", "mean+noise", "zero", "copy", "subwords"]
_CHUNK = 1 << 26  # numbers drawn at once


def resize_embeddings(
    model: nn.Module,
    size: int,
    *,
    init: Initialisation = "mean",
    sources: Sequence[int] | Sequence[Sequence[int]] | None = None,
    noise: float = 1e-5,
    seed: int = 0,
    paths: Sequence[str] | None = None,
) -> nn.Module:
    """Give a model's embedding and output matrix another number of rows, tied or not.

    ::

        mean        μ, the mean of the old rows: the old tokens keep their order, and lose at most
                    what the mean token takes
        mean+noise  μ + e,  e ~ N(0, noise · Σ),  Σ the covariance of the old rows
        zero        0
        copy        the row of the token that `sources` names for each new one
        subwords    the mean of the rows of the tokens that `sources` names for each new one

    Output matrices and biases are filled by the same rule from their own rows. A smaller size drops
    the last rows.

    Args:
        model: Any module, changed in place.
        size: Rows afterwards.
        init: How new rows begin.
        sources: For ``copy`` an old id for each new row, for ``subwords`` a list of them.
        noise: Factor of the covariance, for ``mean+noise``.
        seed: Of the noise, which touches no global generator.
        paths: Dotted paths of the modules with a row for each token, for a model that does not name
            them itself (a plain module with several embeddings).

    Returns:
        The same model.

    Raises:
        SurgeryError: The sources do not fit, the special tokens would be cut off, or it is not
            clear which modules are meant. The model is as it was.

    Source: Hewitt, "Initializing new word embeddings for pretrained language models", 2021.

    Example:
        >>> model = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 4)})
        >>> _ = resize_embeddings(model, 5, init="copy", sources=[3])
        >>> bool((model["embed"].weight[4] == model["embed"].weight[3]).all()), model["head"]
        (True, Linear(in_features=2, out_features=5, bias=True))
    """
    modules = _vocabulary(model, paths)
    rows = int(modules[0].weight.shape[0])
    _check_size(model, modules, size, rows)
    if not noise >= 0:
        raise SurgeryError(f"noise={noise} is no variance", next_step="give 0 or more")
    given = _check_sources(init, sources, size - rows, rows)
    generator = torch.Generator().manual_seed(seed)

    def new_rows(old: torch.Tensor, count: int) -> torch.Tensor:
        return _ROWS[init](old, count, given, noise, generator)

    with proven(model):
        for weight in _weights(model, modules, rows):
            _resize(weight, rows, size, new_rows)
        _count_anew(model, modules, rows, size)
    return model


def _mean(old: torch.Tensor, count: int, *_: Any) -> torch.Tensor:
    return old.mean(0, keepdim=True).expand(count, -1)


def _zero(old: torch.Tensor, count: int, *_: Any) -> torch.Tensor:
    return old.new_zeros(count, old.shape[1])


def _averaged(old: torch.Tensor, count: int, given: Sequence[Sequence[int]], *_: Any) -> Any:
    return torch.stack([old[list(ids)].mean(0) for ids in given])


def _noisy(
    old: torch.Tensor, count: int, given: Any, noise: float, generator: torch.Generator
) -> torch.Tensor:
    """μ + √(noise / V) · gᵀX, g ~ N(0, 1)ᵛ, X the centred rows: its covariance is noise · Σ."""
    mean = old.mean(0, keepdim=True)
    centred = (old - mean) * math.sqrt(noise / len(old))
    most = max(1, _CHUNK // len(old))
    draws = [
        torch.randn(min(most, count - done), len(old), generator=generator).to(old) @ centred
        for done in range(0, count, most)
    ]
    return mean + torch.cat(draws)


_ROWS: dict[str, Callable[..., torch.Tensor]] = {
    "mean": _mean,
    "mean+noise": _noisy,
    "zero": _zero,
    "copy": _averaged,
    "subwords": _averaged,
}


def _resize(
    weight: torch.Tensor, rows: int, size: int, new_rows: Callable[[torch.Tensor, int], Any]
) -> None:
    """Give a tensor with a row (or entry) for each token other data; it stays the same object."""
    old = weight.detach()
    flat = old.reshape(rows, -1) if old.shape[0] == rows else old.reshape(-1, rows).T
    kept = flat[:size]
    if size > rows:
        exact = flat if flat.dtype == torch.float64 else flat.float()
        kept = torch.cat([flat, new_rows(exact, size - rows).to(flat.dtype)])
    if old.shape[0] == rows:
        data = kept.reshape(size, *old.shape[1:])
    else:
        data = kept.T.reshape(*old.shape[:-1], size)
    weight.grad = None
    weight.data = data.clone(memory_format=torch.contiguous_format)


def _vocabulary(model: nn.Module, paths: Sequence[str] | None) -> list[Any]:
    """The modules with a row for each token, the embedding first."""
    own = inner(model)
    if paths is not None:
        known = dict(own.named_modules())
        for path in paths:
            if path not in known:
                raise SurgeryError(
                    f"{described(model)} has no module {path!r}", next_step=nearest(path, known)
                )
        found: list[Any] = [known[path] for path in paths]
    elif callable(getattr(own, "get_input_embeddings", None)):
        ends = [own.get_input_embeddings(), own.get_output_embeddings()]
        found = [end for end in ends if end is not None]
    else:
        found = _guessed(own)
    sizes = {one.weight.shape[0] if hasattr(one, "weight") else None for one in found}
    if len(sizes) != 1 or None in sizes:
        raise SurgeryError(
            f"the modules to resize in {described(model)} do not have the same number of rows",
            why=f"they have {sorted(map(str, sizes))}" if sizes else "no module was named",
            next_step="name the embedding and the output layer: paths=['embed', 'head']",
        )
    return found


def _guessed(model: nn.Module) -> list[nn.Module]:
    """The only embedding, or the only one with a linear layer of as many outputs."""
    parts = dict(model.named_modules())
    tables = {path: part for path, part in parts.items() if isinstance(part, nn.Embedding)}
    heads = {
        path: [one for one in parts.values() if _is_head(one, table.num_embeddings)]
        for path, table in tables.items()
    }
    chosen = [path for path in tables if heads[path]] or list(tables)
    if len(chosen) != 1:
        raise SurgeryError(
            f"it is not clear which embedding of {described(model)} holds the tokens",
            why=f"it has {', '.join(tables)}" if tables else "it has none",
            next_step="name it with its output layer: paths=['embed', 'head']" if tables else None,
        )
    return [tables[chosen[0]], *heads[chosen[0]]]


def _is_head(module: nn.Module, rows: int) -> bool:
    return isinstance(module, nn.Linear) and module.out_features == rows


def _weights(model: nn.Module, modules: Sequence[Any], rows: int) -> Iterator[torch.Tensor]:
    """Each tensor to resize once: matrices, their biases, and BART's bias of the logits."""
    seen: set[int] = set()
    biases = [
        buffer
        for name, buffer in model.named_buffers()
        if name.endswith("final_logits_bias") and buffer.shape[-1] == rows
    ]
    own = [one for module in modules for one in (module.weight, getattr(module, "bias", None))]
    for tensor in [*own, *biases]:
        if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def _count_anew(model: nn.Module, modules: Sequence[Any], rows: int, size: int) -> None:
    """Let everything that states the number of tokens state the new one."""
    shared = {id(module.weight) for module in modules}
    for part in model.modules():
        if id(part._parameters.get("weight")) in shared:
            for name in ("num_embeddings", "out_features"):
                if name in vars(part):
                    setattr(part, name, size)
        if vars(part).get("vocab_size") == rows:
            part.vocab_size = size
    for config in configurations(model):
        if getattr(config, "vocab_size", None) == rows:
            config.vocab_size = size


def _check_size(model: nn.Module, modules: Sequence[Any], size: int, rows: int) -> None:
    if not isinstance(size, int) or size < 1:
        raise SurgeryError(
            f"{size!r} is no number of tokens", where="size", next_step="give 1 or more"
        )
    generation = getattr(inner(model), "generation_config", None)
    special = {
        name: value
        for config in [*configurations(model), *([generation] if generation else [])]
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
        for value in _ids(getattr(config, name, None))  # several may end a text
        if size <= value < rows
    }
    for module in modules:
        index = getattr(module, "padding_idx", None)
        if index is not None and index >= size:
            special["padding_idx"] = index
    if special:
        name, value = next(iter(special.items()))
        raise SurgeryError(
            f"{size} rows would cut off a special token",
            why=f"{name} is {value}",
            next_step=f"keep at least {max(special.values()) + 1} rows",
        )


def _ids(value: Any) -> list[int]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]


def _check_sources(
    init: str, sources: Sequence[Any] | None, new: int, rows: int
) -> list[list[int]]:
    if init not in _ROWS:
        raise SurgeryError(
            f"there is no initialisation {init!r}",
            next_step=nearest(init, get_args(Initialisation)),
        )
    if init not in ("copy", "subwords"):
        if sources is not None:
            raise SurgeryError(
                f"init={init!r} reads no sources", next_step="choose copy or subwords"
            )
        return []
    lists = [[one] if isinstance(one, int) else list(one) for one in sources or ()]
    if len(lists) != max(new, 0) or not all(lists):
        raise SurgeryError(
            f"{max(new, 0)} new rows need as many sources",
            why=f"there are {len(lists)}" if all(lists) else "one of them is empty",
            where="sources",
        )
    outside = sorted({one for ids in lists for one in ids if not 0 <= one < rows})
    if outside:
        raise SurgeryError(
            f"the source {outside[0]} is no row of the embedding",
            where="sources",
            why=f"it has the rows 0 to {rows - 1}",
        )
    return lists
