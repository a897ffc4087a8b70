"""SemanticIdTokenizer: an entity becomes a few codes that near entities share, and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError, TokenizerError
from domainformer.schema.semantic import semantic_positions, semantic_tokens
from domainformer.tokenizers.base import MISSING, Int32Array, SlotRange
from domainformer.tokenizers.fields.columns import canonical_text, dictionary
from domainformer.tokenizers.fields.shapes import Codes, LookupTokenizer
from domainformer.tokenizers.semantic.codes import group_numbers, number_new, room_for
from domainformer.tokenizers.semantic.items import items_of
from domainformer.tokenizers.semantic.model import SemanticModel
from domainformer.tokenizers.semantic.trie import PrefixTrie

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

UNKNOWN = 1
# Local ids of a position before its values: missing and unknown.
_SPECIALS = 2
_SHOWN = 3


class SemanticIdTokenizer(LookupTokenizer):
    """An entity as ``semantic_levels`` codes and a number: ``[PRODUCT_1=017]…[PRODUCT_N=02]``.

    ::

        position     code1               code2     …     number
        local ids    MISSING UNK 0 … K   …               MISSING UNK 0 …

    A million entities need some hundred tokens, and entities that are alike share their first
    codes, so that what is learned of one holds for the others. Made by
    :func:`~domainformer.tokenizers.semantic.fit.fit_semantic_ids` from features, or by `of_codes`
    from codes that were found elsewhere. Null is MISSING at every position, an entity without
    codes UNK at every position (give it codes by `with_entities`).

    Args:
        spec: A field of type CATEGORICAL_ENTITY with ``semantic_levels``.

    Attributes:
        entities: The canonical texts of the entities, sorted.
        ids: Codes and number of each, int32 ``[n, levels + 1]``.
        numbers: Number tokens.
        model: What gives codes to new entities; None where the codes came from elsewhere.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> spec = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=4)
        >>> products = SemanticIdTokenizer.of_codes(spec, ["mug", "cup"], [[3, 0], [3, 0]])
        >>> ids = products.encode(pl.Series(["mug", None]))
        >>> [products.vocab[i] for i in ids[0]]
        ['[PRODUCT_1=03]', '[PRODUCT_2=00]', '[PRODUCT_N=01]']
        >>> products.decode(ids).to_list()
        ['mug', None]
    """

    kind: ClassVar[str] = "semantic"
    entities: list[str]
    ids: Int32Array
    numbers: int
    model: SemanticModel | None

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__(spec)
        if not spec.semantic_levels:
            raise TokenizerError(
                f"the field {spec.name!r} has no semantic levels",
                next_step="set semantic_levels (3 is usual) and semantic_codes (256) in its spec",
            )
        self.width = spec.semantic_levels + 1

    # ── making ───────────────────────────────────────────────────────────────────────────────

    def fit_statistics(self, sketch: Any) -> Self:
        """Not possible from the column of names alone.

        Raises:
            TokenizerError: Always; the message names the way.
        """
        raise TokenizerError(
            f"the semantic ids of field {self.spec.name!r} cannot be fitted on names alone",
            why="codes come from what entities are like and where they occur",
            next_step="call fit_semantic_ids(events, field, items=…), and pass its tokenizer as "
            f"semantic_ids={{{self.spec.name!r}: tokenizer}} (`domainformer tokenizer "
            f"semantic-ids`, then --semantic-ids {self.spec.name}=FOLDER)",
        )

    @classmethod
    def of_codes(
        cls,
        spec: FieldSpec,
        entities: Sequence[Any],
        codes: npt.ArrayLike,
        *,
        model: SemanticModel | None = None,
    ) -> Self:
        """The tokenizer of entities whose codes are known.

        Args:
            spec: The field.
            entities: Distinct, not null.
            codes: ``[n, semantic_levels]``, from 0 to ``semantic_codes − 1``.
            model: What gives codes to new entities.

        Raises:
            DataError: Entities repeat, or the codes do not fit.
        """
        tokenizer = cls(spec)
        names = [canonical_text(entity) for entity in entities]
        table = np.asarray(codes, np.int64).reshape(-1, spec.semantic_levels)
        known = [name for name in names if name is not None]
        if len(set(known)) < len(names) or len(table) != len(names):
            raise DataError(
                "entities and their codes do not fit",
                where=f"field {spec.name!r}",
                why=f"{len(names)} entities, {len(set(known))} distinct, {len(table)} codes",
                next_step="give each entity once, with its codes",
            )
        if table.size and not (table.min() >= 0 and table.max() < spec.semantic_codes):
            raise DataError(
                f"codes from {table.min()} to {table.max()} are given",
                where=f"field {spec.name!r}",
                why=f"its codes go from 0 to {spec.semantic_codes - 1}",
            )
        order = sorted(range(len(known)), key=known.__getitem__)
        known, short = [known[i] for i in order], table[order].astype(np.int32)
        numbers = group_numbers(short, known)
        return tokenizer._built(known, np.c_[short, numbers], room_for(numbers), model)

    def _built(
        self, entities: list[str], ids: Int32Array, numbers: int, model: SemanticModel | None
    ) -> Self:
        spec = self.spec
        self.entities, self.numbers, self.model = entities, numbers, model
        self.ids = np.asarray(ids, np.int32).reshape(-1, spec.semantic_levels + 1)
        counts = self._counts
        names = semantic_positions(spec.semantic_levels)
        self._vocab = [
            token
            for name, count in zip(names, counts, strict=True)
            for token in semantic_tokens(spec.prefix, name, count)
        ]
        ends = np.cumsum([0, *(count + _SPECIALS for count in counts)])
        self._starts = ends[:-1].astype(np.int32)
        # Labels are ids within a position; rows 0 and 1 are those of null and of the unseen.
        special = np.repeat(np.array([[MISSING], [UNKNOWN]], np.int32), len(counts), axis=1)
        self._labels = np.concatenate([special, self.ids + _SPECIALS])
        self._row = {name: row for row, name in enumerate(entities, start=_SPECIALS)}
        return self

    @property
    def _counts(self) -> tuple[int, ...]:
        return (*[self.spec.semantic_codes] * self.spec.semantic_levels, self.numbers)

    def with_entities(self, items: Any) -> Self:
        """A tokenizer that also knows new entities; every id so far, and every token, stays.

        Codes come from the features of the fit, so an entity like the old ones gets their codes;
        its number is the next free one of its group. Entities that are known already are left as
        they are.

        Args:
            items: A row per entity (a table, or the path of one): its name in the field's column,
                and the feature columns. Where the codes were fitted without an items table, an
                `EventTable`, of which entities are summed up as they were then.

        Raises:
            TokenizerError: There is no model, or no id is left.
            DataError: A column is missing, or an entity occurs twice.
        """
        self._require_fitted()
        if self.model is None:
            raise TokenizerError(
                f"the semantic ids of field {self.spec.name!r} cannot take new entities",
                why="the features and codebooks are not part of the files of a DomainTokenizer",
                next_step="use what fit_semantic_ids gave, or SemanticIdTokenizer.load(folder)",
            )
        given = items_of(items, self.spec.source)
        new = [row for row, name in enumerate(given.names) if name not in self._row]
        if not new:
            return self
        names, frame = [given.names[row] for row in new], given.frame[new]
        codes, last = self.model.codes(frame)
        added = number_new(self.ids, names, codes, last, self.numbers)
        entities, ids = [*self.entities, *names], np.concatenate([self.ids, added])
        order = sorted(range(len(entities)), key=entities.__getitem__)
        grown = [entities[i] for i in order]
        return type(self)(self.spec)._built(grown, ids[order], self.numbers, self.model)

    def for_field(self, spec: FieldSpec) -> Self:
        """The same ids under the spec of a schema.

        Raises:
            TokenizerError: The spec asks for other levels or codes, or nothing is fitted.
        """
        self._require_fitted()
        own = (self.spec.semantic_levels, self.spec.semantic_codes)
        asked = (spec.semantic_levels, spec.semantic_codes)
        if own != asked:
            raise TokenizerError(
                f"the semantic ids do not fit the field {spec.name!r}",
                why=f"the schema asks for {asked[0]} levels of {asked[1]} codes, they were fitted "
                f"with {own[0]} levels of {own[1]}",
                next_step="change the schema, or fit the ids with its FieldSpec",
            )
        return type(self)(spec)._built(self.entities, self.ids, self.numbers, self.model)

    def with_model(self, model: SemanticModel | None) -> Self:
        """The same ids with what gives codes to new entities."""
        self._require_fitted()
        return type(self)(self.spec)._built(self.entities, self.ids, self.numbers, model)

    # ── ids ──────────────────────────────────────────────────────────────────────────────────

    @property
    def slots(self) -> tuple[SlotRange, ...]:
        """A slot per level, ``code1`` and so on, and ``number``."""
        names = [f"code{level + 1}" for level in range(self.spec.semantic_levels)]
        starts = [int(start) for start in self._starts]
        stops = [*starts[1:], len(self.vocab)]
        return tuple(map(SlotRange, [*names, "number"], starts, stops))

    @cached_property
    def trie(self) -> PrefixTrie:
        """What may follow what, by label: place within a position, where 0 is MISSING, 1 UNK.

        Rows 0 and 1 are those of null and of unseen entities, the others entity ``row − 2``.
        """
        self._require_fitted()
        return PrefixTrie.of(self._labels, tuple(count + _SPECIALS for count in self._counts))

    def codes(self, column: pl.Series) -> Codes:
        """Codes of the column's distinct values, and the ids of each."""
        self._require_fitted()
        codes, distinct = dictionary(column, field=self.spec.name)
        rows = np.fromiter(map(self._row_of, distinct), np.int64, len(distinct))
        return Codes(codes, self._labels[rows] + self._starts)

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local ids of one value."""
        self._require_fitted()
        ids = self._labels[self._row_of(value)] + self._starts
        return tuple(ids.tolist())

    def _row_of(self, value: Any) -> int:
        text = value if type(value) is str else canonical_text(value)
        return MISSING if text is None else self._row.get(text, UNKNOWN)

    def decode(self, ids: Any) -> pl.Series:
        """The entities; null for missing, unknown, and ids that no entity has."""
        rows = self.trie.find(self._checked(ids) - self._starts)
        named = np.where(rows >= _SPECIALS, rows, 0)
        lookup = pl.Series(self.spec.name, [None, None, *self.entities], dtype=pl.String)
        return lookup.gather(pl.Series(named))

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, unknown, code, number), and which entities have it."""
        token = self._token(local_id)
        position = int(np.searchsorted(self._starts, local_id, side="right")) - 1
        label = local_id - int(self._starts[position])
        part = self.slots[position].part
        if label < _SPECIALS:
            return {"token": token, "kind": ("missing", "unknown")[label], "part": part}
        having = np.flatnonzero(self.ids[:, position] == label - _SPECIALS)
        few = [self.entities[row] for row in having[:_SHOWN]]
        shared = f"{len(having):,} entities: {', '.join(few)}{', …' * (len(having) > _SHOWN)}"
        if len(having) == 1:
            shared = f"one entity: {few[0]}"
        if part == "number":
            shared = f"number {label - _SPECIALS} among those with the same codes"
        return {
            "token": token,
            "kind": "number" if part == "number" else "code",
            "part": part,
            "entities": len(having),
            "examples": few,
            "meaning": shared if len(having) else "no entity yet",
        }

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def state(self) -> dict[str, Any]:
        """The ids of all entities; codes of new ones need the files that `save` writes."""
        self._require_fitted()
        ids = (" ".join(map(str, row)) for row in self.ids.tolist())
        entities = dict(zip(self.entities, ids, strict=True))
        return {"kind": self.kind, "numbers": self.numbers, "entities": entities}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from what `state` gave."""
        entities: Mapping[str, str] = state["entities"]
        ids = np.array([row.split() for row in entities.values()], np.int32)
        return cls(spec)._built(list(entities), ids, int(state["numbers"]), None)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ids, features and codebooks as a folder (see `files`)."""
        from domainformer.tokenizers.semantic.files import write_tokenizer

        return write_tokenizer(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> SemanticIdTokenizer:
        """Read a folder that `save` has written.

        Raises:
            ArtifactError: It is missing, incomplete, changed or of a newer version.
        """
        from domainformer.tokenizers.semantic.files import read_tokenizer

        return read_tokenizer(Path(folder))
