"""Joint fusion: the history's last hidden state beside crossed tabular features.

::

    tokens [B, L] ─▶ DomainTransformerModel ─▶ last real token ─▶ LayerNorm ───┐
                                                                              ├─▶ MLP ─▶ logits
    numbers [B, F] ──▶ NumericEncoder ──┐   ┌─▶ cross × n ─┐                  │
                                        ├ x₀┤              ├─▶ Linear ─▶ v ───┘
    codes [B, C] ────▶ embeddings ──────┘   └─▶ deep MLP ──┘

Either branch may be absent: tabular alone, or histories alone. All parts are trained together
(:mod:`domainformer.training.fusion`), each with its own learning rate.

Source: nuFormer, arXiv 2507.23267, section 4 (PLR embeddings, DCNv2, the LayerNormed embedding of
the last token, an MLP on both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from domainformer.errors import DataError
from domainformer.models.batching import pool_hidden
from domainformer.models.configuration_domain_transformer import DomainTransformerConfig
from domainformer.models.configuration_fusion import JointFusionConfig
from domainformer.models.modeling_domain_transformer import DomainTransformerModel
from domainformer.models.numeric import FeatureLinear, NumericEncoder, PeriodicLinearReLU

_UNKNOWN = 1  # code of a category that training did not know
_UNKNOWN_RATE = 0.01  # of the known categories are read as unknown while training


class DCNv2CrossLayer(nn.Module):
    """One explicit crossing of features, as deep as it is stacked.

    ::

        x_{l+1} = x₀ ⊙ (W x_l + b) + x_l          W full [D, D], or U Vᵀ of rank r

    Args:
        width: D.
        rank: r; None: a full matrix.
        dropout: Dropout of what the layer adds.

    Source: Wang et al., "DCN V2", arXiv 2008.13535, equations 1 and 2.

    Example:
        >>> layer = DCNv2CrossLayer(6, rank=2)
        >>> x0 = torch.randn(4, 6)
        >>> layer(x0, x0).shape, sum(p.numel() for p in layer.parameters())
        (torch.Size([4, 6]), 30)
    """

    def __init__(self, width: int, *, rank: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.reduce = None if rank is None else nn.Linear(width, rank, bias=False)
        self.linear = nn.Linear(width if rank is None else rank, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x0_BD: torch.Tensor, x_BD: torch.Tensor) -> torch.Tensor:
        """Cross the state with the input.

        Args:
            x0_BD: The input of the first layer.
            x_BD: The output of the layer before.
        """
        reduced = x_BD if self.reduce is None else self.reduce(x_BD)
        return x_BD + self.dropout(x0_BD * self.linear(reduced))


class TabularEncoder(nn.Module):
    """Raw numbers and category codes to one vector.

    While training, one known category in a hundred is read as unknown, so that the vector of
    "unknown" means something when a new category comes.

    Args:
        config: Sizes and choices.

    Example:
        >>> config = JointFusionConfig(n_numbers=2, category_sizes=[4], tabular_width=8)
        >>> encoder = TabularEncoder(config).eval()
        >>> encoder(torch.randn(3, 2), torch.tensor([[0], [1], [3]])).shape
        torch.Size([3, 8])
    """

    def __init__(self, config: JointFusionConfig) -> None:
        super().__init__()
        self.feature_dropout = float(config.feature_dropout)
        self.numbers: NumericEncoder | None = None
        width = 0
        if config.n_numbers:
            self.numbers = NumericEncoder(
                config.n_numbers,
                config.numeric_embedding,
                width=config.numeric_width,
                n_frequencies=config.n_frequencies,
                frequency_scale=config.frequency_scale,
                n_bins=config.n_bins,
                scaling=config.scaling,
                n_quantiles=config.n_quantiles,
            )
            width += self.numbers.out_features
        self.categories = nn.ModuleList(
            nn.Embedding(size, min(config.category_width, size)) for size in config.category_sizes
        )
        width += sum(embedding.embedding_dim for embedding in self.categories)
        self.cross = nn.ModuleList(
            DCNv2CrossLayer(width, rank=config.rank(width), dropout=config.cross_dropout)
            for _ in range(config.cross_layers)
        )
        self.deep = _mlp(width, config.deep_layers, config.deep_dropout)
        joined = (width if config.cross_layers else 0) + (
            config.deep_layers[-1] if config.deep_layers else 0
        )
        self.project = nn.Linear(joined, config.tabular_width)

    def forward(self, numbers: torch.Tensor | None, codes: torch.Tensor | None) -> torch.Tensor:
        """Encode.

        Args:
            numbers: Raw numbers [B, F], NaN where missing.
            codes: Category codes [B, C].
        """
        return self.cross_features(self._left_out(self.embed(numbers, codes)))

    def _left_out(self, x0: torch.Tensor) -> torch.Tensor:
        """While training, some features of each example are 0, all their columns at once."""
        if not self.training or not self.feature_dropout:
            return x0
        owners = self.feature_of_column.to(x0.device)
        ones = x0.new_ones(len(x0), int(owners.max()) + 1)
        return x0 * F.dropout(ones, self.feature_dropout)[:, owners]

    def embed(self, numbers: torch.Tensor | None, codes: torch.Tensor | None) -> torch.Tensor:
        """The embedded features side by side, before anything mixes them: x₀ [B, D]."""
        parts = [] if self.numbers is None else [self.numbers(numbers)]
        if len(self.categories) and codes is not None:
            if self.training:
                drawn = torch.rand(codes.shape, device=codes.device) < _UNKNOWN_RATE
                codes = torch.where(drawn & (codes > _UNKNOWN), _UNKNOWN, codes)
            parts += [embedding(codes[:, place]) for place, embedding in enumerate(self.categories)]
        return torch.cat(parts, dim=1)

    def cross_features(self, x0: torch.Tensor) -> torch.Tensor:
        """Embedded features [B, D] to the vector of the tabular branch."""
        outputs, crossed = [], x0
        if len(self.cross):
            for layer in self.cross:
                crossed = layer(x0, crossed)
            outputs.append(crossed)
        if len(self.deep):
            outputs.append(self.deep(x0))
        return self.project(torch.cat(outputs, dim=1))

    @property
    def feature_of_column(self) -> torch.Tensor:
        """Which feature (numbers first, then categories) each of the D columns of x₀ tells of."""
        owners: list[int] = []
        n_numbers = 0
        if self.numbers is not None:
            n_numbers = len(self.numbers.scaler.center)
            width = self.numbers.out_features // n_numbers
            plain = self.numbers.embed is None  # all values, then all flags
            owners = [
                place % n_numbers if plain else place // width
                for place in range(self.numbers.out_features)
            ]
        for place, embedding in enumerate(self.categories):
            owners += [n_numbers + place] * embedding.embedding_dim
        return torch.tensor(owners, dtype=torch.long)


@dataclass
class JointFusionOutput(ModelOutput):
    """What the model returns.

    Args:
        loss: Weighted sum of the targets' mean losses, where labels were given.
        logits: [B, outputs of all targets].
        embedding: The joint vector before the head [B, hidden_size].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    embedding: torch.Tensor | None = None


