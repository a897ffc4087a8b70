"""What a learned selector of image tokens must beat, in its own interface.

None of these learns anything::

    random, stride               blind
    average_pooling              fewer, larger tokens
    down_sampling                a smaller image, encoded anew
    feature_norm, contrast       what stands out
    token_merging (ToMe)         similar tokens become one
    diversity (DivPrune)         tokens that differ most
    attention_rank (FastV)       what an early layer of the language model looks at
    query_cosine                 what resembles the words of the question
    oracle, everything           the two ends: what is relevant, and the full model

The control that learns the same recipe without the question is
:class:`~domainformer.models.vision.compressor.RelevanceCompressor` with ``use_query=False``.
Start with :func:`baseline`; :data:`BASELINES` lists the names. May import what lies in
:mod:`domainformer.models.vision`, and errors.
"""

from __future__ import annotations

from typing import Any

from domainformer.errors import ConfigError
from domainformer.models.vision.baselines.attention import AttentionRank
from domainformer.models.vision.baselines.blind import (
    AllTokens,
    OracleTokens,
    RandomTokens,
    StrideTokens,
)
from domainformer.models.vision.baselines.diversity import MaxMinDiversity
from domainformer.models.vision.baselines.downsampling import DownSampling
from domainformer.models.vision.baselines.merging import TokenMerging
from domainformer.models.vision.baselines.pooling import AveragePooling
from domainformer.models.vision.baselines.ranks import FeatureContrast, FeatureNorm, QueryCosine
from domainformer.models.vision.baselines.selector import Baseline, Ranker

BASELINES: dict[str, type[Baseline]] = {
    "random": RandomTokens,
    "stride": StrideTokens,
    "average_pooling": AveragePooling,
    "down_sampling": DownSampling,
    "feature_norm": FeatureNorm,
    "contrast": FeatureContrast,
    "token_merging": TokenMerging,
    "diversity": MaxMinDiversity,
    "attention_rank": AttentionRank,
    "query_cosine": QueryCosine,
    "oracle": OracleTokens,
    "everything": AllTokens,
}
"""Every baseline by its name."""


def baseline(name: str, **options: Any) -> Baseline:
    """Build a baseline by its name.

    Args:
        name: a key of :data:`BASELINES`.
        **options: what its class takes.

    Raises:
        ConfigError: an unknown name, or an option that the baseline does not have.

    Example:
        >>> type(baseline("query_cosine", words="max")).__name__
        'QueryCosine'
    """
    if name not in BASELINES:
        raise ConfigError(
            f"there is no baseline {name!r}", next_step=f"one of {', '.join(BASELINES)}"
        )
    try:
        return BASELINES[name](**options)
    except TypeError as error:
        raise ConfigError(
            f"the baseline {name!r} does not take these options",
            where=", ".join(options),
            why=str(error),
        ) from error


__all__ = [
    "BASELINES",
    "AllTokens",
    "AttentionRank",
    "AveragePooling",
    "Baseline",
    "DownSampling",
    "FeatureContrast",
    "FeatureNorm",
    "MaxMinDiversity",
    "OracleTokens",
    "QueryCosine",
    "RandomTokens",
    "Ranker",
    "StrideTokens",
    "TokenMerging",
    "baseline",
]
