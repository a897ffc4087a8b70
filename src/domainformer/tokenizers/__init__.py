"""From events to ids of one vocabulary, and back.

::

    base.py, fields/      one tokenizer per kind of field: a column to small integers
    slots.py              how the fields share one vocabulary; the positions of an event
    semantic/             entities as a few codes, from what they are like
    merges/               one token for what often occurs together (ActionPiece)
    language/             plain text for language models: characters, BPE
    domain.py             DomainTokenizer: fit, encode, decode, save: start here
    statistics/, fitting.py                          what a fit knows: mergeable, bounded
    encoder.py, spans.py, kernels/                   its bulk path: columns, codes, ids
    events.py, decoder.py                            its single-event and inverse paths
    vocabulary.py, hub.py, builder.py                Hugging Face: files, tokens, builder
    change/               extend, drift, diff_tokenizers: when data change
    inspection/           what the tokens say, and whether the tokenizer keeps its promises

May import ``data``, ``schema`` and what lies below; never ``models``. torch and transformers are
imported by ``hub.py`` alone, inside functions.
"""

from domainformer.tokenizers.base import FieldTokenizer, Ragged, SlotRange
from domainformer.tokenizers.builder import DomainTokenizerBuilder
from domainformer.tokenizers.change import (
    DriftReport,
    ExtendResult,
    FieldDiff,
    SlotDrift,
    TokenizerDiff,
    diff_tokenizers,
    drift,
    extend,
)
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fields import (
    CalendarTokenizer,
    CategoricalTokenizer,
    DiscreteTokenizer,
    ElapsedTimeTokenizer,
    EntityIdTokenizer,
    MagnitudeBucketTokenizer,
    SemanticIdTokenizer,
    SignTokenizer,
    TextTokenizer,
    train_bpe,
)
from domainformer.tokenizers.fitting import FitStatistics
from domainformer.tokenizers.hub import add_domain_tokens
from domainformer.tokenizers.inspection import (
    AnnotatedEvent,
    ValidationReport,
    annotate_event,
    describe_merges,
    describe_tokenizer,
    describe_vocabulary,
    render_vocabulary,
    validate_tokenizer,
)
from domainformer.tokenizers.language import (
    KNOWN_TOKENIZERS,
    AdaptiveTokenizer,
    CharacterLevelTokenizer,
    CharacterTokenizer,
    FastBPETrainer,
    SpecialTokens,
    TokenizerValidator,
    TrainedBPE,
)
from domainformer.tokenizers.merges import (
    ActionPieceMerges,
    MergesResult,
    PermutedSequenceDataset,
    learn_merges,
)
from domainformer.tokenizers.reference import Reference
from domainformer.tokenizers.semantic import EntityFeaturePlan, SemanticIds, fit_semantic_ids
from domainformer.tokenizers.slots import Block, Layout, Slot

__all__ = [
    "DomainTokenizer",
    "DomainTokenizerBuilder",
    "FitStatistics",
    "add_domain_tokens",
    "extend",
    "ExtendResult",
    "diff_tokenizers",
    "TokenizerDiff",
    "FieldDiff",
    "drift",
    "DriftReport",
    "SlotDrift",
    "Reference",
    "Slot",
    "Block",
    "Layout",
    "FieldTokenizer",
    "Ragged",
    "SlotRange",
    "SignTokenizer",
    "MagnitudeBucketTokenizer",
    "DiscreteTokenizer",
    "CategoricalTokenizer",
    "EntityIdTokenizer",
    "SemanticIdTokenizer",
    "fit_semantic_ids",
    "SemanticIds",
    "EntityFeaturePlan",
    "ActionPieceMerges",
    "learn_merges",
    "MergesResult",
    "PermutedSequenceDataset",
    "CalendarTokenizer",
    "ElapsedTimeTokenizer",
    "CharacterTokenizer",
    "CharacterLevelTokenizer",
    "FastBPETrainer",
    "AdaptiveTokenizer",
    "TokenizerValidator",
    "KNOWN_TOKENIZERS",
    "TrainedBPE",
    "SpecialTokens",
    "TextTokenizer",
    "train_bpe",
    "describe_tokenizer",
    "describe_vocabulary",
    "describe_merges",
    "render_vocabulary",
    "annotate_event",
    "AnnotatedEvent",
    "validate_tokenizer",
    "ValidationReport",
]