class JointFusionModel(PreTrainedModel):
    """Histories and tabular features to one or several targets, end to end.

    Args:
        config: Sizes and choices.

    Example:
        >>> from domainformer.models import DomainTransformerConfig
        >>> backbone = DomainTransformerConfig.preset("tiny", vocab_size=50)
        >>> config = JointFusionConfig(backbone=backbone, n_numbers=2, targets=[
        ...     {"name": "default", "kind": "binary", "outputs": 1},
        ...     {"name": "segment", "kind": "multiclass", "outputs": 3}])
        >>> model = JointFusionModel(config).eval()
        >>> output = model(input_ids=torch.tensor([[1, 5, 0], [1, 5, 9]]),
        ...                attention_mask=torch.tensor([[1, 1, 0], [1, 1, 1]]),
        ...                numbers=torch.tensor([[0.5, float("nan")], [2.0, 1.0]]))
        >>> output.logits.shape, output.embedding.shape
        (torch.Size([2, 4]), torch.Size([2, 192]))
    """

    config: JointFusionConfig
    config_class = JointFusionConfig
    base_model_prefix = "fusion"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = ["DomainTransformerBlock"]

    def __init__(self, config: JointFusionConfig) -> None:
        super().__init__(config)
        self.backbone: DomainTransformerModel | None = None
        self.norm: nn.LayerNorm | None = None
        if isinstance(config.backbone, DomainTransformerConfig):
            self.backbone = DomainTransformerModel(config.backbone)
            self.norm = nn.LayerNorm(config.backbone.hidden_size)
        self.tabular = TabularEncoder(config) if config.reads_tabular else None
        self.head = _mlp(config.hidden_size, config.head_layers, config.head_dropout)
        width = config.head_layers[-1] if config.head_layers else config.hidden_size
        self.score = nn.Linear(width, config.n_outputs)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The backbone draws its own weights; the tabular part and the head as torch does, since
        # the small normal weights of language models start an MLP of three layers near zero.
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (FeatureLinear, PeriodicLinearReLU)):
            module.reset_parameters()
        elif isinstance(module, NumericEncoder) and module.missing is not None:
            init.zeros_(module.missing)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        numbers: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> JointFusionOutput:
        """Predict.

        Args:
            input_ids: Token ids [B, L], one history per row.
            attention_mask: 1 at real tokens [B, L], padded on either side; None: all are real.
            numbers: Raw numbers [B, F], NaN where missing; float64 keeps large ones exact.
            codes: Category codes [B, C].
            labels: [B, targets]: 0 or 1, the class, or the value; NaN where not known.

        Raises:
            DataError: A part that the model reads is not given.
        """
        joint = self.joint_vector(input_ids, attention_mask, numbers, codes)
        logits = self.score(self.head(joint))
        loss = None if labels is None else fusion_loss(logits, labels, self.config.targets)
        return JointFusionOutput(loss=loss, logits=logits, embedding=joint)

    def joint_vector(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        numbers: torch.Tensor | None,
        codes: torch.Tensor | None,
    ) -> torch.Tensor:
        """History and tabular vector side by side [B, hidden_size]; arguments as in forward."""
        self._check_inputs(input_ids, numbers, codes)
        parts = []
        if self.backbone is not None and self.norm is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            hidden = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            ).last_hidden_state
            last = pool_hidden(hidden, {"attention_mask": attention_mask}, how="last")
            parts.append(self.norm(last))
        if self.tabular is not None:
            parts.append(self.tabular(numbers, codes))
        return torch.cat(parts, dim=1)

    def _check_inputs(
        self,
        input_ids: torch.Tensor | None,
        numbers: torch.Tensor | None,
        codes: torch.Tensor | None,
    ) -> None:
        needed = {
            "input_ids": (input_ids, self.config.reads_events),
            "numbers": (numbers, self.config.n_numbers > 0),
            "codes": (codes, len(self.config.category_sizes) > 0),
        }
        absent = [name for name, (given, reads) in needed.items() if reads and given is None]
        if absent:
            raise DataError(
                f"the model reads {' and '.join(absent)}, and none was given",
                next_step="give what the model was trained on",
            )


