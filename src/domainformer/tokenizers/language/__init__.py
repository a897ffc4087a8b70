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

May import ``data`` and what lies below, ``tokenizers/hub.py`` and ``tokenizers/fields``; never
torch or transformers.
"""

from domainformer.tokenizers.language.bpe import (
    FastBPETrainer,
    TrainedBPE,
    TrainingFacts,
    TrainingProgress,
)
from domainformer.tokenizers.language.character import CharacterTokenizer
from domainformer.tokenizers.language.character_level import CharacterLevelTokenizer
from domainformer.tokenizers.language.specials import SpecialTokens

__all__ = [
    "CharacterTokenizer",
    "CharacterLevelTokenizer",
    "FastBPETrainer",
    "SpecialTokens",
    "TrainedBPE",
    "TrainingFacts",
    "TrainingProgress",
]
