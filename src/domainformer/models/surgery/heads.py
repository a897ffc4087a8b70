"""Another head on the same body: the task's class of the family, or a new linear layer in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from domainformer.errors import SurgeryError, nearest
from domainformer.models.surgery.rebuild import proven
from domainformer.models.surgery.wrappers import configurations, described, inner, named_weights

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
# The task to the Auto class that knows its head for each family.
TASKS = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "multiple-choice": "AutoModelForMultipleChoice",
    "question-answering": "AutoModelForQuestionAnswering",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
}
_LABELLED = ("sequence-classification", "token-classification")


def replace_head(
    model: nn.Module,
    labels: int | Sequence[str] | None = None,
    *,
    task: str = "sequence-classification",
    path: str | None = None,
    problem_type: ProblemType | None = None,
    pad_token_id: int | None = None,
    seed: int = 0,
) -> Any:
    """Put a new head on a model, with the configuration that belongs to it.

    ::

        Hugging Face, by task    causal LM ─▶ body ─▶ sequence classification      a new model
        any module, by path      Linear(d, 5) at "head" ─▶ Linear(d, labels)       in place

    By task the family's own class is taken from the Auto mappings, so that ``from_pretrained``
    reads what is saved; the body's weights are copied, with what learns and what is frozen, and the
    given model stays as it is. ``num_labels``, ``id2label``, ``label2id`` and ``problem_type`` are
    set in the configuration.

    Args:
        model: Any Hugging Face model, or any module with ``path``.
        labels: Their names, or how many there are; None for tasks without any.
        task: Of a Hugging Face model: one of the keys of ``TASKS``.
        path: Dotted path of a linear layer, which is then replaced in place.
        problem_type: Which loss ``labels`` get; None: regression for one label, else one class.
        pad_token_id: Put into the configuration: decoders that classify a sequence look for the
            last token before it, and take batches of one only where there is none.
        seed: Of the new weights; no global generator is touched.

    Returns:
        The model with its new head.

    Raises:
        SurgeryError: The family has no such head, or there is no linear layer at the path.

    Example:
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=20, num_hidden_layers=1)
        >>> model = replace_head(DomainTransformerForCausalLM(config), ["no", "yes"])
        >>> type(model).__name__, model.config.id2label, model.config.problem_type
        ('DomainTransformerForSequenceClassification', {0: 'no', 1: 'yes'}, \
'single_label_classification')
    """
    if task not in TASKS:
        raise SurgeryError(f"there is no task {task!r}", next_step=nearest(task, TASKS))
    _check_labels(labels, task, path)
    if problem_type is not None and problem_type not in get_args(ProblemType):
        raise SurgeryError(
            f"there is no problem type {problem_type!r}",
            next_step=nearest(problem_type, get_args(ProblemType)),
        )
    own = inner(model)
    if path is not None:
        return _in_place(model, own, path, labels, problem_type, seed)
    if not isinstance(own, PreTrainedModel) or own is not model:
        raise SurgeryError(
            f"{described(model)} is of no Hugging Face family that has other heads",
            next_step="name its last layer: replace_head(model, labels, path='head')",
        )
    kind = _class_for(own, task)
    config = copy.deepcopy(own.config)
    config.architectures = [kind.__name__]
    if task.endswith("-lm") and not config.is_encoder_decoder and hasattr(config, "is_decoder"):
        config.is_decoder = task == "causal-lm"  # else BERT would look ahead, as a causal model
    if labels is not None:
        _label(config, labels, problem_type, decides=task == "sequence-classification")
    if pad_token_id is not None:
        config.get_text_config().pad_token_id = config.pad_token_id = pad_token_id
    config._attn_implementation = own.config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Any = kind(config)
    made.to(device=own.device, dtype=own.dtype)
    _carry_over(own, made)
    return made.train(own.training)


def label_maps(labels: int | Sequence[str]) -> dict[str, Any]:
    """The entries of a configuration that describe some labels.

    Example:
        >>> label_maps(["no", "yes"])["label2id"], label_maps(2)["id2label"]
        ({'no': 0, 'yes': 1}, {0: 'LABEL_0', 1: 'LABEL_1'})
    """
    names = [f"LABEL_{i}" for i in range(labels)] if isinstance(labels, int) else list(labels)
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: place for place, name in enumerate(names)},
    }


def _label(
    config: Any, labels: int | Sequence[str], problem: str | None, *, decides: bool = True
) -> None:
    for name, value in label_maps(labels).items():
        setattr(config, name, value)
    if problem is None and decides:
        problem = "regression" if config.num_labels == 1 else "single_label_classification"
    config.problem_type = problem


def _in_place(
    model: nn.Module,
    own: nn.Module,
    path: str,
    labels: int | Sequence[str] | None,
    problem: str | None,
    seed: int,
) -> nn.Module:
    linear = {name: part for name, part in own.named_modules() if type(part) is nn.Linear}
    if path not in linear:
        raise SurgeryError(
            f"{described(model)} has no linear layer at {path!r}", next_step=nearest(path, linear)
        )
    old, maps = linear[path], label_maps(labels or 0)
    parent, _, name = path.rpartition(".")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = nn.Linear(old.in_features, maps["num_labels"], bias=old.bias is not None)
    new.to(old.weight)
    with proven(model):
        setattr(own.get_submodule(parent), name, new)
        for part in model.modules():
            for counted in ("num_labels", "num_classes", "n_classes"):
                if vars(part).get(counted) == old.out_features:
                    setattr(part, counted, new.out_features)
        for config in configurations(model):
            _label(config, labels or 0, problem)
    return model


def _class_for(model: PreTrainedModel, task: str) -> Any:
    kinds = {
        name: mapping[type(model.config)]
        for name, auto in TASKS.items()
        if type(model.config) in (mapping := getattr(transformers, auto)._model_mapping)
    }
    if task not in kinds:
        raise SurgeryError(
            f"models of type {model.config.model_type!r} have no head for {task}",
            why=f"transformers has: {', '.join(kinds)}" if kinds else "transformers has none",
            next_step=f"choose one of these: task={next(iter(kinds))!r}" if kinds else None,
        )
    found = kinds[task]
    return found[0] if isinstance(found, tuple) else found


def _carry_over(old: PreTrainedModel, new: PreTrainedModel) -> None:
    """Copy the body's weights, and which of them learn; what only one of the heads has stays."""
    source, target = old.base_model, new.base_model
    values = source.state_dict()
    wanted = target.state_dict()
    parts = {name.partition(".")[0] for name in values}
    missing = [name for name in wanted if name not in values and name.partition(".")[0] in parts]
    other = [n for n in wanted if n in values and wanted[n].shape != values[n].shape]
    if missing or other or not wanted.keys() & values.keys():
        raise SurgeryError(
            f"the body of {described(old)} is not that of {described(new)}",
            why=f"they differ in {', '.join((missing + other)[:3]) or 'all names'}",
            next_step="merge_lora(model) first, if it has low-rank additions",
        )
    target.load_state_dict({n: v for n, v in values.items() if n in wanted}, strict=False)
    new.tie_weights()
    learns = {n: w.requires_grad for n, w in source.named_parameters(remove_duplicate=False)}
    for weight, names in named_weights(target).values():
        known = [learns[name] for name in names if name in learns]
        weight.requires_grad_(all(known))
    if new.can_generate() and getattr(old, "generation_config", None) is not None:
        new.generation_config = copy.deepcopy(old.generation_config)


def _check_labels(labels: int | Sequence[str] | None, task: str, path: str | None) -> None:
    needs = path is not None or task in _LABELLED
    named = None if isinstance(labels, int) else labels
    if isinstance(labels, (str, bool, Mapping)) or (named and not _different_names(named)):
        raise SurgeryError("labels are a number or a list of different names", where="labels")
    count = labels if isinstance(labels, int) else len(labels or ())
    if needs and count < 1:
        raise SurgeryError(
            "the new head needs labels", where="labels", next_step="labels=2, or ['no', 'yes']"
        )
    if not needs and labels is not None:
        raise SurgeryError(f"a head for {task} has no labels", next_step="leave labels out")


def _different_names(labels: Sequence[str]) -> bool:
    return all(isinstance(label, str) for label in labels) and len(set(labels)) == len(labels)
