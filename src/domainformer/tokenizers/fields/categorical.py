"""Categories: one token per frequent value, and one place for all the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import polars as pl

from domainformer.schema.fields import category_token, hash_token, missing_token, unknown_token
from domainformer.tokenizers.base import MISSING
from domainformer.tokenizers.fields.columns import canonical_text, dictionary
from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.fields.numeric import UNKNOWN
from domainformer.tokenizers.fields.shapes import Codes, LookupTokenizer, room_for
from domainformer.tokenizers.statistics import CountSketch, Limits, RecountSketch

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec


class CategoricalTokenizer(LookupTokenizer):
    """A value of a small set: ``[KIND=Postage]``.

    ::

        id   0         1      2 …                       2 + values …            then
             MISSING   UNK    values, frequent first    hash buckets, if any    added values

    Values are compared by their canonical text, so that 3, 3.0 and "3" are one category and true
    and "true" another, whether the column is of strings, integers, floats, booleans, decimals,
    dates, or a Categorical or Enum. The empty string is a value; null and NaN are missing.

    The vocabulary holds the values seen at least ``min_frequency`` times, most frequent first
    (ties in the order of their text), at most ``vocab_size``. Any other value is ``[KIND_UNK]``,
    or, with ``hash_buckets``, the bucket that its text hashes to (see `hash_bucket`).

    Args:
        spec: A field of type CATEGORICAL_FIXED or CATEGORICAL_ENTITY.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> kind = CategoricalTokenizer(FieldSpec("kind", "categorical_fixed"))
        >>> kind = kind.fit(pl.Series(["b", "a", "b", None]))
        >>> kind.vocab
        ['[KIND_MISSING]', '[KIND_UNK]', '[KIND=b]', '[KIND=a]']
        >>> kind.encode(pl.Series(["a", "new", None])).tolist()
        [[3], [1], [0]]
    """

    kind: ClassVar[str] = "categorical"
    values: list[str]
    added: list[str]

    def new_statistics(self, limits: Limits) -> CountSketch:
        """A sketch of how often each value occurs."""
        return CountSketch("text", limits, least=self.spec.min_frequency)

    def observe(self, sketch: CountSketch | RecountSketch, column: pl.Series) -> None:
        """Count the values of a column."""
        sketch.add(count_texts(column, field=self.spec.name))

    def fit_statistics(self, sketch: CountSketch) -> Self:
        """Keep the most frequent values."""
        values, counts = sketch.frequent().at_least(self.spec.min_frequency)
        # The values are in the order of their texts, which decides ties.
        ranked = np.argsort(-counts, kind="stable")[: self.spec.vocab_size]
        return self._built(values.gather(ranked).to_list())

    def extended(
        self, column: pl.Series, *, min_frequency: int | None = None, most: int | None = None
    ) -> Self:
        """A tokenizer with the frequent new values of a column behind all others.

        Example:
            >>> from domainformer.schema import FieldSpec
            >>> spec = FieldSpec("kind", "categorical_fixed", hash_buckets=1)
            >>> kind = CategoricalTokenizer(spec).fit(pl.Series(["b"]))
            >>> kind.extended(pl.Series(["new", "b"])).vocab[2:]
            ['[KIND=b]', '[KIND_HASH=00]', '[KIND=new]']
        """
        self._require_fitted()
        counts = dict(count_texts(column, field=self.spec.name).select("value", "count").rows())
        least = self.spec.min_frequency if min_frequency is None else min_frequency
        new = [(n, text) for text, n in counts.items() if n >= least and text not in self._index]
        texts = [text for _, text in sorted(new, key=lambda item: (-item[0], item[1]))]
        texts = texts[: room_for(self.spec.vocab_size, len(self._index), most)]
        return type(self)(self.spec)._built(self.values, self.added + texts) if texts else self

    def _built(self, values: list[str], added: Sequence[str] = ()) -> Self:
        name = self.spec.name
        self.values, self.added = values, list(added)
        self._vocab = [missing_token(name), unknown_token(name)]
        self._vocab += [category_token(name, value) for value in values]
        self._first_bucket = len(self._vocab)
        self._vocab += [hash_token(name, bucket) for bucket in range(self.spec.hash_buckets)]
        self._first_added = len(self._vocab)
        self._vocab += [category_token(name, value) for value in self.added]
        self._index = {value: UNKNOWN + 1 + i for i, value in enumerate(values)}
        self._index |= {value: self._first_added + i for i, value in enumerate(self.added)}
        return self

    def codes(self, column: pl.Series) -> Codes:
        """Codes of the column's distinct values, and the id of each."""
        self._require_fitted()
        codes, distinct = dictionary(column, field=self.spec.name)
        ids = (self._id(value) for value in distinct)
        return Codes(codes, np.fromiter(ids, np.int32, len(distinct))[:, None])

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local id of one value."""
        self._require_fitted()
        return (self._id(value),)

    def _id(self, value: Any) -> int:
        text = value if type(value) is str else canonical_text(value)
        if text is None:
            return MISSING
        known = self._index.get(text)
        if known is not None:
            return known
        buckets = self.spec.hash_buckets
        return self._first_bucket + hash_bucket(text, buckets) if buckets else UNKNOWN

    def decode(self, ids: Any) -> pl.Series:
        """The text of each value; null for missing, unknown and hash tokens."""
        chosen = self._checked(ids)[:, 0]
        texts = [None, None, *self.values, *[None] * self.spec.hash_buckets, *self.added]
        lookup = pl.Series(self.spec.name, texts, dtype=pl.String)
        return lookup.gather(pl.Series(chosen))

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, unknown, value, hash) and the value."""
        token = self._token(local_id)
        if local_id <= UNKNOWN:
            return {"token": token, "kind": "unknown" if local_id else "missing"}
        if local_id >= self._first_added:
            value = self.added[local_id - self._first_added]
            return {"token": token, "kind": "value", "value": value}
        if local_id >= self._first_bucket:
            return {"token": token, "kind": "hash", "bucket": local_id - self._first_bucket}
        return {"token": token, "kind": "value", "value": self.values[local_id - UNKNOWN - 1]}

    def state(self) -> dict[str, Any]:
        """The values of the vocabulary, in its order, and those that extensions added."""
        self._require_fitted()
        added = {"added": list(self.added)} if self.added else {}
        return {"kind": self.kind, "values": list(self.values), **added}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from what `state` gave."""
        return cls(spec)._built(list(state["values"]), list(state.get("added", ())))


def hash_bucket(text: str, buckets: int) -> int:
    """The bucket of a text: its BLAKE2b-64 digest (little-endian, of the UTF-8 bytes) mod buckets.

    The same on every machine and in every process, unlike Python's ``hash``.

    Example:
        >>> hash_bucket("corner shop", 16)
        5
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % buckets
