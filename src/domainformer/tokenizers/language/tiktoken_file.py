"""A tiktoken file (``base64-of-bytes rank`` per line) as a ``tokenizers.Tokenizer``.

The file holds ranks alone. How a text is cut into words is not in it, and a wrong pattern gives
other ids without any error; therefore the pattern is either that of an encoding whose number of
ranks the file has, or has to be given.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from domainformer.errors import TokenizerError, nearest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": _CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _END,
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CASELESS}?"
    + rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CASELESS}?"
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
    + _END,
}
"""Name → how texts are cut into words: GPT-2 and 3; GPT-3.5 and 4; GPT-4o and later."""

_RANKS = {50_256: "r50k", 50_280: "r50k", 100_256: "cl100k", 199_998: "o200k"}


def tiktoken_backend(
    path: Path, pattern: str | None = None
) -> tuple[Tokenizer, dict[str, str], tuple[str, ...]]:
    """Read a tiktoken file.

    Args:
        path: Often with the ending ``.tiktoken``.
        pattern: A name of `PATTERNS` or a regular expression; None takes that of the encoding
            with as many ranks.

    Returns:
        The tokenizer; no roles, since the file has no special tokens; and what a user should
        know.

    Raises:
        TokenizerError: A line is no rank, a byte has none, or the pattern is not known.
    """
    ranks = _read(path)
    known = _RANKS.get(len(ranks))
    if pattern is None and known is None:
        raise TokenizerError(
            f"{path} does not say how texts are cut into words",
            why=f"it has {len(ranks):,} ranks, which is none of the known encodings",
            next_step=f"give pattern=: one of {', '.join(PATTERNS)}, or a regular expression",
        )
    if pattern is not None and pattern not in PATTERNS and re.fullmatch(r"\w*", pattern):
        # As a regular expression it would find hardly a word, and no error would tell.
        raise TokenizerError(
            f"there is no pattern {pattern!r}", next_step=nearest(pattern, PATTERNS)
        )
    expression = PATTERNS.get(pattern or known or "", pattern or "")
    backend = Tokenizer(models.BPE(*_vocab_and_merges(ranks), ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    cut = f"texts are cut into words as in {pattern or known}"
    return backend, {}, (cut, "the file has no special tokens: name those that the model has")


def _read(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            spelled, rank = line.split()
            token = base64.b64decode(spelled, validate=True)
            if token in ranks or int(rank) < 0:
                raise ValueError(rank)
            ranks[token] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"{path} is no tiktoken file",
                where=f"line {number}",
                why="a line is base64 of a token that is there once, a blank, a rank, and this is "
                f"{line[:40]!r}",
            ) from error
    lacking = [byte for byte in range(256) if bytes([byte]) not in ranks]
    doubled = len(ranks) - len(set(ranks.values()))
    if lacking or doubled:
        first = f"the byte 0x{lacking[0]:02x} has no rank" if lacking else "a rank is there twice"
        raise TokenizerError(
            f"{path} is no complete tiktoken file",
            why=f"{first}; it has {len(ranks):,} ranks",
            next_step="download or write it again",
        )
    return ranks


def _vocab_and_merges(ranks: dict[bytes, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    letters = byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(ranks[a], ranks[b], a, b) for a, b in cuts if a in ranks and b in ranks]
        merges += [(rank, *pair) for pair in pairs]
    ordered = [(spell(a), spell(b)) for *_, a, b in sorted(merges)]
    return {spell(token): rank for token, rank in ranks.items()}, ordered


def byte_letters() -> list[str]:
    """Byte → its letter in byte-level vocabularies: printable ones stand for themselves.

    Example:
        >>> byte_letters()[32], byte_letters()[65]
        ('Ġ', 'A')
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]


def _regex(expression: str) -> Regex:
    try:
        return Regex(expression)
    except Exception as error:
        # `tokenizers` raises a plain Exception for a pattern that it cannot compile.
        raise TokenizerError(
            f"the pattern {expression!r} is no regular expression",
            why=str(error),
            next_step=f"give one of {', '.join(PATTERNS)}, or correct it",
        ) from error
