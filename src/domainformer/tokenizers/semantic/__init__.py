"""Semantic ids: an entity as a few codes that like entities share, and a number.

::

    fit.py         fit_semantic_ids: from tables to a tokenizer and a report: start here
    tokenizer.py   SemanticIdTokenizer: entity to ids and back, new entities
    items.py       entities as rows; blocks.py, cooccurrence.py, sparse.py, sentences.py and
    features.py    turn the rows into standardised vectors
    kmeans.py, rqvae.py (settings.py)  fit codebooks; quantizer.py uses them
    codes.py       the number that tells apart; trie.py: which ids exist
    report.py      usage, collisions, reconstruction, neighbours; collapse is an error
    model.py, files.py, wiring.py   new entities, folders, fields of a schema

May import ``data``, ``schema``, ``tokenizers.base`` and what `fields` has for columns and lookup
tables. torch is imported by ``rqvae.py`` alone, which only training loads; a sentence-embedding
model by ``sentences.py``, inside a function.
"""

from domainformer.tokenizers.semantic.features import EntityFeaturePlan, EntityFeatures
from domainformer.tokenizers.semantic.fit import SemanticIds, fit_semantic_ids
from domainformer.tokenizers.semantic.kmeans import residual_kmeans
from domainformer.tokenizers.semantic.model import SemanticModel
from domainformer.tokenizers.semantic.quantizer import Quantizer
from domainformer.tokenizers.semantic.report import SemanticReport
from domainformer.tokenizers.semantic.settings import RQVAESettings
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer
from domainformer.tokenizers.semantic.trie import PrefixTrie

__all__ = [
    "fit_semantic_ids",
    "SemanticIds",
    "SemanticReport",
    "SemanticIdTokenizer",
    "EntityFeaturePlan",
    "EntityFeatures",
    "RQVAESettings",
    "SemanticModel",
    "Quantizer",
    "PrefixTrie",
    "residual_kmeans",
]