def fusion_loss(
    logits: torch.Tensor, labels: torch.Tensor, targets: Sequence[dict[str, Any]]
) -> torch.Tensor:
    """Weighted sum over the targets of the mean loss over their known labels.

    Binary: cross-entropy of the sigmoid; multiclass: of the softmax; regression: squared error in
    units of the target's own standard deviation. A target without any known label in the batch
    adds 0.

    Args:
        logits: [B, outputs].
        labels: [B, targets], NaN where not known.
        targets: As in the configuration.

    Example:
        >>> targets = [{"kind": "binary", "outputs": 1}, {"kind": "regression", "outputs": 1}]
        >>> logits = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
        >>> fusion_loss(logits, torch.tensor([[1.0, 1.0], [0.0, float("nan")]]), targets)
        tensor(1.6931)
    """
    logits = logits.float()
    total, start = logits.sum() * 0.0, 0
    for place, target in enumerate(targets):
        stop = start + int(target["outputs"])
        known = ~torch.isnan(labels[:, place])
        mine, truth = logits[known, start:stop], labels[known, place]
        start = stop
        if not len(truth):
            continue
        if target["kind"] == "multiclass":
            loss = F.cross_entropy(mine, truth.long())
        elif target["kind"] == "binary":
            loss = F.binary_cross_entropy_with_logits(mine[:, 0], truth.to(mine.dtype))
        else:
            scaled = (truth - target.get("center", 0.0)) / target.get("scale", 1.0)
            loss = F.mse_loss(mine[:, 0], scaled.to(mine.dtype))
        total = total + float(target.get("weight", 1.0)) * loss
    return total


def _mlp(width: int, layers: Sequence[int], dropout: float) -> nn.Sequential:
    parts: list[nn.Module] = []
    for size in layers:
        parts += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*parts)


__all__ = [
    "DCNv2CrossLayer",
    "JointFusionModel",
    "JointFusionOutput",
    "TabularEncoder",
    "fusion_loss",
]
