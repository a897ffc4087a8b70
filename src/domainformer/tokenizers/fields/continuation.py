"""Further merges for a byte-pair model that is already in use.

Training again would rank the merges anew and give every id another meaning. Here new texts are
encoded by the merges that exist, and pairs of what comes out are merged further::

    old merges      t o f u ─▶ to | f | u      (as every model has learned to read it)
    new merges                 to | fu ─▶ tofu (ranked behind all old ones)

A pair whose union is a token already is never merged: with that, all old merges are exhausted
before the first new one applies, each new token has one origin, and a text decodes as before.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers

Pair = tuple[str, str]


def count_words(escaped: Mapping[str, int]) -> dict[str, int]:
    """Words of texts in byte-level spelling, with their counts.

    Args:
        escaped: Texts, escaped as they are encoded, and how often each occurs.

    Example:
        >>> count_words({"low tide": 2, "low": 1})
        {'low': 3, 'Ġtide': 2}
    """
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words: dict[str, int] = {}
    for text, count in escaped.items():
        for word, _ in cut.pre_tokenize_str(text):
            words[word] = words.get(word, 0) + count
    return words


def further_merges(
    vocab: Sequence[str],
    merges: Sequence[Pair],
    words: Mapping[str, int],
    *,
    most: int,
    least: int = 2,
    taken: Collection[str] = (),
) -> list[Pair]:
    """The pairs that new words merge most often, the most frequent first.

    Args:
        vocab: Tokens of the byte-pair model.
        merges: Its merges.
        words: New words in byte-level spelling with their counts.
        most: Learn at most so many.
        least: A pair has to occur so often.
        taken: Further tokens that no merge may spell.

    Example:
        >>> further_merges(["l", "o", "w", "lo"], [("l", "o")], {"low": 3, "lol": 1}, most=9)
        [('lo', 'w')]
    """
    model = models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=list(merges))
    spelt = Tokenizer(model).encode_batch(list(words), add_special_tokens=False)
    learner = _Learner([row.tokens for row in spelt], list(words.values()))
    known = {*vocab, *taken}
    found: list[Pair] = []
    while len(found) < most and (pair := learner.best(least, known)) is not None:
        learner.merge(pair)
        known.add(pair[0] + pair[1])
        found.append(pair)
    return found


class _Learner:
    """Words as rows of tokens, with the counts of neighbours kept up to date.

    Args:
        rows: The tokens of each word; merged in place.
        counts: How often each word occurs.
    """

    def __init__(self, rows: list[list[str]], counts: list[int]) -> None:
        self.rows, self.counts = rows, counts
        self.pairs: dict[Pair, int] = defaultdict(int)
        self.where: dict[Pair, set[int]] = defaultdict(set)
        for index, row in enumerate(rows):
            for pair in itertools.pairwise(row):
                self.pairs[pair] += counts[index]
                self.where[pair].add(index)
        self._heap = [(-count, pair) for pair, count in self.pairs.items()]
        heapq.heapify(self._heap)

    def best(self, least: int, known: Collection[str]) -> Pair | None:
        """The most frequent pair that makes a new token; ties in the order of the tokens."""
        while self._heap:
            count, pair = heapq.heappop(self._heap)
            now = self.pairs.get(pair, 0)
            if -count != now:  # an entry from before a merge: what is true now is pushed anew
                continue
            if now < least:
                return None
            if pair[0] + pair[1] not in known:
                return pair
        return None

    def merge(self, pair: Pair) -> None:
        """Join a pair wherever it occurs, and count its new neighbours."""
        changed: set[Pair] = set()
        for index in self.where.pop(pair):
            row, count = self.rows[index], self.counts[index]
            joined = _joined(row, pair)
            for old in itertools.pairwise(row):
                self.pairs[old] -= count
                self.where[old].discard(index)
                changed.add(old)
            for new in itertools.pairwise(joined):
                self.pairs[new] += count
                self.where[new].add(index)
                changed.add(new)
            self.rows[index] = joined
        for one in changed:
            if self.pairs[one] > 0:
                heapq.heappush(self._heap, (-self.pairs[one], one))
            else:
                del self.pairs[one], self.where[one]


def _joined(row: list[str], pair: Pair) -> list[str]:
    joined: list[str] = []
    position = 0
    while position < len(row):
        if row[position : position + 2] == list(pair):
            joined.append(pair[0] + pair[1])
            position += 2
        else:
            joined.append(row[position])
            position += 1
    return joined
