"""Future events: sampled token by token under the grammar of events, decoded back to rows.

Every position is sampled among the ids that may stand there, so each generated event is well
formed by construction: each field once, in order, text within its budget. Ids that stand for "some
value that the fit did not keep" and for "first event" are never generated.

A row's draws come from a generator keyed by (seed, entity, sample): what one entity's future looks
like does not depend on who else is in the batch (up to rounding of the logits).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from domainformer.data.budgets import keep_within_budgets
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError, InputError, nearest
from domainformer.inference.bundle import Bundle
from domainformer.inference.embed import Source, tokenized
from domainformer.inference.grammar import SlotGrammar
from domainformer.inference.merged_grammar import MergedGrammar, generating_grammar

BOS_TOKENS = 1
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How the next id is chosen among those that the grammar allows.

    Args:
        temperature: Logits are divided by it; 0 takes the most probable id.
        top_k: Only the k most probable ids.
        top_p: Only the fewest ids whose probabilities reach p (nucleus sampling,
            arXiv 1904.09751).

    Raises:
        InputError: A value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be 1 or more, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def pick(
        self, logits: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """One id per row by the inverse of its distribution function.

        Args:
            logits: ``[rows, ids]``, −inf where an id is not allowed.
            draws: Uniform in [0, 1), ``[rows]``.

        Example:
            >>> logits = np.log(np.array([[0.5, 0.3, 0.2]]))
            >>> [int(Sampling(top_k=2).pick(logits, np.array([u]))[0]) for u in (0.1, 0.99)]
            [0, 1]
        """
        if self.temperature == 0:
            return logits.argmax(axis=1)
        scaled = logits / self.temperature
        p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        order = None
        if self.top_k is not None or self.top_p is not None:
            order = np.argsort(-p, axis=1, kind="stable")
            p = np.take_along_axis(p, order, axis=1)
            if self.top_k is not None:
                p[:, self.top_k :] = 0.0
            if self.top_p is not None:
                before = p.cumsum(axis=1) - p
                p[before >= self.top_p * p.sum(axis=1, keepdims=True)] = 0.0
        cumulative = p.cumsum(axis=1)
        # Strictly beyond the draw, so that an id of probability 0 is never picked.
        picked = (cumulative <= (draws * cumulative[:, -1])[:, None]).sum(axis=1)
        picked = np.minimum(picked, p.shape[1] - 1)
        return picked if order is None else np.take_along_axis(order, picked[:, None], axis=1)[:, 0]


def generate(
    bundle: Bundle,
    source: Source,
    *,
    n_events: int,
    n_samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    entities: Sequence[Any] | None = None,
    context: int | None = None,
    batch_tokens: int = 16384,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Continue histories by future events.

    Args:
        bundle: A causal language model and its tokenizer.
        source: Histories: a table, a token store, or tokenized events.
        n_events: Future events per sample.
        n_samples: Independent futures per entity.
        temperature: See :class:`Sampling`.
        top_k: See there.
        top_p: See there.
        seed: Of the draws.
        entities: Only these entities, in this order; all by default.
        context: Longest window in tokens; the bundle's own by default.
        batch_tokens: Tokens held by the cache of one batch.
        progress: Called with (rows done, rows in all).

    Returns:
        ``n_events`` rows per entity and sample: the entity column, ``sample`` and ``step`` (both
        from 0), then the decoded columns of the schema.

    Raises:
        InputError: A sampling setting is out of range, or an entity is not in the source.
        ArtifactError: The model is a classifier, or its merged tokens have no grammar.
        FingerprintError: The source was made by another tokenizer.
    """
    sampling = Sampling(temperature, top_k, top_p)
    for name, value in (("n_events", n_events), ("n_samples", n_samples)):
        if value < 1:
            raise InputError(f"{name} must be 1 or more, not {value}")
    events, entity_column = tokenized(bundle, source)
    chosen = _choose(events, entities)
    room = _Room.of(generating_grammar(bundle), context or bundle.context, n_events)
    if bundle.tokenizer.budgets is not None:
        events = keep_within_budgets(events, bundle.tokenizer.budgets, room.past, prefix=0)
    rows = [(int(index), sample) for index in chosen for sample in range(n_samples)]
    step = max(1, batch_tokens // room.context)
    written: list[Ints] = []
    for start in range(0, len(rows), step):
        batch = rows[start : start + step]
        draws = [
            draws_of(seed, events.entity_ids[index], sample, room.longest_future)
            for index, sample in batch
        ]
        histories = [_history(events, index, room) for index, _ in batch]
        written += _Continuation(bundle, room, histories, draws, sampling).run()
        if progress is not None:
            progress(len(written), len(rows))
    decoded = bundle.tokenizer.decode(room.grammar.base_ids(np.concatenate(written)))
    return _as_table(decoded, events, entity_column, rows, n_events)


def draws_of(seed: int, entity: Any, sample: int, count: int) -> npt.NDArray[np.float64]:
    """The uniform numbers of one future; they depend on nothing else, and only grow with count.

    Example:
        >>> bool((draws_of(0, "anna", 1, 3) == draws_of(0, "anna", 1, 5)[:3]).all())
        True
    """
    name = f"{seed}\x1f{entity!r}\x1f{sample}".encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(count)


@dataclass(frozen=True)
class _Room:
    """How the context is divided between history and what is generated before it is renewed."""

    grammar: SlotGrammar | MergedGrammar
    context: int
    n_events: int
    fresh: int

    @classmethod
    def of(cls, grammar: SlotGrammar | MergedGrammar, context: int, n_events: int) -> _Room:
        longest = grammar.longest_event
        if context < 2 * longest + BOS_TOKENS:
            raise DataError(
                "the context is too short to generate events",
                why=f"it has {context} tokens, one event may have {longest}",
                next_step="use a model with a longer context",
            )
        fresh = max(longest, min(n_events * longest, context // 2))
        return cls(grammar, context, n_events, min(fresh, context - longest - BOS_TOKENS))

    @property
    def past(self) -> int:
        """Tokens that a history may fill."""
        return self.context - self.fresh - BOS_TOKENS

    @property
    def longest_future(self) -> int:
        """Most ids drawn for one row (the last may tell that a text has ended)."""
        return self.n_events * self.grammar.longest_event + 1


@dataclass
class _Row:
    """One growing history: ids, where its events begin, and how many ids were given."""

    ids: list[int]
    starts: list[int]
    given: int

    def window(self, room: int) -> list[int]:
        """The newest whole events (and a begun one) that fit."""
        first = len(self.ids) - room
        return self.ids[next((s for s in self.starts if s >= first), len(self.ids)) :]


def _history(events: TokenizedEvents, index: int, room: _Room) -> _Row:
    """The newest events of an entity, no more than can be used."""
    history = events.history(index)
    offsets = np.asarray(history.event_offsets)
    first = int(np.searchsorted(offsets, offsets[-1] - room.past))
    ids = np.asarray(history.ids[offsets[first] :]).astype(np.int64).tolist()
    starts = (offsets[first:-1] - offsets[first]).tolist()
    return _Row(ids, starts, len(ids))


class _Continuation:
    """Generates a batch of rows, all with one cache."""

    def __init__(
        self,
        bundle: Bundle,
        room: _Room,
        rows: list[_Row],
        draws: list[npt.NDArray[np.float64]],
        sampling: Sampling,
    ) -> None:
        self.bundle, self.room, self.rows, self.sampling = bundle, room, rows, sampling
        self.model = bundle.language_model
        self.draws = np.stack(draws)
        fields = SlotGrammar.of(bundle.tokenizer)
        without = np.concatenate([fields.unknown, fields.first])
        self.state = room.grammar.start(len(rows), without)
        self.done = np.zeros(len(rows), np.bool_)

    @torch.inference_mode()
    def run(self) -> list[Ints]:
        """The generated ids of each row: ``n_events`` whole events."""
        while not self.done.all():
            self._prefill()
            for _ in range(self.room.fresh):
                ids = self._step()
                if self.done.all():
                    break
                self._feed(ids)
        return [np.array(row.ids[row.given :], np.int64) for row in self.rows]

    def _step(self) -> Ints:
        """Pick the next id of every row that is not done, and write it down."""
        state = self.state
        last = state.events == self.room.n_events
        self.done |= last & state.over()
        logits = self.logits.float().cpu().double().numpy()
        logits[~state.allowed()] = -np.inf
        written = np.array([len(row.ids) - row.given for row in self.rows])
        draws = self.draws[np.arange(len(self.rows)), np.minimum(written, self.draws.shape[1] - 1)]
        ids = self.sampling.pick(logits, draws)
        opens = state.opens(ids)
        # The head of one event too many says that the last one has ended.
        self.done |= last & opens
        moving = ~self.done
        begins = moving & opens
        for index in np.flatnonzero(moving):
            row = self.rows[index]
            if begins[index]:
                row.starts.append(len(row.ids))
            row.ids.append(int(ids[index]))
        state.advance(ids, moving)
        return ids

    def _prefill(self) -> None:
        """Read the newest events of every row into a fresh cache, padded on the left."""
        bos, pad = self.bundle.tokenizer.bos_id, self.bundle.tokenizer.pad_id
        windows = [[bos, *row.window(self.room.past)] for row in self.rows]
        longest = max(map(len, windows))
        ids = np.full((len(windows), longest), pad, np.int64)
        mask = np.zeros_like(ids)
        for line, window in enumerate(windows):
            ids[line, longest - len(window) :] = window
            mask[line, longest - len(window) :] = 1
        self.mask = torch.from_numpy(mask).to(self.bundle.device)
        self.cache = None
        self._forward(torch.from_numpy(ids).to(self.bundle.device))

    def _feed(self, ids: Ints) -> None:
        device = self.bundle.device
        new = torch.from_numpy((~self.done).astype(np.int64)).to(device)
        self.mask = torch.cat([self.mask, new[:, None]], dim=1)
        self._forward(torch.from_numpy(ids).to(device)[:, None])

    def _forward(self, ids_BL: torch.Tensor) -> None:
        output = self.model(
            input_ids=ids_BL,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        self.logits = output.logits[:, -1]


def _choose(events: TokenizedEvents, entities: Sequence[Any] | None) -> Ints:
    """Indices of the entities asked for that have events."""
    if entities is None:
        has_events = np.diff(np.asarray(events.entity_offsets)) > 0
        return np.flatnonzero(has_events)
    index = {name: position for position, name in enumerate(events.entity_ids.to_list())}
    missing = [name for name in entities if name not in index]
    if missing:
        raise InputError(
            f"there is no entity {missing[0]!r}",
            why=f"{len(missing)} of {len(entities)} entities are not in the source",
            next_step=nearest(str(missing[0]), map(str, list(index)[:1000])),
        )
    return np.array([index[name] for name in entities], np.int64)


def _as_table(
    decoded: pl.DataFrame,
    events: TokenizedEvents,
    entity_column: str,
    rows: list[tuple[int, int]],
    n_events: int,
) -> pl.DataFrame:
    """Decoded events with the entity, the sample and the step they belong to in front."""
    indices = np.repeat([index for index, _ in rows], n_events)
    keys = {
        entity_column: events.entity_ids.gather(indices),
        "sample": pl.Series(np.repeat([sample for _, sample in rows], n_events), dtype=pl.Int32),
        "step": pl.Series(np.tile(np.arange(n_events), len(rows)), dtype=pl.Int32),
    }
    clash = {name: f"{name}_" for name in decoded.columns if name in keys}
    return pl.DataFrame(keys).hstack(decoded.rename(clash))
