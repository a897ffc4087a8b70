"""The Hugging Face tokenizer behind a `DomainTokenizer`: one model vocabulary for all tokens.

Every token, special or not, is an entry of the model's own vocabulary, so its id is written in
``tokenizer.json`` rather than implied by the order of additions. Where there is text the model is a
byte-level BPE that follows the fields' tokens; otherwise it is a plain list of words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from domainformer.errors import ArtifactError
from domainformer.schema.fields import GENERIC_SPECIALS
from domainformer.tokenizers.fields import BytePairModel, train_bpe
from tokenizers import AddedToken, Tokenizer, models

UNK_TOKEN = GENERIC_SPECIALS[3]


def word_level(tokens: Sequence[str]) -> Tokenizer:
    """A tokenizer that knows whole tokens and nothing else; other text is ``[UNK]``.

    Example:
        >>> word_level(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "[A=1]"]).encode("[A=1][BOS]").ids
        [4, 1]
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocab, unk_token=UNK_TOKEN))
    special = [AddedToken(token, special=True, normalized=False) for token in tokens]
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_pair(tokens: Sequence[str], counts: Mapping[str, int], bpe_vocab_size: int) -> Tokenizer:
    """A tokenizer of whole tokens, followed by a byte-level BPE trained on some texts.

    Args:
        tokens: Specials, in the order of their ids.
        counts: Texts and how often each occurs.
        bpe_vocab_size: Bytes and merges together, at least 256.

    Example:
        >>> byte_pair(["[PAD]"], {"low low": 2}, 258).encode("low[PAD]").tokens
        ['low', '[PAD]']
    """
    # Training sees what encoding will see: an escaped text never spells a token, so that no
    # merge can make one.
    escape = BytePairModel(train_bpe([], [], 256, tokens), fast=False).escape
    escaped = [escape(text) for text in counts]
    return train_bpe(escaped, list(counts.values()), bpe_vocab_size, tokens)


def count_corpus(texts: Iterable[str]) -> dict[str, int]:
    """Distinct texts of a corpus with their counts, sorted, so that order does not matter.

    Example:
        >>> count_corpus(["b", "a", "b"])
        {'a': 1, 'b': 2}
    """
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return dict(sorted(counts.items()))


def has_bpe(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's model is a BPE."""
    return isinstance(tokenizer.model, models.BPE)


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The merges of a byte-pair model in the order of their ranks; none without one.

    Example:
        >>> merges_of(byte_pair(["[PAD]"], {"low low": 2}, 258))
        [('l', 'o'), ('lo', 'w')]
    """
    merges = json.loads(tokenizer.to_str())["model"].get("merges", [])
    return [(left, right) for left, right in merges]


def tokens_by_id(tokenizer: Tokenizer, *, where: str) -> list[str]:
    """Id → token of a tokenizer whose ids have no gaps.

    Raises:
        ArtifactError: An id is missing or taken twice.
    """
    vocab: dict[str, int] = json.loads(tokenizer.to_str())["model"]["vocab"]
    ordered = sorted(vocab, key=vocab.__getitem__)
    if [vocab[token] for token in ordered] != list(range(len(ordered))):
        raise ArtifactError(
            "the ids of the vocabulary are not consecutive",
            where=where,
            next_step="the file was changed by hand; fit and save the tokenizer again",
        )
    return ordered


def grown(
    tokenizer: Tokenizer,
    vocab: Sequence[str],
    whole: Iterable[str],
    merges: Iterable[tuple[str, str]] = (),
) -> Tokenizer:
    """A copy with further tokens and merges, in which every old token keeps its id.

    Args:
        tokenizer: What `word_level` or `byte_pair` gave, or what was loaded from its file.
        vocab: Id → token: the old tokens at their old ids, then the new ones.
        whole: The tokens that are found whole in a string, in the order of their ids.
        merges: Ranked behind the old ones.

    Example:
        >>> old = byte_pair(["[PAD]"], {"low": 2}, 257)
        >>> new = grown(old, [*tokens_by_id(old, where=""), "[A]", "low"], ["[PAD]", "[A]"],
        ...     [("lo", "w")])
        >>> new.encode("low[A]").ids == [259, 258], old.encode("low").tokens
        (True, ['lo', 'w'])
    """
    plain = json.loads(tokenizer.to_str())
    ids = {token: index for index, token in enumerate(vocab)}
    plain["model"]["vocab"] = ids
    if has_bpe(tokenizer):
        plain["model"]["merges"] += [list(pair) for pair in merges]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    plain["added_tokens"] = [
        {"id": ids[token], "content": token, **flags, "special": True} for token in whole
    ]
    return Tokenizer.from_str(json.dumps(plain))
