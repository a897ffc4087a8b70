"""The next item: every item scored at once, or written token by token along those that exist.

::

    ItemRecommender   hidden state at the last item · item table          one score per item, exact
    Bundle            beams over the tokens of the item's field:
        root ─ [P_1=003] ─ [P_2=117] ─ [P_number=0]   log p = Σ log p(token | all before)
             ╰ [P_1=041] ─ …                          only what leads to an item (PrefixTrie)

A language model over events gives an item the product of its tokens' probabilities. Beams follow
the likeliest beginnings; a beam as wide as the catalogue is the exact ranking. No path leads to
what is no item, so every answer exists (free generation of semantic ids misses in 0.1 to 1.6 % of
the best ten: TIGER, arXiv 2305.05065).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from domainformer.data import EventTable
from domainformer.data.histories import NewestHistories
from domainformer.errors import DataError, InputError, nearest
from domainformer.inference.bundle import Bundle
from domainformer.inference.embed import Source, tokenized
from domainformer.inference.items import LOG_PROBABILITY, RANK, ItemRecommender, best_of
from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer, Slot
from domainformer.tokenizers.semantic import PrefixTrie

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
DEFAULT_BEAM = 50
_MOST_CHANCES = 1 << 24  # numbers of one step: a probability of every id for every beam


def recommend(
    model: ItemRecommender | Bundle,
    histories: Source,
    k: int = 10,
    *,
    field: str | None = None,
    beam: int | None = None,
    batch_tokens: int = 16384,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The k likeliest next items of every entity, best first; every one of them exists.

    Args:
        model: A next-item model, or a bundle whose events begin with the item's field.
        histories: A table; for a bundle also a token store or tokenized events.
        k: How many items.
        field: The item's field of a bundle; None: the first field of its schema.
        beam: Beginnings that a bundle follows, at least k; None: 50, or k where it is more. As
            wide as the catalogue, the ranking is exact.
        batch_tokens: Tokens held by the cache of one batch.
        progress: Called with (entities done, entities in all).

    Returns:
        The entity column, ``rank`` (from 1), the item (a bundle gives its text) and
        ``log_probability``, the natural logarithm of the model's probability of that item.

    Raises:
        InputError: k or beam is out of range, or an option does not go with the model.
        DataError: The field does not begin the events, or has no items.
        ArtifactError: The bundle is a classifier.
        FingerprintError: The histories were made by another tokenizer.
    """
    if isinstance(model, ItemRecommender):
        if field is not None or beam is not None:
            raise InputError(
                "field and beam are for bundles",
                why="a next-item model scores all items of its catalogue",
            )
        if not isinstance(histories, EventTable):
            raise InputError("a next-item model reads an EventTable")
        return model.recommend(histories, k)
    paths = ItemPaths.of(model, field)
    beam = max(k, DEFAULT_BEAM) if beam is None else beam
    if not 1 <= k <= min(beam, len(paths.names)):
        raise InputError(
            f"k is {k}; it must be from 1 to the width of the beam and the number of items",
            why=f"the beam is {beam} wide, there are {len(paths.names)} items",
        )
    search = _BeamSearch(model, paths, min(beam, len(paths.names)))
    return _search_all(search, histories, k, batch_tokens, progress)


@dataclass(frozen=True, eq=False)
class ItemPaths:
    """How the items of a field are written in tokens.

    Args:
        field: The field.
        slots: Its positions, which begin the event.
        trie: The places (within `Slot.ids`) that lead to items.
        names: The items, by row of the trie.
    """

    field: str
    slots: tuple[Slot, ...]
    trie: PrefixTrie
    names: list[str]

    @classmethod
    def of(cls, bundle: Bundle, field: str | None = None) -> Self:
        """The items of a bundle's tokenizer; ids for missing and unknown values are none.

        Raises:
            InputError: There is no such field, or the model reads merged tokens.
            DataError: The field does not begin the events, is text, or has no items.
        """
        tokenizer = bundle.tokenizer
        fields = [spec.name for spec in tokenizer.schema.fields]
        field = fields[0] if field is None else field
        if field not in fields:
            raise InputError(f"there is no field {field!r}", next_step=nearest(field, fields))
        if bundle.merges is not None:
            raise InputError(
                "items cannot be written by a model of merged tokens",
                why="one token may stand for several fields",
                next_step="use a model that was trained without merges",
            )
        slots = tuple(slot for slot in tokenizer.slots if slot.field == field)
        leads = tuple(tokenizer.slots[: len(slots)]) == slots and tokenizer.forms.plain
        if not leads or any(slot.ragged for slot in slots):
            raise DataError(
                f"events do not begin with the field {field!r}",
                why="what comes before an item in its event would have to be known",
                next_step="put the item's field first in the schema, and train again",
            )
        labels, names = _items_of(tokenizer, field, slots)
        if not names:
            raise DataError(f"the field {field!r} has no items")
        widths = tuple(slot.width for slot in slots)
        return cls(field, slots, PrefixTrie.of(labels, widths), names)

    def tokens(self, row: int) -> list[int]:
        """The token ids of an item, by its place in ``names``."""
        node = int(np.flatnonzero(self.trie.rows == row)[0])
        places = []
        for depth in range(len(self.slots) - 1, -1, -1):
            node, label = divmod(int(self.trie.edges[depth][node]), self.trie.labels[depth])
            places.append(int(self.slots[depth].ids[label]))
        return places[::-1]


