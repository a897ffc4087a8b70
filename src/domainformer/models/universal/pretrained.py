"""``UniversalForCausalLM``: any module as a model of transformers.

::

    nn.Module ─bind─▶ BoundModel ─▶ UniversalForCausalLM ─▶ HF Trainer, our engine, learning rules,
                                     .model.module is yours   registry, export, generate

    save_pretrained ─▶ config.json (name and hash of the source), model.safetensors
    from_pretrained(folder, module=…) ◀─ the module comes from the caller, never from the folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from domainformer.errors import AdapterError, RegistryError
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.binding import BoundModel, bind
from domainformer.models.universal.configuration import UniversalConfig
from domainformer.models.universal.identity import (
    Given,
    check_identity,
    current_module,
    made,
    qualified_name,
    source_hash,
)
from domainformer.models.universal.parts import (
    context_of,
    embedding_of,
    fill,
    refuse_options,
    replace_module,
)
from domainformer.models.universal.verification import cache_arguments
from domainformer.weights import check_weights


class UniversalForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model of transformers around a module of any shape.

    The loss is the cross-entropy of the next token, over labels that are not shifted, −100 ignored:
    the same wherever the model is trained. A model of transformers keeps its own loss.

    Args:
        config: What is known of the module; :meth:`wrap` finds it out.
        bound: The module behind :func:`~domainformer.models.universal.bind`.

    Example:
        >>> module = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        >>> model = UniversalForCausalLM.wrap(module, roles={"input": "tokens"})
        >>> ids = torch.tensor([[4, 5, 6]])
        >>> output = model(input_ids=ids, labels=ids)
        >>> output.logits.shape, output.loss.ndim, model.config.hidden_size
        (torch.Size([1, 3, 20]), 0, 8)
        >>> model.generate(ids, max_new_tokens=2, do_sample=False).shape
        torch.Size([1, 5])
    """

    config_class = UniversalConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_default_dynamic_cache = classmethod(lambda cls: False)  # each module brings its own

    def __init__(self, config: UniversalConfig, bound: BoundModel) -> None:
        super().__init__(config)
        self.model = bound
        self._asks_for_cache = cache_arguments(bound)
        self._own_loss = bound.native or bound.requires(Role.LABELS)
        config.tie_word_embeddings = bool(self._tied_weights_keys)
        self.post_init()

    @classmethod
    def wrap(
        cls,
        module: nn.Module,
        *,
        vocab_size: int | None = None,
        roles: Mapping[str, Role | str] | None = None,
        providers: Mapping[str, Any] | None = None,
        logits: Any = None,
        arguments: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> Self:
        """Bind a module and write down what it is.

        Args:
            module: Trained in place; nothing of it is copied or initialised again.
            vocab_size: Ids that it knows, where neither its config nor an embedding tells.
            roles: See :func:`~domainformer.models.universal.bind`.
            providers: See there.
            logits: See there; a function has to be given again when the model is loaded.
            arguments: What its constructor was given, plain data, to be kept in ``config.json``:
                the class is then enough to load it.
            **config: More for :class:`UniversalConfig`, such as ``eos_token_id``.

        Raises:
            AdapterError: It cannot be bound, or its vocabulary is not known.
        """
        bound = bind(module, roles=roles, providers=providers, logits=logits)
        size = vocab_size or bound.vocab_size
        if size is None:
            raise AdapterError(
                f"the vocabulary of {type(module).__name__} is not known",
                why="it has no config that says so, and not exactly one size of embedding",
                next_step="wrap(module, vocab_size=…)",
            )
        bound.vocab_size = size
        embedding = embedding_of(bound, size)
        facts: dict[str, Any] = {
            "vocab_size": size,
            "hidden_size": 0 if embedding is None else embedding.embedding_dim,
            "num_hidden_layers": max(
                (len(part) for part in bound.modules() if isinstance(part, nn.ModuleList)),
                default=0,
            ),
            "max_position_embeddings": context_of(module),
            "module_name": qualified_name(module),
            "module_source": source_hash(module),
            "module_arguments": _plain(arguments),
            "roles": {name: Role(role).value for name, role in (roles or {}).items()},
            "logits": logits if isinstance(logits, (str, int)) else None,
        }
        return cls(UniversalConfig(**{**facts, **config}), bound)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: UniversalConfig | None = None,
        module: Given | None = None,
        providers: Mapping[str, Any] | None = None,
        logits: Any = None,
        dtype: torch.dtype | None = None,
        allow_changed_source: bool = False,
        **options: Any,
    ) -> Self:
        """Load saved weights into a module that the caller gives; no code of the folder is run.

        Args:
            pretrained_model_name_or_path: A folder that ``save_pretrained`` wrote.
            config: As the folder has it, by default.
            module: The module, which then holds the weights; or its class (made with the arguments
                that were kept), or a function that makes it. None: what
                :func:`~domainformer.models.universal.given_module` says.
            providers: As they were given to :meth:`wrap`.
            logits: The same; only needed where it was a function.
            dtype: Cast the weights; as they were saved by default.
            allow_changed_source: Take a module whose source is another than the saved one's.
            **options: None is known: transformers splits and quantises what it builds itself.

        Returns:
            The model, in evaluation mode.

        Raises:
            RegistryError: No module is given; an option is; or the weights are missing, pickled,
                or of another module.
            FingerprintError: The module's source changed since it was saved.
        """
        folder = Path(pretrained_model_name_or_path)
        refuse_options(options, folder)
        files = check_weights(folder)
        config = config or UniversalConfig.from_pretrained(folder, local_files_only=True)
        module = current_module() if module is None else module
        if module is None:
            raise RegistryError(
                f"the model is {config.module_name or 'a module'}, whose code is not in the folder",
                where=str(folder),
                why="code is never run from a model folder: whoever loads it gives the module",
                next_step="import the class, then: with given_module(TheClass): …",
            )
        given = made(module, config)
        if not allow_changed_source:
            check_identity(given, config, where=str(folder))
        chosen = config.logits if logits is None else logits
        bound = bind(given, roles=config.roles, providers=providers, logits=chosen)
        bound.vocab_size = config.vocab_size
        model = cls(config, bound)
        saved = dtype or getattr(torch, str(config.dtype).removeprefix("torch."), None)
        if isinstance(saved, torch.dtype):
            model.to(saved)
        fill(model, [folder / name for name in files])
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
        return model.eval()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        shift_labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits, and the loss of the next token where there are labels.

        Args:
            input_ids: Token ids int64 [B, L].
            attention_mask: 1 at tokens, 0 at padding [B, L].
            position_ids: Positions [B, L]; refused where the module takes none.
            past_key_values: What an earlier output had under that name.
            labels: Ids [B, L], not shifted; −100 is ignored.
            use_cache: Ask the module for a cache.
            return_dict: False: a tuple in place of an output with names.
            num_items_in_batch: What the sum of losses is divided by; the labels counted, if None.
            shift_labels: What each position shall say [B, L], in place of ``labels``: in our
                engine's windows the last position has an answer, too.
            **kwargs: Further arguments of the module, by their names.
        """
        if use_cache and self._asks_for_cache:
            kwargs = {**kwargs, **self._asks_for_cache}
        if self.model.native:
            extra = {"num_items_in_batch": num_items_in_batch, "shift_labels": shift_labels}
            kwargs |= {name: value for name, value in extra.items() if value is not None}
        found = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels if self._own_loss else None,
            **kwargs,
        )
        loss = found.loss if self.model.native else None
        if loss is None and (labels is not None or shift_labels is not None):
            loss = self.loss_function(
                found.logits,
                labels,
                found.logits.shape[-1],
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
        past = found.past_key_values if use_cache is not False else None
        output = CausalLMOutputWithPast(loss=loss, logits=found.logits, past_key_values=past)
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The next call of ``generate``: the new tokens where there is a cache, else all that fit.

        Raises:
            AdapterError: Rows are padded and the module takes no mask.
        """
        takes_mask = self.model.takes(Role.MASK)
        if attention_mask is not None and not takes_mask and bool((attention_mask == 0).any()):
            raise AdapterError(
                f"{self.config.module_name} takes no attention mask, and rows are padded",
                why="padding would be read as text",
                next_step="generate rows of one length together, or one by one",
            )
        context = self.config.max_position_embeddings
        keep = input_ids.shape[1]
        if past_key_values is not None and next_sequence_length is not None:
            keep = next_sequence_length
        elif past_key_values is None and context is not None and not self.model.takes(Role.CACHE):
            keep = min(keep, context)
            mask = attention_mask
            attention_mask = None if mask is None else mask[:, -keep:]
        inputs: dict[str, Any] = {"input_ids": input_ids[:, -keep:], "use_cache": use_cache}
        if takes_mask and attention_mask is not None:
            inputs["attention_mask"] = attention_mask
            if self.model.takes(Role.POSITIONS):
                inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -keep:]
        if past_key_values is not None:
            inputs["past_key_values"] = past_key_values
        return inputs

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding of the tokens.

        Raises:
            AdapterError: No ``nn.Embedding`` has a row for each id.
        """
        found = embedding_of(self.model, self.config.vocab_size)
        if found is None:
            raise AdapterError(
                f"{self.config.module_name} has no embedding with {self.config.vocab_size} rows",
                next_step="change the module itself, which knows where its embeddings are",
            )
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another embedding of tokens in the place of the one there is."""
        replace_module(self.model, self.get_input_embeddings(), value)

    def get_output_embeddings(self) -> nn.Linear | None:
        """The last linear layer with one output per id; None where there is none."""
        return next(
            (
                part
                for part in reversed(list(self.model.modules()))
                if isinstance(part, nn.Linear) and part.out_features == self.config.vocab_size
            ),
            None,
        )

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Put another last layer in the place of the one there is."""
        old = self.get_output_embeddings()
        if old is not None:
            replace_module(self.model, old, value)

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        """Names that share a parameter, to the first of them; as the module has them now."""
        first: dict[int, str] = {}
        tied: dict[str, str] = {}
        for name, weight in self.named_parameters(remove_duplicate=False):
            if first.setdefault(id(weight), name) != name:
                tied[name] = first[id(weight)]
        return tied

    def init_weights(self) -> None:
        """Nothing: the module comes with its weights, and they are its maker's."""

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing, for the same reason."""


def _plain(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if arguments is None:
        return None
    try:
        return dict(json.loads(json.dumps(dict(arguments), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise AdapterError(
            "the constructor's arguments are no plain data",
            why=str(error),
            next_step="leave them out, and give the module itself when it is loaded",
        ) from error


AutoConfig.register(UniversalConfig.model_type, UniversalConfig, exist_ok=True)
AutoModelForCausalLM.register(UniversalConfig, UniversalForCausalLM, exist_ok=True)
