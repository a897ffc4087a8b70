"""What is exported: a module from named tensors to named tensors, and what travels with it.

::

    fusion folder ────▶ histories, numbers, codes ─▶ logits        tokenizer, schema, fusion.json
    bundle ───────────▶ input_ids, attention_mask ─▶ logits        tokenizer, schema
    any HF model ─────▶ input_ids, attention_mask ─▶ logits        its own tokenizer
    a module of yours ▶ the inputs that you name  ─▶ its tensors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from domainformer.errors import AdapterError, ExportError
from domainformer.export.inputs import InputSpec, draw_all, free_dims, spec_of
from domainformer.models import JointFusionModel, pool_hidden
from domainformer.models.universal.binding import BoundModel
from domainformer.models.universal.probing import told

What = Literal["logits", "embedding"]


@dataclass(frozen=True)
class Subject:
    """A module that can be exported.

    Args:
        module: In evaluation mode: positional tensors to one tensor or a tuple of them.
        inputs: What it reads, in the order of its arguments.
        outputs: Names of what it gives.
        architecture: The class that it was made from.
        longest: Most tokens of a row; None: any number.
        preprocessing: Folder whose files turn raw data into these inputs, if there is one.
    """

    module: nn.Module
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    architecture: str
    longest: int | None = None
    preprocessing: Path | None = None

    @property
    def model(self) -> nn.Module:
        """The user's model, without the wrapper that names its tensors."""
        inner = getattr(self.module, "model", self.module)
        return inner if isinstance(inner, nn.Module) else self.module


class Reading(nn.Module):
    """Calls a model with tensors by their names and keeps the tensors that are asked for.

    Args:
        model: Called with keyword arguments.
        names: Of the arguments, in the order in which this module takes them.
        what: ``logits``, or the pooled hidden state.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], what: What = "logits") -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.what = what

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Named outputs of positional inputs."""
        given = dict(zip(self.names, tensors, strict=True))
        output = self.model(**given, **self._without_cache())
        if self.what == "logits":
            return output.logits
        hidden = output.last_hidden_state
        return pool_hidden(hidden, {"attention_mask": given["attention_mask"]}, how="last")

    def _without_cache(self) -> dict[str, Any]:
        """A file that is run once has nothing to remember."""
        reads = isinstance(self.model, PreTrainedModel) and hasattr(self.model.config, "use_cache")
        return {"use_cache": False} if reads else {}


class Plain(nn.Module):
    """Calls a module of the user's own by name and flattens what it gives into tensors."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs in the order in which the module gives them."""
        output = self.model(**dict(zip(self.names, tensors, strict=True)))
        return tuple(tensor for _, tensor in named_tensors(output))


def named_tensors(output: Any, name: str = "output") -> list[tuple[str, torch.Tensor]]:
    """The tensors in an output, with names: of a mapping its keys, of a tuple its places.

    Example:
        >>> [name for name, _ in named_tensors({"logits": torch.ones(1), "loss": None})]
        ['logits']
        >>> [name for name, _ in named_tensors((torch.ones(1), [torch.ones(2)]))]
        ['output_0', 'output_1_0']
    """
    if isinstance(output, torch.Tensor):
        return [(name, output)]
    if isinstance(output, Mapping):
        found = [named_tensors(value, str(key)) for key, value in output.items()]
    elif isinstance(output, (tuple, list)):
        fields = getattr(output, "_fields", [f"{name}_{place}" for place in range(len(output))])
        found = [named_tensors(v, key) for key, v in zip(fields, output, strict=True)]
    elif hasattr(output, "__dataclass_fields__"):
        found = [named_tensors(getattr(output, key), key) for key in output.__dataclass_fields__]
    else:
        return []
    return [pair for pairs in found for pair in pairs]


def of_model(model: nn.Module, *, what: What = "logits", inputs: Any = None) -> Subject:
    """The subject of a model in memory.

    Args:
        model: One of transformers or of this library, or a module with `inputs`.
        what: ``logits``, or ``embedding``: the hidden state at each row's last real token.
        inputs: For a module of the user's own: examples by the names of ``forward``'s arguments,
            or specifications. A whole-number example [B, L] is taken as ids of any length.

    Raises:
        ExportError: What the model reads is not known, or it does not give what was asked.
    """
    if isinstance(model, BoundModel):
        model = model.module
    if inputs is not None:
        return _named(model, inputs)
    if isinstance(model, JointFusionModel):
        return _fusion(model)
    if isinstance(model, PreTrainedModel):
        return _pretrained(model, what)
    raise ExportError(
        f"what {type(model).__name__} reads is not known",
        why="it is no model of transformers or of this library",
        next_step="give inputs={'name of the argument': an example tensor, …}, or, of a language "
        "model, wrap it: UniversalForCausalLM.wrap(module)",
    )


