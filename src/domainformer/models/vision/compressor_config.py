"""What a :class:`RelevanceCompressor` is built from, as plain values that a folder can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from domainformer.errors import ConfigError, nearest
from domainformer.models.vision.allocator import TokenAllocator
from domainformer.models.vision.budget import BudgetCalculator, BudgetRule

SCORERS = ("information", "salience", "coupling")


@dataclass(frozen=True)
class CompressorConfig:
    """What a :class:`RelevanceCompressor` is built from.

    Args:
        feature_size: D, of the image tokens that the tower gives to the language model.
        query_size: E, of the language model's text embeddings; None: D, as in most models.
        width: of the coupling network; even, divisible by ``heads``.
        heads: of the coupling network.
        scorers: which ways of knowing are balanced, of ``information``, ``salience``, ``coupling``.
        use_query: False builds the control that never sees the question.
        min_tokens: fewest tokens per image where the budget is dynamic.
        max_tokens: most tokens per image where the budget is dynamic.
        budget_rule: how many tokens a dynamic budget takes, see :class:`BudgetCalculator`.
        share: of relevance to keep by the rule ``mass``.
        context: least odds, as a share of the best token's, to be kept by rank; the rest of a
            budget goes to the lowest scores, see
            :func:`~domainformer.models.vision.allocator.kept_tokens`. 0: all by rank.
        merge: average dropped tokens into the most similar kept one.

    Raises:
        ConfigError: an impossible value, told with its name.

    Example:
        >>> config = CompressorConfig(feature_size=128, min_tokens=4)
        >>> CompressorConfig.from_json(config.to_json()) == config
        True
    """

    feature_size: int
    query_size: int | None = None
    width: int = 64
    heads: int = 4
    scorers: tuple[str, ...] = SCORERS
    use_query: bool = True
    min_tokens: int = 64
    max_tokens: int = 400
    budget_rule: BudgetRule = "gate"
    share: float = 0.9
    context: float = 0.0
    merge: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scorers", tuple(self.scorers))
        for size in ("feature_size", "query_size"):
            value = getattr(self, size)
            if value is not None and value < 1:
                raise ConfigError(f"{size} must be at least 1", why=f"it is {value}")
        for scorer in self.scorers:
            if scorer not in SCORERS:
                raise ConfigError(
                    f"there is no scorer {scorer!r}", next_step=nearest(scorer, SCORERS)
                )
        if not self.scorers or len(set(self.scorers)) < len(self.scorers):
            raise ConfigError(
                "a compressor needs at least one scorer, and each once", why=f"{self.scorers}"
            )
        _ = self.calculator, self.allocator  # which check their own values

    @property
    def calculator(self) -> BudgetCalculator:
        """How many tokens an image gets where the request does not say."""
        return BudgetCalculator(self.budget_rule, self.share)

    @property
    def allocator(self) -> TokenAllocator:
        """Within which bounds."""
        return TokenAllocator(self.min_tokens, self.max_tokens, self.context)

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return {**asdict(self), "scorers": list(self.scorers)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompressorConfig:
        """From plain values; a name that it does not know is an error."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"a compressor has no setting {name!r}", next_step=nearest(name, known)
                )
        if "feature_size" not in values:
            raise ConfigError("a compressor's configuration must tell feature_size")
        return cls(**values)

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> CompressorConfig:
        """From JSON text."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError("a compressor's configuration is not JSON", why=str(error)) from error
        return cls.from_dict(values)
