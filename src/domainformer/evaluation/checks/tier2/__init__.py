"""Tier 2, minutes: how does the model compute what it computes?

``attention.py``, ``gradient_flow.py`` and ``units.py`` look inside; ``entropy.py`` holds the loss
against the entropy of data, ``lengths.py``, ``cost.py`` and ``precision.py`` look at its use.
"""

from domainformer.evaluation.checks.context import Check
from domainformer.evaluation.checks.tier1.invariants import check_padding
from domainformer.evaluation.checks.tier2.attention import check_attention
from domainformer.evaluation.checks.tier2.cost import check_flops, check_memory
from domainformer.evaluation.checks.tier2.entropy import (
    check_source_entropy,
    check_text_entropy,
)
from domainformer.evaluation.checks.tier2.gradient_flow import check_gradient_flow
from domainformer.evaluation.checks.tier2.lengths import check_lengths
from domainformer.evaluation.checks.tier2.precision import check_precision
from domainformer.evaluation.checks.tier2.units import check_dead_units

CHECKS: dict[str, Check] = {
    "padding_invariance": check_padding,
    "lengths": check_lengths,
    "attention": check_attention,
    "gradient_flow": check_gradient_flow,
    "dead_units": check_dead_units,
    "source_entropy": check_source_entropy,
    "text_entropy": check_text_entropy,
    "memory": check_memory,
    "flops": check_flops,
    "precision": check_precision,
}

__all__ = ["CHECKS"]
