"""The domain transformer: a pre-norm GPT over event tokens, in the way of transformers 5.

::

    tokens ─▶ embedding (+ learned positions) ─▶ block × layers ─▶ norm ─▶ hidden states
                                                                            ├─▶ tied output layer
    block:  x + attention(norm(x))   then   x + mlp(norm(x))                └─▶ classification head

By default there is no positional encoding: the causal mask alone breaks the symmetry
(arXiv 2305.19466), as in nuFormer (arXiv 2507.23267).

Three promises, each kept for every position encoding and attention backend: padding on either
side never changes a result; documents packed into one row never see each other; and decoding with
a cache gives what the whole sequence gives, with or without ``position_ids``.

This file travels with every saved model: it imports torch, transformers and its neighbours.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import can_return_tuple
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_domain_transformer import DomainTransformerConfig
from .copy_head_domain_transformer import DomainTransformerCopyHead, copy_scope
from .layers_domain_transformer import (
    DomainTransformerAttention,
    DomainTransformerBlock,
    make_norm,
    rotary_angles,
)
from .packed_attention import PACKED_SDPA, locate_documents


class DomainTransformerPreTrainedModel(PreTrainedModel):
    """What all domain transformers share: flags, and how new weights are drawn."""

    config: DomainTransformerConfig
    config_class = DomainTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["DomainTransformerBlock"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": DomainTransformerBlock,
        "attentions": DomainTransformerAttention,
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DomainTransformerCopyHead):
            module.reset_extra_parameters()
        if getattr(module, "adds_to_stream", False):
            # Every block adds to the stream twice: so scaled, its variance does not grow with
            # depth (GPT-2, section 2.3). The mark is on the layer itself, since transformers
            # never asks about modules of custom code that have no weights of their own.
            std = self.config.initializer_range / math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std)


class DomainTransformerModel(DomainTransformerPreTrainedModel):
    """Tokens to normed hidden states.

    Args:
        config: Sizes and choices.

    Example:
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=50)
        >>> model = DomainTransformerModel(config).eval()
        >>> model(torch.tensor([[1, 5, 7]])).last_hidden_state.shape
        torch.Size([1, 3, 128])
    """

    def __init__(self, config: DomainTransformerConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size)
            if config.position_encoding == "learned"
            else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            [DomainTransformerBlock(config, index) for index in range(config.num_hidden_layers)]
        )
        self.norm = make_norm(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the blocks.

        Args:
            input_ids: Token ids [B, L].
            attention_mask: 1 at real tokens, 0 at padding, [B, L] (with a cache: past and new).
            position_ids: Positions [B, L]. Where they restart within a row, each restart is a
                new document. None: counted over real tokens.
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: Embeddings [B, L, W] in place of ids.
            use_cache: Return keys and values (never while training, never of packed rows).
            cu_seq_lens_q: Document boundaries, int [documents + 1] over the flattened B × L
                tokens; they decide, whatever the mask and positions say.
            **kwargs: Handed to the attention backend.

        Raises:
            ValueError: Both or neither of ids and embeddings; boundaries that do not fit the
                rows; packed rows with a cache; positions beyond the learned table.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        for key in ("cu_seq_lens_k", "max_length_q", "max_length_k"):
            kwargs.pop(key, None)  # the boundaries say it all
        stated = position_ids is not None or cu_seq_lens_q is not None
        position_ids, attention_mask, boundaries = locate_documents(
            inputs_embeds, attention_mask, position_ids, past_key_values, cu_seq_lens_q
        )
        if use_cache and past_key_values is None and boundaries is None and not self.training:
            past_key_values = DynamicCache(config=self.config)
        routing = self._route(
            inputs_embeds,
            attention_mask,
            # Counted positions never restart: without them a plain mask can be skipped.
            position_ids if stated else None,
            past_key_values,
            boundaries,
        )
        if self.config.position_encoding == "rope":
            routing["position_embeddings"] = rotary_angles(
                position_ids, self.config.head_dim, self.config.rope_theta
            )
        hidden_states = self.dropout(self._add_positions(inputs_embeds, position_ids))
        for layer in self.layers:
            hidden_states = layer(
                hidden_states, past_key_values=past_key_values, **routing, **kwargs
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    def _route(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        past_key_values: Cache | None,
        boundaries: torch.Tensor | None,
    ) -> dict[str, Any]:
        """What every attention layer is handed: a mask, or boundaries and who reads them."""
        backend = self.config._attn_implementation
        if boundaries is not None:
            on_cpu = inputs_embeds.device.type == "cpu"
            if backend == PACKED_SDPA or (backend == "sdpa" and on_cpu):
                return {"attention_backend": PACKED_SDPA, "cu_seq_lens_q": boundaries}
            if is_flash_attention_requested(self.config):
                boundaries = boundaries.to(torch.int32)
                longest = int(boundaries.diff().max())
                return {
                    "cu_seq_lens_q": boundaries,
                    "cu_seq_lens_k": boundaries,
                    "max_length_q": longest,
                    "max_length_k": longest,
                }
        return {
            "attention_mask": create_causal_mask(
                config=self.config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
        }

    def _add_positions(
        self, inputs_embeds: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        if self.embed_positions is None:
            return inputs_embeds
        limit = self.config.max_position_embeddings
        if not torch.compiler.is_compiling() and int(position_ids.max()) >= limit:
            raise ValueError(
                f"position {int(position_ids.max())} is beyond the table of {limit} learned "
                "positions: cut the history, or train with a larger max_position_embeddings"
            )
        return inputs_embeds + self.embed_positions(position_ids)


class DomainTransformerForCausalLM(DomainTransformerPreTrainedModel, GenerationMixin):
    """Next-token prediction; the output layer shares the embedding's weights.

    With ``config.copy_heads`` the logits are log-probabilities of a mixture with copies of
    earlier tokens (see :class:`DomainTransformerCopyHead`).

    Args:
        config: Sizes and choices.

    Example:
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=50)
        >>> model = DomainTransformerForCausalLM(config).eval()
        >>> ids = torch.tensor([[1, 5, 7]])
        >>> output = model(ids, labels=ids)
        >>> output.logits.shape, output.loss.ndim
        (torch.Size([1, 3, 50]), 0)
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: DomainTransformerConfig) -> None:
        super().__init__(config)
        self.model = DomainTransformerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.copy_head = (
            DomainTransformerCopyHead(
                config.hidden_size,
                width=config.copy_width,
                heads=config.copy_heads,
                layer_index=config.num_hidden_layers,
            )
            if config.copy_heads
            else None
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cu_seq_lens_q: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict each next token.

        Args:
            input_ids: Token ids [B, L].
            attention_mask: As in :meth:`DomainTransformerModel.forward`.
            position_ids: As there.
            past_key_values: As there.
            inputs_embeds: As there.
            labels: Ids [B, L] as in ``input_ids``: the model shifts them. −100 is not scored;
                the first token of every packed document must be, or the last of the document
                before it would be asked to predict it.
            use_cache: As there; off where labels are given.
            logits_to_keep: Only the last so many positions, or those of an index; 0 is all.
            cu_seq_lens_q: As there.
            **kwargs: ``num_items_in_batch`` (the loss is then the sum divided by it), and what
                the attention backend takes.

        Returns:
            Loss and logits [B, L, V]; a model that copies gives no logits while it trains on
            labels, since only the labels' own probabilities are worked out.

        Raises:
            ValueError: As there; a model that copies was given embeddings in place of ids.
        """
        if self.copy_head is not None and input_ids is None:
            raise ValueError("a model that copies needs input_ids: embeddings cannot be copied")
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if use_cache is None and labels is not None:
            use_cache = False  # a loss has no next step that would read the cache
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            cu_seq_lens_q=cu_seq_lens_q,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden, loss, logits = outputs.last_hidden_state, None, None
        if self.copy_head is None:
            logits = self.lm_head(hidden[:, keep])
        else:
            scope = copy_scope(input_ids, attention_mask, position_ids, past, cu_seq_lens_q)
            if labels is not None and self.training:
                loss = self.copy_head.loss(
                    hidden,
                    input_ids,
                    self.lm_head(hidden),
                    labels,
                    kwargs.get("num_items_in_batch"),
                    **scope,
                )
            else:
                logits = self.copy_head(
                    hidden,
                    input_ids,
                    self.lm_head(hidden[:, keep]),
                    keep=keep,
                    past_key_values=outputs.past_key_values,
                    **scope,
                )
        if labels is not None and loss is None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class DomainTransformerForSequenceClassification(DomainTransformerPreTrainedModel):
    """A linear head on the hidden state of each row's last real token, one history per row.

    The loss follows ``config.problem_type``: "regression", "single_label_classification" or
    "multi_label_classification"; where it is None, transformers tells it from the labels.

    Args:
        config: Sizes and choices; ``num_labels`` outputs.

    Example:
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=50, num_labels=3)
        >>> model = DomainTransformerForSequenceClassification(config).eval()
        >>> model(torch.tensor([[1, 5, 0], [1, 5, 9]])).logits.shape
        torch.Size([2, 3])
    """

    def __init__(self, config: DomainTransformerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = DomainTransformerModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast:
        """Classify each row.

        Args:
            input_ids: Token ids [B, L].
            attention_mask: 1 at real tokens [B, L]. None: ids other than ``pad_token_id``.
            position_ids: As in :meth:`DomainTransformerModel.forward`.
            past_key_values: As there.
            inputs_embeds: As there.
            labels: Classes [B], values [B] or [B, outputs], or indicators [B, outputs].
            use_cache: As there.
            **kwargs: As there.

        Raises:
            ValueError: The rows are packed, so that a row has no single last token.
        """
        if kwargs.get("cu_seq_lens_q") is not None:
            raise ValueError("classification takes one history per row, not packed rows")
        if attention_mask is None and input_ids is not None and past_key_values is None:
            attention_mask = self._real_tokens(input_ids)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        index = torch.arange(hidden.shape[1], device=hidden.device)
        if attention_mask is not None:
            index = index * attention_mask[:, -hidden.shape[1] :]
        last = index.expand(hidden.shape[:2]).argmax(dim=-1)
        pooled = hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
        logits = self.score(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, pooled_logits=logits, config=self.config, **kwargs
            )
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _real_tokens(self, input_ids: torch.Tensor) -> torch.Tensor | None:
        pad = self.config.pad_token_id
        return None if pad is None else (input_ids != pad).long()


__all__ = [
    "DomainTransformerForCausalLM",
    "DomainTransformerForSequenceClassification",
    "DomainTransformerModel",
    "DomainTransformerPreTrainedModel",
]
