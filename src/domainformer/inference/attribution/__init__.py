"""Explanations: which fields and events a score is put together from.

Start with :mod:`~domainformer.inference.attribution.explain` (one call from raw rows to an
:class:`Explanation`), then :mod:`~domainformer.inference.attribution.summary` (importances over
many examples, checked by permutation). :mod:`~domainformer.inference.attribution.methods` has the
two methods, :mod:`~domainformer.inference.attribution.scores` what can be explained,
:mod:`~domainformer.inference.attribution.linear` a classifier where there is none yet, and
:mod:`~domainformer.inference.attribution.attention` what is no explanation.
"""

from domainformer.inference.attribution.attention import AttentionMap, attention_map
from domainformer.inference.attribution.explain import explain
from domainformer.inference.attribution.explanation import DISCLAIMER, Explanation
from domainformer.inference.attribution.linear import linear_head
from domainformer.inference.attribution.methods import IntegratedGradients, Occlusion
from domainformer.inference.attribution.summary import (
    AttributionSummary,
    permutation_check,
    rank_agreement,
    summarise,
)

__all__ = [
    "explain",
    "Explanation",
    "IntegratedGradients",
    "Occlusion",
    "summarise",
    "AttributionSummary",
    "permutation_check",
    "rank_agreement",
    "linear_head",
    "attention_map",
    "AttentionMap",
    "DISCLAIMER",
]
