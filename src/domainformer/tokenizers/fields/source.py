"""The source of an event, as the token that opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import TokenizerError, nearest
from domainformer.schema.fields import missing_token
from domainformer.schema.sources import source_token
from domainformer.tokenizers.base import MISSING
from domainformer.tokenizers.fields.columns import canonical_text, dictionary
from domainformer.tokenizers.fields.shapes import Codes, LookupTokenizer

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec


class SourceTokenizer(LookupTokenizer):
    """Which kind of event it is: ``[SOURCE=cards]``. The names come from the schema, not a fit.

    The source decides which tokens follow, so an event without one, or with one that the schema
    does not name, cannot be encoded at all. Local id 0 is kept for MISSING, as in every field, and
    never used; source i of the schema is 1 + i.

    Args:
        spec: `DomainSchema.source_spec`.
        names: The sources, in the schema's order.

    Example:
        >>> from domainformer.schema.sources import source_field
        >>> names = ["cards", "app"]
        >>> sources = SourceTokenizer(source_field(names, "source"), names)
        >>> sources.vocab
        ['[SOURCE_MISSING]', '[SOURCE=cards]', '[SOURCE=app]']
        >>> sources.encode(pl.Series(["app", "cards"])).tolist()
        [[2], [1]]
    """

    kind: ClassVar[str] = "source"

    def __init__(self, spec: FieldSpec, names: Sequence[str] = ()) -> None:
        super().__init__(spec)
        self.names = tuple(names)
        self._vocab = [missing_token(spec.name), *map(source_token, self.names)]
        self._index = {name: 1 + index for index, name in enumerate(self.names)}

    def observe(self, sketch: Any, column: pl.Series) -> None:
        """Check that every event has a source; there is nothing to remember."""
        self.codes(column)

    def fit_statistics(self, sketch: Any) -> Self:
        """There is nothing to learn."""
        return self

    def codes(self, column: pl.Series) -> Codes:
        """Codes of the column's distinct values, and the id of each.

        Raises:
            TokenizerError: An event has no source, or one that the schema does not name.
        """
        codes, distinct = dictionary(column, field=self.spec.name)
        used = np.bincount(codes, minlength=len(distinct)) > 0
        table = np.full((len(distinct), 1), MISSING, np.int32)
        for code in np.flatnonzero(used):
            found = self._index.get(canonical_text(distinct[code]) or "")
            if found is None:
                row = int(np.argmax(codes == code))
                raise self._unknown(distinct[code], where=f"event {row} (counted from 0)")
            table[code] = found
        return Codes(codes, table)

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local id of one source."""
        found = self._index.get(value if type(value) is str else canonical_text(value) or "")
        if found is None:
            raise self._unknown(value, where=f"column {self.spec.source!r}")
        return (found,)

    def _unknown(self, value: Any, *, where: str) -> TokenizerError:
        nothing = value is None or value != value
        return TokenizerError(
            "an event has no source" if nothing else f"there is no source {value!r}",
            where=where,
            why="the source decides which fields an event has",
            next_step=f"choose one of: {', '.join(self.names)}"
            if nothing
            else nearest(str(value), self.names),
        )

    def decode(self, ids: npt.ArrayLike) -> pl.Series:
        """The name of each source."""
        chosen = self._checked(ids)[:, 0]
        lookup = pl.Series(self.spec.name, [None, *self.names], dtype=pl.String)
        return lookup.gather(pl.Series(chosen))

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, value) and the source."""
        token = self._token(local_id)
        if local_id == MISSING:
            return {"token": token, "kind": "missing"}
        return {"token": token, "kind": "value", "value": self.names[local_id - 1]}

    def state(self) -> dict[str, Any]:
        """The names of the sources."""
        return {"kind": self.kind, "values": list(self.names)}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """The tokenizer of what `state` gave."""
        return cls(spec, state["values"])