def _items_of(
    tokenizer: DomainTokenizer, field: str, slots: tuple[Slot, ...]
) -> tuple[Ints, list[str]]:
    """Places within the slots of each item, ``[items, slots]``, and its name."""
    fitted = next(
        block.tokenizer for block in tokenizer.layout.blocks if block.tokenizer.spec.name == field
    )
    if isinstance(fitted, SemanticIdTokenizer):
        # The places of missing and unknown come first.
        specials = slots[0].width - fitted.spec.semantic_codes
        return fitted.ids.astype(np.int64) + specials, fitted.entities
    if len(slots) != 1:
        raise DataError(f"the field {field!r} has no items", why=f"it is {slots[0].kind.value}")
    values = fitted.decode(np.arange(slots[0].width)[:, None]).cast(pl.String)
    known = values.is_not_null()
    return known.arg_true().to_numpy().astype(np.int64)[:, None], values.filter(known).to_list()


class _BeamSearch:
    """Follows the likeliest beginnings of items for a batch of histories."""

    def __init__(self, bundle: Bundle, paths: ItemPaths, beam: int) -> None:
        self.model, self.paths, self.beam = bundle.language_model, paths, beam
        self.bundle = bundle

    @torch.inference_mode()
    def run(self, rows: list[Ints]) -> tuple[Ints, Floats]:
        """Rows of the trie and log-probabilities, best first, ``[histories, beam]``.

        A place that no item was found for has −inf.
        """
        trie, count = self.paths.trie, len(rows)
        self._prefill(rows)
        nodes: Ints = np.zeros((count, 1), np.int64)
        scores: Floats = np.zeros((count, 1))
        for depth, slot in enumerate(self.paths.slots):
            different, which = np.unique(nodes, return_inverse=True)  # at first all are the root
            allowed = trie.allowed(depth, different)[which.reshape(nodes.shape)]
            here = self._log_p[..., torch.from_numpy(slot.ids)].numpy()
            here = np.where(allowed, scores[..., None] + here, -np.inf).reshape(count, -1)
            kept, scores = best_of(here, min(self.beam, here.shape[1]))
            parents, labels = np.divmod(kept, slot.width)
            before = np.take_along_axis(nodes, parents, axis=1)
            before[np.isneginf(scores)] = -1
            nodes = trie.step(depth, before.ravel(), labels.ravel()).reshape(kept.shape)
            if depth + 1 < len(self.paths.slots):
                self._feed(slot.ids[labels], parents)
        return np.where(nodes >= 0, trie.rows[nodes], -1), scores

    def _prefill(self, rows: list[Ints]) -> None:
        """Read the histories into a fresh cache, padded on the left."""
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.bundle.tokenizer.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, longest - len(row) :] = row
            mask[line, longest - len(row) :] = 1
        self.mask, self.cache = torch.from_numpy(mask).to(self.bundle.device), None
        self._forward(ids, (len(rows), 1))

    def _feed(self, ids: Ints, parents: Ints) -> None:
        """Let every beam go on from its parent by one token."""
        count, before = len(ids), self.mask.shape[0] // len(ids)
        source = torch.from_numpy((np.arange(count)[:, None] * before + parents).ravel())
        source = source.to(self.bundle.device)
        self.cache.reorder_cache(source)  # type: ignore[attr-defined]
        old = self.mask[source]
        self.mask = torch.cat([old, torch.ones_like(old[:, :1])], dim=1)
        self._forward(ids.reshape(-1, 1), ids.shape)

    def _forward(self, ids: Ints, shape: tuple[int, ...]) -> None:
        output = self.model(
            input_ids=torch.from_numpy(ids).to(self.bundle.device),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        log_p = output.logits[:, -1].double().log_softmax(-1).cpu()
        self._log_p = log_p.reshape(*shape, -1)


def _search_all(
    search: _BeamSearch,
    source: Source,
    k: int,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> pl.DataFrame:
    """Search batch by batch, and put the best k of every entity into a frame."""
    bundle, paths = search.bundle, search.paths
    events, entity = tokenized(bundle, source)
    context = bundle.context - len(paths.slots) + 1
    keys = events.entity_ids
    if not len(keys):
        raise DataError("there are no entities", next_step="check the events and their filters")
    histories = NewestHistories.of(
        events,
        keys,
        context=context,
        bos_id=bundle.tokenizer.bos_id,
        budgets=bundle.tokenizer.budgets,
    )
    held = 1 if len(paths.slots) == 1 else search.beam
    step = batch_tokens // (held * int(histories.lengths.max(initial=1)))
    step = max(1, min(step, _MOST_CHANCES // (held * bundle.tokenizer.vocab_size)))
    parts: list[dict[str, Any]] = []
    for start in range(0, len(keys), step):
        chosen = np.arange(start, min(start + step, len(keys)))
        rows, scores = search.run([histories[int(index)] for index in chosen])
        who, rank = np.nonzero(rows[:, :k] >= 0)
        parts.append({"who": chosen[who], "rank": rank + 1, "row": rows[who, rank]})
        parts[-1]["score"] = scores[who, rank]
        if progress is not None:
            progress(int(chosen[-1]) + 1, len(keys))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pl.DataFrame(
        {
            entity: keys.gather(joined["who"]),
            RANK: joined["rank"],
            paths.field: pl.Series(paths.names, dtype=pl.String).gather(joined["row"]),
            LOG_PROBABILITY: joined["score"],
        }
    )


__all__ = ["ItemPaths", "recommend"]
