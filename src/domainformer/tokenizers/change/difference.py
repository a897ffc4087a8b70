"""What differs between two tokenizers, field by field: tokens, their ids, and the edges of bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from domainformer.tokenizers import vocabulary
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fields.shapes import BinTokenizer
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer
from domainformer.tokenizers.slots import Block

Relation = Literal["equal", "extension", "extended", "different"]
_RELATIONS: dict[str, str] = {
    "equal": "Both give the same ids.",
    "extension": "The second extends the first: every id of the first means the same in it.",
    "extended": "The first extends the second: every id of the second means the same in it.",
    "different": "Ids of one have another meaning in the other: what one has encoded, and a model "
    "trained on it, cannot be used with the other.",
}
_SHOWN = 5


@dataclass(frozen=True)
class FieldDiff:
    """How one field differs.

    Args:
        field: Name of the field.
        kind: Kinds of its tokenizer, ``"a → b"`` where they differ.
        added: Tokens that the second has alone.
        removed: Tokens that the first has alone.
        moved: Tokens that both have, at different ids.
        edges_before: Lower ends of the bins of the first; None where the field has no bins.
        edges_after: Of the second.
        changes: What else differs, such as the anchor year, as ``name: a → b``.
    """

    field: str
    kind: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]
    edges_before: tuple[float, ...] | None
    edges_after: tuple[float, ...] | None
    changes: tuple[str, ...]

    @property
    def edges_changed(self) -> bool:
        """Whether the same number may fall in another bin."""
        return self.edges_before != self.edges_after

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        tokens = self.added or self.removed or self.moved
        return bool(tokens or self.changes or self.edges_changed)


@dataclass(frozen=True)
class TokenizerDiff:
    """How two tokenizers differ.

    Args:
        first: Fingerprint of the first.
        second: Of the second.
        relation: ``"equal"``, ``"extension"`` (the second extends the first), ``"extended"`` (the
            other way round) or ``"different"``.
        sizes: Ids of the first and of the second.
        fields: Every field of either.
        pieces_added: Tokens of the byte-pair model that the second has alone.
        pieces_removed: That the first has alone.
        merges_kept: Merges, from the first on, that both have at the same rank.
    """

    first: str
    second: str
    relation: Relation
    sizes: tuple[int, int]
    fields: tuple[FieldDiff, ...]
    pieces_added: tuple[str, ...]
    pieces_removed: tuple[str, ...]
    merges_kept: int

    @property
    def equal(self) -> bool:
        """Whether both give the same ids."""
        return self.relation == "equal"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def render(self) -> Table:
        """A row per field that differs, for people."""
        title = f"{self.first} ({self.sizes[0]:,} ids) → {self.second} ({self.sizes[1]:,} ids)"
        table = Table("field", "added", "removed", "moved", "what", title=title)
        table.caption = _RELATIONS[self.relation]
        for one in self.fields:
            if one.changed:
                counts = [f"{len(t):,}" for t in (one.added, one.removed, one.moved)]
                table.add_row(one.field, *counts, _told(one))
        if self.pieces_added or self.pieces_removed:
            counts = [f"{len(t):,}" for t in (self.pieces_added, self.pieces_removed)]
            table.add_row("(text)", *counts, "", f"{self.merges_kept:,} merges in common")
        return table


def diff_tokenizers(
    first: DomainTokenizer | str | Path, second: DomainTokenizer | str | Path
) -> TokenizerDiff:
    """Compare two tokenizers, or the folders of two.

    Example:
        >>> import polars as pl
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
        >>> tea, cake = (
        ...     DomainTokenizer(schema).fit(pl.DataFrame({"kind": kinds}))
        ...     for kinds in (["tea", "tea", "mug"], ["mug", "cake"]))
        >>> found = diff_tokenizers(tea, cake)
        >>> found.relation, found.fields[0].added, found.fields[0].removed, found.fields[0].moved
        ('different', ('[KIND=cake]',), ('[KIND=tea]',), ())
    """
    before, after = (
        one if isinstance(one, DomainTokenizer) else DomainTokenizer.from_pretrained(one)
        for one in (first, second)
    )
    left, right = _by_name(before), _by_name(after)
    own, other = (_pieces(one) for one in (before, after))
    merges = [vocabulary.merges_of(one.backend) for one in (before, after)]
    return TokenizerDiff(
        first=before.fingerprint,
        second=after.fingerprint,
        relation=_relation(before, after),
        sizes=(before.vocab_size, after.vocab_size),
        fields=tuple(
            _field(name, left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])
        ),
        pieces_added=_without(other, own),
        pieces_removed=_without(own, other),
        merges_kept=next(
            (rank for rank, pair in enumerate(zip(*merges, strict=False)) if pair[0] != pair[1]),
            min(map(len, merges)),
        ),
    )


def _by_name(tokenizer: DomainTokenizer) -> dict[str, Block]:
    """Blocks by field, and for a date by its kind as well, which has up to two."""
    blocks: dict[str, Block] = {}
    for block in tokenizer.layout.blocks:
        name = block.spec.name
        blocks[f"{name}.{block.tokenizer.kind}" if name in blocks else name] = block
    return blocks


def _pieces(tokenizer: DomainTokenizer) -> list[str]:
    vocab = tokenizer.vocab
    return [vocab[index] for index in tokenizer.bpe_ids.tolist()]


def _without(tokens: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    known = set(others)
    return tuple(token for token in tokens if token not in known)


def _field(name: str, before: Block | None, after: Block | None) -> FieldDiff:
    left, right = _ids(before), _ids(after)
    edges = [_edges(block) for block in (before, after)]
    kinds = [block.tokenizer.kind for block in (before, after) if block is not None]
    return FieldDiff(
        field=name,
        kind=" → ".join(dict.fromkeys(kinds)),
        added=tuple(token for token in right if token not in left),
        removed=tuple(token for token in left if token not in right),
        moved=tuple(t for t, index in left.items() if right.get(t, index) != index),
        edges_before=edges[0],
        edges_after=edges[1],
        changes=() if before is None or after is None else _changes(before, after),
    )


def _ids(block: Block | None) -> dict[str, int]:
    if block is None:
        return {}
    return dict(zip(block.tokenizer.vocab, block.ids.tolist(), strict=True))


def _edges(block: Block | None) -> tuple[float, ...] | None:
    if block is None or not isinstance(block.tokenizer, BinTokenizer):
        return None
    return tuple(block.tokenizer.edges.tolist())


def _changes(before: Block, after: Block) -> tuple[str, ...]:
    """Short differences of specification and state; lists are told as tokens and edges."""
    pairs = [(before.spec.options(), after.spec.options())]
    pairs.append((_scalars(before.tokenizer), _scalars(after.tokenizer)))
    return tuple(
        f"{key}: {old.get(key)} → {new.get(key)}"
        for old, new in pairs
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ) + _code_changes(before.tokenizer, after.tokenizer)


def _code_changes(before: FieldTokenizer, after: FieldTokenizer) -> tuple[str, ...]:
    """What differs between semantic ids, whose tokens are the same whatever entities they tell."""
    if not (isinstance(before, SemanticIdTokenizer) and isinstance(after, SemanticIdTokenizer)):
        return ()
    old, new = (
        dict(zip(one.entities, map(tuple, one.ids.tolist()), strict=True))
        for one in (before, after)
    )
    told = ((new.keys() - old.keys(), "new entities"), (old.keys() - new.keys(), "entities gone"))
    counts = [f"{what}: {len(names):,}" for names, what in told if names]
    other = sum(new[name] != old[name] for name in old.keys() & new.keys())
    return (*counts, f"entities with other codes: {other:,}") if other else tuple(counts)


def _scalars(tokenizer: FieldTokenizer) -> dict[str, Any]:
    state = tokenizer.state()
    return {key: value for key, value in state.items() if isinstance(value, (str, int, float))}


def _relation(before: DomainTokenizer, after: DomainTokenizer) -> Relation:
    if before.fingerprint == after.fingerprint:
        return "equal"
    if before.fingerprint in after.lineage:
        return "extension"
    return "extended" if after.fingerprint in before.lineage else "different"


def _told(one: FieldDiff) -> str:
    told = list(one.changes)
    if one.edges_before is not None and one.edges_after is not None and one.edges_changed:
        old, new = set(one.edges_before), set(one.edges_after)
        told.append(f"{len(new - old)} of {len(new)} edges are new")
    examples = one.added or one.removed or one.moved
    # Brackets are markup to rich, and every token has them.
    told += [" ".join(examples[:_SHOWN]).replace("[", r"\[")] if examples else []
    return "; ".join(told) + (" …" if len(examples) > _SHOWN else "")
