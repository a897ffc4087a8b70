"""Tokenizers of plain text, for language models.

::

    character.py         CharacterTokenizer: one id per ASCII character, the fastest; start here
    files.py             its folder, which AutoTokenizer reads
    bpe.py               FastBPETrainer: a byte-level BPE of your text, 5,000 to 100,000 entries
    character_level.py   CharacterLevelTokenizer: one id per character of any script
    unicode.py           which characters that has
    specials.py          SpecialTokens: their roles
    streams.py           texts from lists, generators and files, in pieces
    backed.py            what the last two tokenizers share: ids, files, the way to transformers
    adaptive.py          AdaptiveTokenizer: one of four tiers, and why (tiers.py, adaptive_tiers.py)
    known.py             KNOWN_TOKENIZERS: released ones, their two sizes, and what a size suggests
    pretrained.py        tier 1: from a folder, the local cache or the hub
    own_files.py         tier 4: a user's own tokenizer.json, SentencePiece, tiktoken or merges
    text_cache.py        trained tokenizers by the content of their texts
    validator.py         TokenizerValidator: seven promises (text_checks.py), on any tokenizer

May import ``data`` and what lies below, ``tokenizers/hub.py`` and ``tokenizers/fields``; never
torch, and transformers in ``pretrained.py`` alone, inside functions.
"""

from domainformer.tokenizers.language.adaptive import AdaptiveTokenizer
from domainformer.tokenizers.language.adaptive_files import is_text_tokenizer, open_text_tokenizer
from domainformer.tokenizers.language.bpe import (
    FastBPETrainer,
    TrainedBPE,
    TrainingFacts,
    TrainingProgress,
)
from domainformer.tokenizers.language.character import CharacterTokenizer
from domainformer.tokenizers.language.character_level import CharacterLevelTokenizer
from domainformer.tokenizers.language.known import (
    KNOWN_TOKENIZERS,
    KnownTokenizer,
    Suggestion,
    suggest,
)
from domainformer.tokenizers.language.own_files import OwnFile, open_own_file
from domainformer.tokenizers.language.specials import SpecialTokens
from domainformer.tokenizers.language.tiers import Choice, Considered
from domainformer.tokenizers.language.validator import TokenizerValidation, TokenizerValidator

__all__ = [
    "CharacterTokenizer",
    "CharacterLevelTokenizer",
    "AdaptiveTokenizer",
    "Choice",
    "Considered",
    "FastBPETrainer",
    "KNOWN_TOKENIZERS",
    "KnownTokenizer",
    "Suggestion",
    "suggest",
    "OwnFile",
    "open_own_file",
    "open_text_tokenizer",
    "is_text_tokenizer",
    "TokenizerValidation",
    "TokenizerValidator",
    "SpecialTokens",
    "TrainedBPE",
    "TrainingFacts",
    "TrainingProgress",
]
