"""What is exported: a module from named tensors to named tensors, and what travels with it.

::

    fusion folder ────▶ histories, numbers, codes ─▶ logits        tokenizer, schema, fusion.json
    bundle ───────────▶ input_ids, attention_mask ─▶ logits        tokenizer, schema
    any HF model ─────▶ input_ids, attention_mask ─▶ logits        its own tokenizer
    a module of yours ▶ the inputs that you name  ─▶ its tensors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from domainformer.errors import ExportError
from domainformer.export.inputs import InputSpec, draw_all, spec_of
from domainformer.models import JointFusionModel, pool_hidden
from domainformer.models.universal.binding import BoundModel

What = Literal["logits", "embedding"]
_MOST_LENGTH = 512


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
            or specifications.

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
        next_step="give inputs={'name of the argument': an example tensor, …}",
    )


def _named(model: nn.Module, inputs: Any) -> Subject:
    specs = tuple(
        one if isinstance(one, InputSpec) else spec_of(name, one)
        for name, one in (inputs.items() if isinstance(inputs, Mapping) else _listed(inputs))
    )
    model.eval()
    example = {spec.name: spec for spec in specs}
    sizes = {dim: 2 for spec in specs for dim in spec.dims if isinstance(dim, str)}
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            output = model(**{name: spec.draw(sizes, generator) for name, spec in example.items()})
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be called with the inputs that were named",
            where=", ".join(f"{spec.name} {spec.dtype} {list(spec.dims)}" for spec in specs),
            why=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
        ) from error
    outputs = named_tensors(output)
    if not outputs:
        raise ExportError(
            f"{type(model).__name__} gives no tensor", why=f"it gave a {type(output).__name__}"
        )
    module = Plain(model, [spec.name for spec in specs]).eval()
    names = tuple(name for name, _ in outputs)
    return Subject(module, specs, names, type(model).__name__)


def _listed(inputs: Any) -> list[tuple[str, InputSpec]]:
    return [(spec.name, spec) for spec in inputs]


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
    longest = getattr(config, "max_position_embeddings", getattr(config, "n_positions", None))
    specs = _tokens(int(model.get_input_embeddings().weight.shape[0]))
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
    longest = int(longest) if isinstance(longest, int) and longest > 0 else None
    subject = Subject(module, tuple(specs), (what,), name, longest)
    _check_runs(subject, what)
    return subject


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
            why=str(error).splitlines()[0][:200],
            next_step=f"export what={other!r}, or name its inputs (inputs={{…}})",
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
    names = [dim for spec in subject.inputs for dim in spec.dims if isinstance(dim, str)]
    sizes = {"batch": 2, "length": 7, "decoder_length": 5}
    bound = subject.longest or _MOST_LENGTH
    return {name: min(sizes.get(name, 3), bound) for name in names}
