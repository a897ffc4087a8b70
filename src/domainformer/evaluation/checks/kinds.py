"""Which of the four kinds a model is, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from domainformer.errors import ConfigError, DomainformerError
from domainformer.evaluation.checks.subject import (
    Classifier,
    EncoderDecoder,
    LanguageModel,
    Subject,
)
from domainformer.export.inputs import InputSpec
from domainformer.export.subject import of_model
from domainformer.models import JointFusionModel
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.binding import BoundModel, bind
from domainformer.models.universal.forward import unwrapped
from domainformer.models.universal.probing import at_rest, draw_tokens

_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "block_size",
    "context",
    "max_seq_len",
)


def subject_of(
    model: nn.Module,
    *,
    vocab_size: int | None = None,
    causal: bool | None = None,
    roles: Mapping[str, Role | str] | None = None,
    providers: Mapping[str, Any] | None = None,
    logits: Any = None,
    mask_id: int | None = None,
) -> Subject:
    """Find out what a model is.

    Args:
        model: Any module that reads token ids, or a fusion model.
        vocab_size: Ids are below it; found in the model where it says so.
        causal: Whether it is meant as a causal language model; None: its class says so, and what
            nobody says is meant as one.
        roles: See :func:`~domainformer.models.universal.bind`.
        providers: See there.
        logits: See there.
        mask_id: Of a bidirectional model's tokenizer.

    Raises:
        AdapterError: It cannot be bound.
        ConfigError: Its vocabulary is not known.
    """
    if isinstance(model, BoundModel):
        bound, model = model, model.module
    else:
        bound = None
    own: Any = unwrapped(model)
    if isinstance(own, JointFusionModel):
        return _fusion(own)
    native = isinstance(own, PreTrainedModel)
    if native and getattr(own.config, "is_encoder_decoder", False) and causal is not False:
        return EncoderDecoder(
            model,
            vocab_size=vocab_size or int(own.config.get_text_config(decoder=True).vocab_size),
            declared=f"{type(own).__name__} decodes beside a source",
            longest=_longest(own),
        )
    if bound is None:
        bound = bind(model, roles=roles, providers=providers, logits=logits)
    size = vocab_size or bound.vocab_size
    if size is None:
        raise ConfigError(
            f"the vocabulary of {type(own).__name__} is not known",
            why="it has no config that says so, and not exactly one size of embedding",
            next_step="check(model, vocab_size=…)",
        )
    classes = _classes(bound, size)
    if classes is not None:
        return _pooled(bound, size, classes)
    meant, why = _meant(own, causal)
    return LanguageModel(
        bound,
        vocab_size=size,
        causal=meant,
        declared=why,
        longest=_longest(own),
        mask_id=mask_id,
    )


def _meant(own: nn.Module, causal: bool | None) -> tuple[bool, str]:
    name = type(own).__name__
    if causal is not None:
        return causal, f"{'causal' if causal else 'bidirectional'}, as the caller says"
    if name in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values():
        return False, f"{name} is bidirectional: it fills in masked tokens"
    return True, f"{name} is taken as a causal language model"


def _fusion(model: JointFusionModel) -> Classifier:
    with at_rest(model):
        found = of_model(model)
    longest = found.longest
    module, classes = found.module, int(model.config.n_outputs)
    why = "JointFusionModel gives one answer for a history and a row of a table"
    return Classifier(
        module,
        model,
        specs=found.inputs,
        classes=classes,
        declared=why,
        longest=longest,
    )


def _classes(bound: BoundModel, vocab_size: int) -> int | None:
    """Outputs of a model that gives one row of logits [B, C] per row of ids; None: it does not."""
    ids = draw_tokens(2, 6, vocab_size, seed=0, device=_device(bound))
    with at_rest(bound), torch.no_grad():
        try:
            bound(ids)
        except DomainformerError:
            pass
        except Exception:  # noqa: BLE001 - what a user's forward raises is for the checks to tell
            return None
        else:
            return None
        try:
            raw = bound.module(**{bound.inspector.of(Role.TOKENS)[0]: ids})
        except Exception:  # noqa: BLE001 - the same
            return None
    found = raw if isinstance(raw, torch.Tensor) else getattr(raw, "logits", None)
    pooled = isinstance(found, torch.Tensor) and found.dim() == 2 and found.shape[0] == 2
    return int(found.shape[1]) if pooled and found is not None else None


def _pooled(bound: BoundModel, vocab_size: int, classes: int) -> Classifier:
    model, name = bound.module, bound.inspector.of(Role.TOKENS)[0]
    dims = ("batch", "length")
    spec = InputSpec(name, "int64", dims, "ids", high=vocab_size, low=min(1, vocab_size - 1))
    with at_rest(model):
        found = of_model(model, inputs=[spec])
    return Classifier(
        _First(found.module),
        model,
        specs=[spec],
        classes=classes,
        declared=f"{type(unwrapped(model)).__name__} gives one answer per row",
        longest=_longest(unwrapped(model)),
    )


class _First(nn.Module):
    """The logits among several outputs: the first of two dimensions."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Logits [B, C]."""
        return next(one for one in self.module(*tensors) if one.dim() == 2)


def _longest(own: nn.Module) -> int | None:
    config: Any = getattr(own, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    values = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    said = next((one for one in values if isinstance(one, int) and one > 0), None)
    # RoBERTa counts from the padding id on, and so has fewer places than rows.
    for name, part in own.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            offset = 0 if part.padding_idx is None else part.padding_idx + 1
            return part.num_embeddings - offset
    return said


def _device(module: nn.Module) -> torch.device:
    return next((one.device for one in module.parameters()), torch.device("cpu"))
