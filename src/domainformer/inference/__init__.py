"""Using a trained model: load it with its tokenizer, embed histories, generate future events.

Start with :mod:`~domainformer.inference.bundle` (one folder, model and tokenizer together), then
:mod:`~domainformer.inference.embed` (a vector per entity) and
:mod:`~domainformer.inference.generate` (future events, well formed by
:mod:`~domainformer.inference.grammar`). :mod:`~domainformer.inference.fusion` predicts from raw
rows of events and tabular features; :mod:`~domainformer.inference.recommend` ranks next items (by
beams over a bundle's tokens, or with :mod:`~domainformer.inference.items`);
:mod:`~domainformer.inference.attribution` explains scores. May import models, tokenizers, data and
everything below; never training or evaluation.
"""

from domainformer.inference.attribution import (
    AttentionMap,
    AttributionSummary,
    Explanation,
    IntegratedGradients,
    Occlusion,
    attention_map,
    explain,
    linear_head,
    permutation_check,
    summarise,
)
from domainformer.inference.bundle import Bundle, is_bundle, load_bundle, save_bundle
from domainformer.inference.embed import embed, embed_to_parquet
from domainformer.inference.extension import BundleExtension, extend_bundle
from domainformer.inference.fusion import FusionPredictor, FusionTarget
from domainformer.inference.generate import Sampling, generate
from domainformer.inference.grammar import GrammarState, SlotGrammar
from domainformer.inference.items import ItemRecommender
from domainformer.inference.late_fusion import late_fusion_frame
from domainformer.inference.recommend import recommend

__all__ = [
    "Bundle",
    "is_bundle",
    "load_bundle",
    "save_bundle",
    "extend_bundle",
    "BundleExtension",
    "embed",
    "embed_to_parquet",
    "FusionPredictor",
    "FusionTarget",
    "late_fusion_frame",
    "ItemRecommender",
    "recommend",
    "explain",
    "Explanation",
    "IntegratedGradients",
    "Occlusion",
    "summarise",
    "AttributionSummary",
    "permutation_check",
    "linear_head",
    "attention_map",
    "AttentionMap",
    "generate",
    "Sampling",
    "SlotGrammar",
    "GrammarState",
]
