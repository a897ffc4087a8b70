"""Relevance-aware compression of image tokens for vision-language models.

::

    knowing    scorers, coupling       information, salience, and what the question asks for
    balancing  balancer                how much each counts, for this question
    attending  budget, allocator       how many tokens an image needs, and which
    realising  realizer                the language model reads these, where they stood

Start with :class:`RelevanceRealizer`, which joins any vision-language model of transformers
(``capabilities`` finds out what it can do) with a :class:`TokenSelector`: the learned
:class:`RelevanceCompressor`, one of ``baselines``, or your own. ``soft`` and ``gates`` are for
training it, ``folder`` for saving it. May import ``artifacts``, ``version`` and ``errors``.
"""

from domainformer.models.vision.allocator import TokenAllocator, kept_tokens, top_tokens
from domainformer.models.vision.balancer import Balanced, TensionBalancer
from domainformer.models.vision.budget import BudgetCalculator
from domainformer.models.vision.capabilities import VisionBase
from domainformer.models.vision.compressed import CompressedInputs
from domainformer.models.vision.compressor import RelevanceCompressor, Scored
from domainformer.models.vision.compressor_config import CompressorConfig
from domainformer.models.vision.coupling import CouplingScorer
from domainformer.models.vision.gates import TemperatureSchedule, harden, open_gate, threshold_gate
from domainformer.models.vision.inputs import Budgets, resolve_budgets
from domainformer.models.vision.merging import Merged, merge_dropped
from domainformer.models.vision.realizer import RelevanceRealizer
from domainformer.models.vision.request import (
    CompressionRequest,
    Grid,
    ImageTokens,
    Selection,
    TokenSelector,
)
from domainformer.models.vision.scorers import InformationScorer, SalienceScorer, Scorer
from domainformer.models.vision.shortening import full_inputs, realize
from domainformer.models.vision.soft import SoftOutput

__all__ = [
    "CompressionRequest",
    "Grid",
    "ImageTokens",
    "Selection",
    "TokenSelector",
    "CompressorConfig",
    "RelevanceCompressor",
    "Scored",
    "Scorer",
    "InformationScorer",
    "SalienceScorer",
    "CouplingScorer",
    "TensionBalancer",
    "Balanced",
    "BudgetCalculator",
    "TokenAllocator",
    "kept_tokens",
    "top_tokens",
    "threshold_gate",
    "harden",
    "open_gate",
    "TemperatureSchedule",
    "merge_dropped",
    "Merged",
    "VisionBase",
    "RelevanceRealizer",
    "CompressedInputs",
    "SoftOutput",
    "realize",
    "full_inputs",
    "Budgets",
    "resolve_budgets",
]