def _named(model: nn.Module, inputs: Any) -> Subject:
    specs = _specs(inputs)
    model.eval()
    sizes = dict.fromkeys(free_dims(specs), 2)
    try:
        with torch.no_grad():
            output = model(**draw_all(specs, sizes, torch.Generator().manual_seed(0)))
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be called with the inputs that were named",
            where=", ".join(f"{spec.name} {spec.dtype} {list(spec.dims)}" for spec in specs),
            why=told(error),
            next_step="a dimension that must keep its size is told by a specification: "
            'InputSpec("codes", "int64", ("batch", 4), high=9) in place of the example',
        ) from error
    outputs = named_tensors(output)
    if not outputs:
        raise ExportError(
            f"{type(model).__name__} gives no tensor", why=f"it gave a {type(output).__name__}"
        )
    module = Plain(model, [spec.name for spec in specs]).eval()
    names = tuple(name for name, _ in outputs)
    return Subject(module, specs, names, type(model).__name__)


def _specs(inputs: Any) -> tuple[InputSpec, ...]:
    """Examples as specifications; ids of another length than the first have one of their own."""
    if isinstance(inputs, Mapping):
        specs = [
            one if isinstance(one, InputSpec) else spec_of(name, torch.as_tensor(one))
            for name, one in inputs.items()
        ]
        lengths = {
            name: len(one[0])
            for (name, one), spec in zip(inputs.items(), specs, strict=True)
            if not isinstance(one, InputSpec) and "length" in spec.dims
        }
        first = next(iter(lengths.values()), None)
        return tuple(
            replace(spec, dims=("batch", f"{name}_length"))
            if lengths.get(name, first) != first
            else spec
            for name, spec in zip(inputs, specs, strict=True)
        )
    if isinstance(inputs, Sequence) and all(isinstance(one, InputSpec) for one in inputs):
        return tuple(inputs)
    raise ExportError(
        f"the inputs are a {type(inputs).__name__}",
        next_step="give {'name of the argument': an example tensor, …}, or a list of InputSpec",
    )


def _fusion(model: JointFusionModel) -> Subject:
    config = model.config
    specs: list[InputSpec] = []
    longest = None
    if model.backbone is not None:
        specs += _tokens(int(model.backbone.config.vocab_size))
        longest = int(model.backbone.config.max_position_embeddings)
    if config.n_numbers:
        dims = ("batch", int(config.n_numbers))
        specs.append(InputSpec("numbers", "float64", dims, "numbers", missing=True))
    if config.category_sizes:
        sizes = tuple(int(size) for size in config.category_sizes)
        specs.append(InputSpec("codes", "int64", ("batch", len(sizes)), "codes", sizes=sizes))
    module = Reading(model.eval(), [spec.name for spec in specs]).eval()
    return Subject(module, tuple(specs), ("logits",), type(model).__name__, longest)


def _pretrained(model: PreTrainedModel, what: What) -> Subject:
    name = type(model).__name__
    config = model.config.get_text_config()
    specs = _tokens(_vocabulary(model))
    inner: nn.Module = model
    if what == "embedding":
        inner = model.base_model
        if config.is_encoder_decoder:
            raise ExportError(f"{name} has two sequences, so its last token is not one vector")
    elif config.is_encoder_decoder:
        high = specs[0].high
        dims = ("batch", "decoder_length")
        specs.append(InputSpec("decoder_input_ids", "int64", dims, "ids", high=high, low=1))
    module = Reading(inner.eval(), [spec.name for spec in specs], what).eval()
    subject = Subject(module, tuple(specs), (what,), name, _longest(model))
    _check_runs(subject, what)
    return subject


def _vocabulary(model: PreTrainedModel) -> int:
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except (NotImplementedError, AdapterError):
        weight = None
    if weight is None or weight.ndim != 2:
        raise ExportError(
            f"what {type(model).__name__} reads is not known",
            why="it has no embedding of token ids",
            next_step="give inputs={'name of the argument': an example tensor, …}",
        )
    return int(weight.shape[0])


def _longest(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", getattr(config, "n_positions", None))
    if not isinstance(longest, int) or longest <= 0:
        return None
    for name, part in model.named_modules():
        # RoBERTa counts from behind the padding id, and so has fewer places than rows.
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return longest - int(part.padding_idx) - 1
    return longest


def _check_runs(subject: Subject, what: What) -> None:
    """Call it once, so that a model without the tensor that was asked for is told as that."""
    inputs = draw_all(subject.inputs, example_sizes(subject), torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            subject.module(*inputs.values())
    except (AttributeError, TypeError) as error:
        other = "embedding" if what == "logits" else "logits"
        raise ExportError(
            f"{subject.architecture} gives no {what}",
            why=told(error),
            next_step=f"export what={other!r}, or name its inputs (inputs={{…}})",
        ) from error
    except Exception as error:
        raise ExportError(
            f"{subject.architecture} cannot be called with token ids and a mask",
            why=told(error),
            next_step="name its inputs in Python: export_model(model, …, inputs={…})",
        ) from error


def _tokens(vocabulary: int) -> list[InputSpec]:
    dims = ("batch", "length")
    return [
        # Id 0 is padding nearly everywhere, and a model may read it as such.
        InputSpec("input_ids", "int64", dims, "ids", high=vocabulary, low=min(1, vocabulary - 1)),
        InputSpec("attention_mask", "int64", dims, "mask"),
    ]


def example_sizes(subject: Subject) -> dict[str, int]:
    """Sizes to export with: none is 0 or 1, which exporters take for constants."""
    sizes = {"batch": 2, "length": 7, "decoder_length": 5}
    bound = subject.longest or max(sizes.values())
    return {name: min(sizes.get(name, 3), bound) for name in free_dims(subject.inputs)}
