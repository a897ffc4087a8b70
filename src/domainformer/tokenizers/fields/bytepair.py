"""The byte-level BPE model that all text fields share: training, escaping, encoding, truncating.

Text is cut into words (GPT-2's pattern), each word into UTF-8 bytes, and bytes are merged by the
learned merges, so that any text can be encoded and gives its bytes back::

    "corner shop"  ─escape─▶ ─words─▶  corner | ␣shop  ─merges─▶  [cor, ner, ␣shop]

Special tokens are found in a string before anything else, so *text that looks like a token* has to
be told apart from a token. `BytePairModel.escape` puts U+E000, a private-use character that no
token contains, behind its bracket; a text that already has U+E000 gets each of them doubled. This
is undone by `unescape`, and every path (columns, single events, rendered strings) goes through it.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; byte level:
Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from domainformer.errors import TokenizerError
from domainformer.tokenizers.kernels.merging import Merges
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

GUARD = "\ue000"
"""The private-use character behind a bracket that starts no token."""

BYTES = 256
# The trainer takes no weights, so a text is repeated; above this many its count is scaled down.
_MOST_TEXTS = 200_000
_BRACKETED = re.compile(r"\[[^\[\]]*\]")
_GUARDED = re.compile(f"{GUARD}({GUARD}?)")
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The pattern of HF's ByteLevel pre-tokenizer (GPT-2's)."""
# Longer texts go to the Hugging Face path, whose pattern matcher has no stack to overflow.
_LONGEST_FAST_TEXT = 1_000


def train_bpe(
    texts: Sequence[str],
    counts: Sequence[int],
    vocab_size: int,
    special_tokens: Sequence[str] = (),
) -> Tokenizer:
    """Train a byte-level BPE on distinct texts weighted by their counts.

    Ids: ``special_tokens`` first, in their order, then the 256 bytes, then the merges. Beyond
    200,000 texts in all, counts are scaled down in proportion (and to 1 at least).

    Args:
        texts: Distinct texts; may be empty, which gives the bytes alone.
        counts: How often each occurs.
        vocab_size: Most bytes and merges together, without the special tokens; at least 256. There
            are fewer where the texts have nothing more to merge.
        special_tokens: Tokens that are matched whole and never split.

    Raises:
        TokenizerError: The vocabulary has no room for the bytes.

    Example:
        >>> bpe = train_bpe(["low lower lowest"], [10], 259, ["[PAD]"])
        >>> bpe.encode("lowest").tokens, bpe.token_to_id("[PAD]")
        (['low', 'e', 's', 't'], 0)
    """
    if vocab_size < BYTES:
        raise TokenizerError(
            f"a byte-level vocabulary of {vocab_size} tokens is too small",
            why=f"each of the {BYTES} bytes needs a token, so that any text can be encoded",
            next_step="set bpe_vocab_size to 256 or more; 4096 suits short descriptions",
        )
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size + len(special_tokens),
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(texts, counts), trainer)
    return tokenizer


