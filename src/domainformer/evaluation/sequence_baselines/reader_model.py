"""A network over the elements of a history that is read after any of them.

::

    token ids ─▶ embedding ─▶ mean per element ─▶ GRU, or causal Transformer ─▶ LayerNorm
                                                                 │ at the points
                                                                 └─▶ dropout ─▶ linear ─▶ outputs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from domainformer.models import DomainTransformerConfig, DomainTransformerModel

Encoder = Literal["gru", "transformer"]


class ReaderConfig(PreTrainedConfig):
    """Sizes of a reader.

    Args:
        vocab_size: Tokens.
        width: Of embeddings and hidden states.
        layers: Of the encoder.
        encoder: What reads the elements.
        dropout: Of the embedding, between layers, and before the head.
        outputs: Classes; 1 for binary and regression.
        objective: Which loss.
    """

    model_type = "domain_reader"

    vocab_size: int = 1
    width: int = 128
    layers: int = 1
    encoder: str = "gru"
    dropout: float = 0.1
    outputs: int = 1
    objective: str = "binary"


@dataclass
class ReaderOutput(ModelOutput):
    """What the points say.

    Args:
        loss: Mean over the points, where labels were given.
        logits: ``[points, outputs]``.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class Reader(PreTrainedModel):
    """See the picture above.

    Example:
        >>> reader = Reader(ReaderConfig(vocab_size=9, width=8, outputs=3, objective="multiclass"))
        >>> reader(input_ids=torch.tensor([1, 5, 6, 7, 1]), offsets=torch.tensor([0, 1, 3, 4]),
        ...        lengths=torch.tensor([3, 1]), points=torch.tensor([[0, 2], [1, 0]])).logits.shape
        torch.Size([2, 3])
    """

    config_class = ReaderConfig

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__(config)
        self.embedding = nn.EmbeddingBag(config.vocab_size, config.width, mode="mean")
        self.dropout = nn.Dropout(config.dropout)
        self.gru: nn.GRU | None = None
        self.transformer: DomainTransformerModel | None = None
        if config.encoder == "gru":
            between = config.dropout if config.layers > 1 else 0.0
            self.gru = nn.GRU(
                config.width, config.width, config.layers, batch_first=True, dropout=between
            )
        else:
            self.transformer = DomainTransformerModel(_transformer(config))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.outputs)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(
        self,
        input_ids: torch.Tensor,
        offsets: torch.Tensor,
        lengths: torch.Tensor,
        points: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> ReaderOutput:
        """Read.

        Args:
            input_ids: Token ids of all rows, flat.
            offsets: Where each element begins in ``input_ids``, ``[elements]``.
            lengths: Elements per row, ``[B]``.
            points: Row and element of each point, ``[points, 2]``.
            labels: ``[points]``: class indices, or standardised numbers.
        """
        elements = self.embedding(input_ids, offsets)
        places = torch.arange(int(lengths.max()), device=lengths.device)
        real_BL = places < lengths[:, None]
        x_BLW = elements.new_zeros(*real_BL.shape, elements.shape[1])
        x_BLW[real_BL] = elements
        x_BLW = self.dropout(x_BLW)
        if self.gru is not None:
            # Padding is behind the elements: a causal reader never meets it.
            hidden_BLW = self.gru(x_BLW)[0] + x_BLW
        elif self.transformer is not None:
            hidden_BLW = self.transformer(
                inputs_embeds=x_BLW, attention_mask=real_BL.long(), use_cache=False
            ).last_hidden_state
        read = self.norm(hidden_BLW[points[:, 0], points[:, 1]])
        logits = self.head(self.dropout(read))
        loss = None if labels is None else self._loss(logits, labels)
        return ReaderOutput(loss=loss, logits=logits)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.objective == "multiclass":
            return F.cross_entropy(logits, labels.long())
        if self.config.objective == "binary":
            return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
        return F.mse_loss(logits[:, 0], labels.to(logits.dtype))


def _transformer(config: ReaderConfig) -> DomainTransformerConfig:
    """The backbone; it is handed vectors, so its own table has one row."""
    return DomainTransformerConfig(
        vocab_size=1,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=max(1, config.width // 32),
        position_encoding="rope",
        dropout=config.dropout,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )


def softened(logits: torch.Tensor, objective: str) -> torch.Tensor:
    """Probabilities of logits: ``[n]`` of 1, ``[n, classes]``, or the number itself."""
    if objective == "multiclass":
        return logits.softmax(dim=1)
    return logits[:, 0].sigmoid() if objective == "binary" else logits[:, 0]
