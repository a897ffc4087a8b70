"""Configuration of the joint fusion of event histories and tabular features.

Annotations are not deferred here, since ``@strict`` checks values against the types themselves.
"""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from domainformer.models.configuration_domain_transformer import DomainTransformerConfig

TARGET_KINDS = ("binary", "multiclass", "regression")
_FULL_UP_TO = 512  # width of the tabular input up to which "auto" crosses with full matrices
_AUTO_RANK = 64


@strict
class JointFusionConfig(PreTrainedConfig):
    """What a fusion model reads, how it crosses it, and what it predicts.

    Args:
        backbone: Configuration of the Transformer over events; None: tabular features alone.
        n_numbers: Numeric features; with ``category_sizes`` empty too: histories alone.
        category_sizes: Codes of each categorical feature, missing and unknown included.
        numeric_embedding: See :class:`~domainformer.models.numeric.NumericEncoder`.
        numeric_width: Numbers per embedded feature.
        n_frequencies: Frequencies per feature of ``plr``.
        frequency_scale: σ of ``plr``: the sensitive setting, start small.
        n_bins: Bins per feature of ``piecewise``.
        scaling: ``standard`` or ``quantile``.
        n_quantiles: Knots per feature of ``quantile``.
        feature_dropout: Chance that a feature is left out of an example while training: it keeps a
            model of many features that say much the same from leaning on few of them.
        category_width: Widest embedding of a category; a small set gets less.
        cross_layers: DCNv2 layers; 0: none.
        cross_rank: Rank of their matrices, ``full``, or ``auto`` (full up to 512 inputs, 64 above).
        cross_dropout: Dropout of what a cross layer adds.
        deep_layers: Widths of the deep branch; empty: none.
        deep_dropout: Dropout after each of them.
        tabular_width: Width of the tabular vector.
        head_layers: Widths of the head's hidden layers.
        head_dropout: Dropout after each of them.
        targets: Each {"name", "kind", "outputs", "weight", "center", "scale"}: ``kind`` is
            binary (one output), multiclass or regression (one, standardised by center and scale).

    Raises:
        StrictDataclassError: Sizes that do not fit together, an unknown choice, a wrong type.

    Example:
        >>> config = JointFusionConfig(n_numbers=3)
        >>> config.reads_events, config.reads_tabular, config.n_outputs
        (False, True, 1)
    """

    model_type = "domain_joint_fusion"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone": DomainTransformerConfig}

    backbone: dict[str, Any] | DomainTransformerConfig | None = None
    n_numbers: int = 0
    category_sizes: list[int] | tuple[int, ...] = ()
    numeric_embedding: Literal["plain", "linear", "piecewise", "plr"] = "plr"
    numeric_width: int = 8
    n_frequencies: int = 16
    frequency_scale: float | int = 0.01
    n_bins: int = 16
    scaling: Literal["standard", "quantile"] = "quantile"
    n_quantiles: int = 256
    feature_dropout: float | int = 0.0
    category_width: int = 16
    cross_layers: int = 2
    cross_rank: int | str = "auto"
    cross_dropout: float | int = 0.1
    deep_layers: list[int] | tuple[int, ...] = (128, 64)
    deep_dropout: float | int = 0.1
    tabular_width: int = 64
    head_layers: list[int] | tuple[int, ...] = (64,)
    head_dropout: float | int = 0.1
    targets: list[dict[str, Any]] | tuple[dict[str, Any], ...] = (
        {"name": "label", "kind": "binary", "outputs": 1},
    )
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Make a configuration of the backbone's fields."""
        if isinstance(self.backbone, dict):
            known = {key: value for key, value in self.backbone.items() if key != "model_type"}
            self.backbone = DomainTransformerConfig(**known)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check values against each other (called by ``@strict`` when built and when saved)."""
        if not (self.reads_events or self.reads_tabular):
            raise ValueError("there is nothing to read: neither a backbone nor tabular features")
        sizes = ("numeric_width", "n_frequencies", "n_bins", "category_width", "tabular_width")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("n_numbers", "cross_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if self.n_quantiles < 2:
            raise ValueError(f"n_quantiles must be at least 2, not {self.n_quantiles}")
        if self.frequency_scale <= 0:
            raise ValueError(f"frequency_scale must be positive, not {self.frequency_scale}")
        for name in ("feature_dropout", "cross_dropout", "deep_dropout", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if isinstance(self.cross_rank, str):
            if self.cross_rank not in ("auto", "full"):
                raise ValueError(f"cross_rank is a number, auto or full, not {self.cross_rank!r}")
        elif self.cross_rank < 1:
            raise ValueError(f"cross_rank must be at least 1, not {self.cross_rank}")
        if self.reads_tabular and not (self.cross_layers or self.deep_layers):
            raise ValueError("tabular features need cross_layers, deep_layers or both")
        if not self.targets:
            raise ValueError("there is no target")
        for target in self.targets:
            _check_target(target)

    @property
    def reads_events(self) -> bool:
        """Whether the model reads histories."""
        return self.backbone is not None

    @property
    def reads_tabular(self) -> bool:
        """Whether the model reads tabular features."""
        return self.n_numbers > 0 or len(self.category_sizes) > 0

    @property
    def n_outputs(self) -> int:
        """Logits of all targets together."""
        return sum(int(target["outputs"]) for target in self.targets)

    @property
    def hidden_size(self) -> int:
        """Width of the joint vector."""
        known = isinstance(self.backbone, DomainTransformerConfig)
        backbone = self.backbone.hidden_size if known else 0  # type: ignore[union-attr]
        return int(backbone + (self.tabular_width if self.reads_tabular else 0))

    def rank(self, width: int) -> int | None:
        """Rank of the cross layers' matrices for an input of some width; None: full."""
        if self.cross_rank == "auto":
            return None if width <= _FULL_UP_TO else _AUTO_RANK
        return None if self.cross_rank == "full" else int(self.cross_rank)


def _check_target(target: dict[str, Any]) -> None:
    kind, outputs = target.get("kind"), target.get("outputs", 0)
    if kind not in TARGET_KINDS:
        raise ValueError(f"a target is one of {', '.join(TARGET_KINDS)}, not {kind!r}")
    if "name" not in target:
        raise ValueError("a target needs a name")
    if (outputs < 2) if kind == "multiclass" else (outputs != 1):
        raise ValueError(f"{outputs} outputs do not fit the {kind} target {target['name']!r}")


__all__ = ["TARGET_KINDS", "JointFusionConfig"]
