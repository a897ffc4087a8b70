"""KNOWN_TOKENIZERS: released tokenizers by their hub ids, and which of them a size suggests.

A model has two sizes, and they often differ::

    len(tokenizer)    ids that text can become      151,665   Qwen/Qwen2.5-0.5B
    embedding rows    ids that the model accepts    151,936   (padded to a multiple of 128)

Hence a size alone never decides: it *suggests* every entry that has it as either of the two, and
says which. 32,000 is Llama 2, Mistral 7B, XLNet and others, which share nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.language.known_table import KINDS, ROWS, SPECIALS

Match = Literal["tokenizer and rows", "tokenizer", "rows"]


@dataclass(frozen=True)
class KnownTokenizer:
    """A released tokenizer and the model it came with.

    Args:
        name: Its id on the Hugging Face hub.
        size: ``len(tokenizer)``: entries with those that were added.
        rows: Rows of the released model's input embedding.
        kind: Such as "byte-level BPE" or "WordPiece".
        specials: Role (bos, eos, unk, sep, pad, cls, mask) → token, as the files name them.
        model_type: Of the transformers configuration class.
        rows_are_default: Whether the default ``vocab_size`` of that class is ``rows``. A test
            reads the class and holds this, true or false.
        license: Of the model on the hub.
        gated: Whether the hub asks to log in and accept terms first.
        python: Whether the tokenizer is Python code, which gives no offsets.
    """

    name: str
    size: int
    rows: int
    kind: str
    specials: Mapping[str, str]
    model_type: str
    rows_are_default: bool
    license: str
    gated: bool = False
    python: bool = False

    @property
    def unverified(self) -> tuple[str, ...]:
        """The sizes that rest on memory alone: no configuration class of transformers has them.

        Example:
            >>> KNOWN_TOKENIZERS["microsoft/phi-2"].unverified
            ('size',)
            >>> KNOWN_TOKENIZERS["Qwen/Qwen2.5-7B"].unverified
            ('size', 'rows')
        """
        return ("size",) if self.rows_are_default else ("size", "rows")

    @property
    def padding(self) -> int:
        """Rows without a token; negative where the tokenizer has ids that the model lacks."""
        return self.rows - self.size

    def describe(self) -> str:
        """One line for people.

        Example:
            >>> KNOWN_TOKENIZERS["microsoft/phi-2"].describe()
            'microsoft/phi-2: 50,295 tokens, 51,200 rows, byte-level BPE, MIT'
        """
        sizes = f"{self.size:,} tokens, {self.rows:,} rows"
        terms = f"{self.license}, terms to be accepted on the hub" if self.gated else self.license
        return f"{self.name}: {sizes}, {self.kind}, {terms}"


@dataclass(frozen=True)
class Suggestion:
    """A known tokenizer that a vocabulary size may mean.

    Args:
        known: The entry.
        match: Which of its sizes it is.
    """

    known: KnownTokenizer
    match: Match

    def describe(self) -> str:
        """One line that says what matches."""
        matched = {
            "tokenizer and rows": "both the tokenizer and the embedding have this size",
            "tokenizer": f"the tokenizer has this size, the embedding {self.known.rows:,} rows",
            "rows": f"the embedding has this size, the tokenizer {self.known.size:,} entries",
        }
        return f"{self.known.name}: {matched[self.match]}"


def suggest(vocab_size: int) -> list[Suggestion]:
    """The known tokenizers that a vocabulary size may mean; never a decision.

    Args:
        vocab_size: Of the model or the tokenizer.

    Returns:
        Entries whose tokenizer and embedding both have this size, then those whose tokenizer has
        it, then those whose embedding has it.

    Example:
        >>> [(s.known.name, s.match) for s in suggest(50_295)]
        [('microsoft/phi-2', 'tokenizer'), ('Salesforce/codegen-350M-mono', 'tokenizer')]
        >>> len(suggest(32_000)) > 4, suggest(31_999)
        (True, [])
    """
    order: tuple[Match, ...] = ("tokenizer and rows", "tokenizer", "rows")
    found = [
        Suggestion(known, match)
        for known in KNOWN_TOKENIZERS.values()
        if (match := _match(known, vocab_size)) is not None
    ]
    return sorted(found, key=lambda suggestion: order.index(suggestion.match))


def known_tokenizer(name: str) -> KnownTokenizer:
    """The entry of a hub id.

    Raises:
        TokenizerError: There is none; the nearest is named.
    """
    if name not in KNOWN_TOKENIZERS:
        raise TokenizerError(
            f"KNOWN_TOKENIZERS has no {name!r}", next_step=nearest(name, KNOWN_TOKENIZERS)
        )
    return KNOWN_TOKENIZERS[name]


def _match(known: KnownTokenizer, size: int) -> Match | None:
    if size == known.size:
        return "tokenizer and rows" if size == known.rows else "tokenizer"
    return "rows" if size == known.rows else None


def _read(line: str) -> KnownTokenizer:
    size, rows, kind, specials, flag, terms, model_type, name = line.split()
    return KnownTokenizer(
        name=name,
        size=int(size),
        rows=int(rows),
        kind=KINDS[kind],
        specials=MappingProxyType(SPECIALS[specials]),
        model_type=model_type[1:],
        rows_are_default=model_type[0] == "=",
        license=terms,
        gated=flag == "G",
        python=flag == "P",
    )


KNOWN_TOKENIZERS: Mapping[str, KnownTokenizer] = MappingProxyType(
    {known.name: known for known in map(_read, ROWS.strip().splitlines())}
)
"""Hub id → `KnownTokenizer`, in the order of the table."""
