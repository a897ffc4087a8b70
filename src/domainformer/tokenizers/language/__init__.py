"""Tokenizers of plain text, for language models.

::

    character.py     CharacterTokenizer: one id per ASCII character, exact both ways; start here
    files.py         its folder, which AutoTokenizer reads

May import ``data`` and what lies below, and ``tokenizers/hub.py``; never torch or transformers.
"""

from domainformer.tokenizers.language.character import CharacterTokenizer

__all__ = ["CharacterTokenizer"]