def _repeated(texts: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    share = min(1.0, _MOST_TEXTS / max(sum(counts), 1))
    for text, count in zip(texts, counts, strict=True):
        for _ in range(max(1, round(count * share))):
            yield text


def byte_level(model: Any) -> Tokenizer:
    """A tokenizer of UTF-8 bytes that cuts words by GPT-2's pattern."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unescape(text: str) -> str:
    """The text that `BytePairModel.escape` was given.

    Example:
        >>> unescape("[" + GUARD + "PAD]"), unescape(GUARD + GUARD) == GUARD
        ('[PAD]', True)
    """
    return _GUARDED.sub(r"\1", text) if GUARD in text else text


class Truncated(NamedTuple):
    """A text within its budget, and its ids."""

    text: str
    ids: list[int]


class BytePairModel:
    """A trained byte-level BPE with ids from 0 on, whatever stands before it in the vocabulary.

    With tiktoken installed (extra ``fast``), printable ASCII texts are encoded by it: for these
    its word pattern means the same, and the constructor proves that its merge rule gives the same
    ids for this vocabulary; where it cannot, everything takes the Hugging Face path.

    Args:
        tokenizer: A Hugging Face tokenizer made by `train_bpe`, or one that was loaded from its
            saved file. Its special tokens are what `escape` guards against.
        fast: False keeps to the Hugging Face path.

    Attributes:
        tokens: Id → token in byte-level spelling (``"Ġshop"``).
        spelt: Id → the bytes that it stands for.
        first_id: The id of ``tokens[0]`` in the tokenizer's own vocabulary.

    Example:
        >>> bpe = BytePairModel(train_bpe(["low low"], [1], 258, ["[PAD]"]))
        >>> ids = bpe.encode("low [PAD]")
        >>> bpe.decode(ids)
        'low [PAD]'
    """

    def __init__(self, tokenizer: Tokenizer, *, fast: bool = True) -> None:
        model = json.loads(tokenizer.to_str())["model"]
        self.specials = frozenset(t.content for t in tokenizer.get_added_tokens_decoder().values())
        own = [token for token in model["vocab"] if token not in self.specials]
        own.sort(key=model["vocab"].__getitem__)
        self.tokens: list[str] = own
        self.first_id = int(model["vocab"][own[0]])
        merges = [tuple(pair) for pair in model["merges"]]
        vocab = {token: index for index, token in enumerate(own)}
        self._vocab, self._merges = vocab, merges
        self._tokenizer = byte_level(models.BPE(vocab=vocab, merges=merges))
        self.spelt = [_token_bytes(token) for token in own]
        self.longest = max(map(len, self.spelt))
        self._fast = _tiktoken(self.spelt, vocab, merges) if fast else None

    @cached_property
    def merges(self) -> Merges:
        """The model as arrays, for the compiled loop over plain texts (`kernels.merging`)."""
        return Merges.of(self.spelt, self._vocab, self._merges)

    def escape(self, text: str) -> str:
        """The text as it is encoded and rendered: no special token can be found in it.

        Example:
            >>> BytePairModel(train_bpe([], [], 256, ["[PAD]"])).escape("[PAD] [x]") == (
            ...     "[" + GUARD + "PAD] [x]")
            True
        """
        if GUARD in text:
            text = text.replace(GUARD, GUARD + GUARD)
        return _BRACKETED.sub(self._guarded, text) if "[" in text else text

    def _guarded(self, match: re.Match[str]) -> str:
        found = match[0]
        return f"[{GUARD}{found[1:]}" if found in self.specials else found

    def encode(self, text: str) -> list[int]:
        """Ids of one text, escaped first."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, each escaped first."""
        escaped = [self.escape(text) for text in texts]
        if self._fast is None:
            return self._encode_plain(escaped)
        encode = self._fast.encode_ordinary
        rows: list[Any] = [
            encode(text)
            if len(text) <= _LONGEST_FAST_TEXT and text.isascii() and text.isprintable()
            else None
            for text in escaped
        ]
        rest = [index for index, row in enumerate(rows) if row is None]
        slow = self._encode_plain([escaped[index] for index in rest])
        for index, row in zip(rest, slow, strict=True):
            rows[index] = row
        return rows

    def _encode_plain(self, escaped: list[str]) -> list[list[int]]:
        if not escaped:
            return []
        encodings = self._tokenizer.encode_batch_fast(escaped, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def truncate(self, texts: Sequence[str], budget: int) -> list[Truncated]:
        """Each text cut to at most ``budget`` ids, and its ids, which encode the cut text itself.

        A text over budget keeps what its first ``budget`` ids spell, back to a whole character;
        where that prefix alone happens to encode longer, it loses further characters.

        Example:
            >>> bpe = BytePairModel(train_bpe(["low low"], [1], 258))
            >>> bpe.truncate(["low", "low tide"], 3)[1].text
            'low t'
        """
        # No token is longer than `longest`, so the rest of a very long text cannot count.
        kept = [text[: budget * self.longest] for text in texts]
        rows = self.encode_batch(kept)
        over = [index for index, row in enumerate(rows) if len(row) > budget]
        for index in over:
            spelt = b"".join(self.spelt[token] for token in rows[index][:budget])
            kept[index] = unescape(spelt.decode("utf-8", errors="ignore"))
        while over:
            for index, row in zip(over, self.encode_batch([kept[i] for i in over]), strict=True):
                rows[index] = row
            over = [index for index in over if len(rows[index]) > budget]
            for index in over:
                kept[index] = kept[index][:-1]
        return [Truncated(text, row) for text, row in zip(kept, rows, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text that the ids spell; bytes that are no UTF-8 become U+FFFD."""
        spelt = b"".join(self.spelt[token] for token in ids)
        return unescape(spelt.decode("utf-8", errors="replace"))


def _byte_of_character() -> dict[str, int]:
    """The byte-level alphabet: a printable character for each byte (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(BYTES) if byte not in set(shown)]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(BYTES + index): byte for index, byte in enumerate(hidden)}


BYTE_OF = _byte_of_character()
"""Character of the byte-level alphabet → byte."""


def _token_bytes(token: str) -> bytes:
    return bytes(BYTE_OF[character] for character in token)


def _tiktoken(
    token_bytes: list[bytes], vocab: dict[str, int], merges: list[tuple[str, str]]
) -> Any | None:
    """A tiktoken encoding proven equal to the merges, or None.

    tiktoken joins two neighbours whenever their union is a token, by the union's rank; BPE joins
    only the pair that was learned. They agree if (1) merge k makes token 256 + k, so that ranks
    and pairs are in the same order and no token is made twice, and (2) each token, encoded alone,
    becomes itself. Proof of the step that matters: let the neighbours x, y have a union T that
    was learned from another pair. Up to here nothing was merged across the borders of this
    stretch, so T encoded alone would pass through the same x, y, and, as its one learned pair
    is another, would stop there: it would not become itself, against (2).
    """
    try:
        import tiktoken
    except ImportError:
        return None
    made = [vocab.get(left + right) for left, right in merges]
    if made != list(range(BYTES, BYTES + len(merges))) or len(vocab) != BYTES + len(merges):
        return None
    bare = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    alone = bare.encode_batch_fast(list(vocab), add_special_tokens=False)
    if any(encoding.ids != [index] for index, encoding in enumerate(alone)):
        return None
    ranks = {spelt: index for index, spelt in enumerate(token_bytes)}
    return tiktoken.Encoding(
        "domainformer", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={}
    )
