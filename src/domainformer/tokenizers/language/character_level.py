"""CharacterLevelTokenizer: one id per character of any script, in a vocabulary of wanted size.

::

    id   0 …     special tokens
         …       bytes 0x80 … 0xFF, where unknown characters become bytes
         …       characters of your text, the most frequent first
         …       Unicode's characters, from ASCII on, until the vocabulary is full

In ``tokenizer.json`` a character is spelled by its UTF-8 bytes in the byte-level alphabet (é is
``Ã©``, a blank is ``Ġ``): no token holds a blank or a control character, which transformers cannot
have. Every character is a word of its own, so that offsets and word ids are those of characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.fields.bytepair import BYTE_OF, BYTES
from domainformer.tokenizers.language.backed import (
    TextTokenizerBase,
    check_entries,
    specials_of,
)
from domainformer.tokenizers.language.bpe import added
from domainformer.tokenizers.language.specials import SpecialTokens
from domainformer.tokenizers.language.streams import TextSource, read
from domainformer.tokenizers.language.unicode import by_frequency, count_characters, unicode_order
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

LEAST, MOST = 100, 500_000
ROOM_FOR_BYTES = 512
"""From this size on unknown characters become bytes, unless told otherwise."""
UnknownCharacters = Literal["bytes", "unk"]
_ASCII = 128
_HIGH = [char for char, byte in sorted(BYTE_OF.items(), key=lambda item: item[1]) if byte >= _ASCII]


@dataclass(frozen=True)
class CharacterFacts:
    """How much of the text that it was made from has entries.

    Args:
        characters: Of the text.
        distinct: Different ones among these.
        kept: How many of the different ones have an entry.
        covered: How many characters of the text have an entry.
    """

    characters: int
    distinct: int
    kept: int
    covered: int


class CharacterLevelTokenizer(TextTokenizerBase):
    """One id per character, with a declared treatment of those that have none.

    ========= ==================================== =========================================
    unknown   a character without an entry becomes round trip
    ========= ==================================== =========================================
    ``bytes`` the ids of its UTF-8 bytes, 2 to 4   exact, for every text
    ``unk``   the one id of ``<|unk|>``            exact for texts that `unknown_in` finds clean
    ========= ==================================== =========================================

    Args:
        vocab_size: Entries in all, special tokens included: 100 to 500,000. It is met exactly.
        texts: Whose characters come first, as in `FastBPETrainer.train`; None for Unicode alone.
        special_tokens: Their roles. With ``unk`` there is an unknown token, ``<|unk|>`` if none
            is named.
        unknown: As above; None is ``bytes`` from 512 entries on, else ``unk``.
        parse_special_tokens: Whether ``<|endoftext|>`` inside a text is the special token.

    Raises:
        TokenizerError: A setting is out of range, or the special tokens and bytes leave no room.
        DataError: A file cannot be read.

    Example:
        >>> tokenizer = CharacterLevelTokenizer(1_000, ["to be or not to be, Ω"])
        >>> tokenizer.vocab_size, tokenizer.decode(tokenizer.encode("тобе 🐈"))
        (1000, 'тобе 🐈')
        >>> small = CharacterLevelTokenizer(100, ["to be"])
        >>> small.unknown, small.decode(small.encode("to Ω")), small.unknown_in("to Ω")
        ('unk', 'to <|unk|>', ['Ω'])
    """

    KIND: ClassVar[str] = "domainformer.character_level_tokenizer"

    def __init__(
        self,
        vocab_size: int,
        texts: TextSource | None = None,
        *,
        special_tokens: SpecialTokens | None = None,
        unknown: UnknownCharacters | None = None,
        parse_special_tokens: bool = False,
    ) -> None:
        check_entries(vocab_size, LEAST, MOST)
        unknown = unknown or ("bytes" if vocab_size >= ROOM_FOR_BYTES else "unk")
        _check(unknown)
        specials = special_tokens or SpecialTokens()
        if unknown == "unk" and specials.unk is None:
            specials = replace(specials, unk="<|unk|>")
        counts = {} if texts is None else count_characters(_some(texts))
        points = _chosen(vocab_size, specials, unknown, by_frequency(counts))
        vocab = _vocabulary(specials, unknown, spelled(points))
        super().__init__(
            _backend(vocab, specials, unknown), specials, parse_special_tokens=parse_special_tokens
        )
        self.unknown: UnknownCharacters = unknown
        kept = set(map(chr, points.tolist()))
        self.facts = CharacterFacts(
            characters=sum(counts.values()),
            distinct=len(counts),
            kept=len(kept.intersection(counts)),
            covered=sum(count for char, count in counts.items() if char in kept),
        )

    @cached_property
    def characters(self) -> frozenset[str]:
        """The characters that have an entry."""
        first = len(self.special_tokens.tokens) + (len(_HIGH) if self.unknown == "bytes" else 0)
        by_id = sorted(self.backend.get_vocab().items(), key=lambda item: item[1])
        text = "".join(token for token, _ in by_id[first:])
        return frozenset(bytes(map(BYTE_OF.__getitem__, text)).decode())

    def unknown_in(self, text: str) -> list[str]:
        """The distinct characters of a text that have no entry, by code point."""
        return sorted(set(text) - self.characters)

    def to_json(self) -> dict[str, Any]:
        """Size, special tokens, treatment of unknown characters, and share of the text."""
        facts = {"unknown": self.unknown, "text": asdict(self.facts)}
        return super().to_json() | facts

    def render(self) -> str:
        """Size, treatment of unknown characters and share of the text in a few lines."""
        facts = self.facts
        how = {"bytes": "become their UTF-8 bytes: every text comes back as it was"}
        unk = f"become {self.special_tokens.unk}: a text with such characters does not come back"
        lines = [
            f"{self.vocab_size:,} entries; characters without one {how.get(self.unknown, unk)}"
        ]
        if facts.characters:
            share = facts.covered / facts.characters
            lines.append(
                f"{facts.kept:,} of the text's {facts.distinct:,} characters have an entry: "
                f"{share:.4%} of its {facts.characters:,}"
            )
        return "\n".join(lines)

    @classmethod
    def _restore(cls, backend: Tokenizer, state: dict[str, Any]) -> Self:
        tokenizer = cls.__new__(cls)
        parse = bool(state["parse_special_tokens"])
        TextTokenizerBase.__init__(
            tokenizer, backend, specials_of(state), parse_special_tokens=parse
        )
        tokenizer.unknown = state["unknown"]
        tokenizer.facts = CharacterFacts(**state["text"])
        return tokenizer

    def __repr__(self) -> str:
        return f"CharacterLevelTokenizer({self.vocab_size}, unknown={self.unknown!r})"


def _some(texts: TextSource) -> Iterator[str]:
    none = True
    for text, _ in read(texts):
        none = False
        yield text
    if none:
        raise TokenizerError(
            "there is no text", next_step="give texts, or none (texts=None) for Unicode alone"
        )


def spelled(points: npt.NDArray[np.uint32]) -> list[str]:
    """Code points in the byte-level alphabet, as they stand in the vocabulary.

    Example:
        >>> spelled(np.array([ord(" "), ord("é")], np.uint32))
        ['Ġ', 'Ã©']
    """
    letters = {byte: char for char, byte in BYTE_OF.items()}
    utf8 = points.astype("<u4").tobytes().decode("utf-32-le").encode()
    text = utf8.decode("latin-1").translate(letters)
    widths = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    ends = np.cumsum(widths).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _chosen(
    vocab_size: int, specials: SpecialTokens, unknown: UnknownCharacters, found: list[str]
) -> npt.NDArray[np.uint32]:
    """The code points that get an entry, in the order of their ids."""
    fallback = unknown == "bytes"
    room = vocab_size - len(specials.tokens) - (len(_HIGH) if fallback else 0)
    if room < (_ASCII if fallback else 1):
        raise TokenizerError(
            f"{vocab_size} entries have no room for {unknown!r} and the special tokens",
            why=f"these are {len(specials.tokens)}"
            + (f", and {BYTES} bytes need an entry each" if fallback else ""),
            next_step="ask for more entries" + (", or take unknown='unk'" if fallback else ""),
        )
    first = np.array([ord(char) for char in found], np.uint32)
    order = unicode_order()
    if fallback:  # ASCII's bytes are its characters: all of them have to be there
        first = first[(first < _ASCII) | (np.cumsum(first >= _ASCII) <= room - _ASCII)]
        order = np.concatenate([order[order < _ASCII], order[order >= _ASCII]])
    return np.concatenate([first, order[~np.isin(order, first)]])[:room]


def _vocabulary(
    specials: SpecialTokens, unknown: UnknownCharacters, characters: list[str]
) -> dict[str, int]:
    """Token → id."""
    high = _HIGH if unknown == "bytes" else []
    tokens = [*specials.tokens, *high, *characters]
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        clash = next(token for token in specials.tokens if token in {*high, *characters})
        raise TokenizerError(
            f"the special token {clash!r} is spelled like a character of the vocabulary",
            next_step="spell it like <|user|> or [MASK]",
        )
    return vocab


def _backend(
    vocab: dict[str, int], specials: SpecialTokens, unknown: UnknownCharacters
) -> Tokenizer:
    """The vocabulary as a Hugging Face ``tokenizers.Tokenizer``."""
    if unknown == "bytes":
        # Looked up whole first; what is not there falls into its bytes, as nothing is merged.
        model: Any = models.BPE(vocab=vocab, merges=[], ignore_merges=True)
    else:
        model = models.WordLevel(vocab, unk_token=specials.unk)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("(?m:.)"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(added(specials.tokens))
    return tokenizer


def _check(unknown: str) -> None:
    if unknown not in get_args(UnknownCharacters):
        raise TokenizerError(
            f"unknown characters cannot become {unknown!r}",
            next_step=nearest(unknown, get_args(UnknownCharacters)),
        )
