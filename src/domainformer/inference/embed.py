"""A vector per entity: the model's hidden state over the newest window of its history.

Entities are taken in chunks, so memory does not grow with their number; within a chunk, windows of
similar length share a batch. The vector of an entity depends on its own history alone: padding
stands on the right, where causal attention never looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from domainformer.data.budgets import keep_within_budgets
from domainformer.data.packing import plan_windows
from domainformer.data.store import TokenStore
from domainformer.data.table import EventTable
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ArtifactError, DataError, InputError
from domainformer.inference.bundle import Bundle
from domainformer.models import Pooling, pool_hidden

Source = EventTable | TokenStore | TokenizedEvents
BOS_TOKENS = 1
CHUNK_ENTITIES = 8192


@dataclass(frozen=True)
class _Plan:
    """Newest windows of the entities that have events, in the order of the source."""

    events: TokenizedEvents
    first_token: npt.NDArray[np.int64]
    n_tokens: npt.NDArray[np.int64]
    n_events: npt.NDArray[np.int64]
    names: pl.Series


def embed(
    bundle: Bundle,
    source: Source,
    *,
    how: Pooling = "last",
    context: int | None = None,
    batch_tokens: int = 16384,
    permutations: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Embed every entity.

    Args:
        bundle: Model and tokenizer.
        source: A table (tokenized here), a token store, or tokenized events.
        how: ``"last"`` is the hidden state at the newest token, ``"mean"`` the mean over all
            tokens of the window.
        context: Longest window in tokens; the bundle's own by default.
        batch_tokens: Tokens per forward pass, padding included.
        permutations: For a model with merges: average over so many permuted encodings of each
            history, for which an event's tokens are put in random order; 0 takes the greedy one.
        progress: Called with (entities done, entities in all).

    Returns:
        One row per entity with events, in the order of the source: the entity column (its own
        name for a table, ``entity`` otherwise), ``n_events`` used, and ``embedding``, an array of
        float32 as wide as the model.

    Raises:
        FingerprintError: The source was made by another tokenizer.
        DataError: There are no events, or an event is longer than the context.
        InputError: Permutations were asked for, and the model reads no merged tokens.
    """
    chunks = _embedded(bundle, source, how, context, batch_tokens, permutations, progress)
    return pl.concat(list(chunks))


def embed_to_parquet(
    bundle: Bundle,
    source: Source,
    path: str | Path,
    *,
    how: Pooling = "last",
    context: int | None = None,
    batch_tokens: int = 16384,
    permutations: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """As :func:`embed`, streamed into a Parquet file that appears whole or not at all.

    Args:
        bundle: Model and tokenizer.
        source: As in :func:`embed`.
        path: The file; it is replaced where it exists.
        how: As in :func:`embed`.
        context: As there.
        batch_tokens: As there.
        permutations: As there.
        progress: As there.

    Raises:
        ArtifactError: The file cannot be written.
    """
    path = Path(path)
    chunks = _embedded(bundle, source, how, context, batch_tokens, permutations, progress)
    staging = path.with_name(f".{path.name}.staging")
    writer: pq.ParquetWriter | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for chunk in chunks:
            block = chunk.to_arrow()
            writer = writer or pq.ParquetWriter(staging, block.schema, compression="zstd")
            writer.write_table(block)
        if writer is not None:
            writer.close()
        staging.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{path} could not be written", why=str(error), next_step="check the path and the disk"
        ) from error
    finally:
        staging.unlink(missing_ok=True)
    return path


def _embedded(
    bundle: Bundle,
    source: Source,
    how: Pooling,
    context: int | None,
    batch_tokens: int,
    permutations: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[pl.DataFrame]:
    """Frames of some thousand entities; of several encodings the mean."""
    if not permutations:
        plan, name = _plan(bundle, source, how, context)
        return _chunks(bundle, plan, name, how, batch_tokens, progress)
    encodings, name = _permuted(bundle, source, permutations)
    plans = [_plan(bundle, events, how, context)[0] for events in encodings]
    told = [progress, *([None] * (len(plans) - 1))]
    return map(
        _mean_frame,
        zip(
            *(
                _chunks(bundle, plan, name, how, batch_tokens, tell)
                for plan, tell in zip(plans, told, strict=True)
            ),
            strict=True,
        ),
    )


def _permuted(
    bundle: Bundle, source: Source, permutations: int
) -> tuple[list[TokenizedEvents], str]:
    """Several encodings of the same histories, and the name of their entity column."""
    merges = bundle.merges
    if merges is None:
        raise InputError(
            "this model reads each field as a token of its own, in one order",
            why="averaging over permutations is for models that were trained with merges",
            next_step="leave permutations out, or train with tokenizer.merges",
        )
    events = source.events() if isinstance(source, TokenStore) else source
    name = events.entity if isinstance(events, EventTable) else "entity"
    if isinstance(events, EventTable):
        events = bundle.tokenizer.encode(events)
    elif events.tokenizer_fingerprint == merges.fingerprint:
        events = merges.decode(events)
    return merges.permutations(replace(events, roles=None), permutations), name


def _mean_frame(frames: tuple[pl.DataFrame, ...]) -> pl.DataFrame:
    """The first frame with the mean of all embeddings."""
    vectors = np.stack([frame["embedding"].to_numpy() for frame in frames])
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    shape = pl.Array(pl.Float32, mean.shape[1])
    return frames[0].with_columns(embedding=pl.Series(mean, dtype=shape))


def _plan(bundle: Bundle, source: Source, how: Pooling, context: int | None) -> tuple[_Plan, str]:
    if how not in get_args(Pooling):
        raise DataError(
            f"there is no pooling {how!r}",
            next_step=f"choose one of: {', '.join(get_args(Pooling))}",
        )
    events, name = tokenized(bundle, source)
    if bundle.tokenizer.budgets is not None:
        room = context or bundle.context
        events = keep_within_budgets(events, bundle.tokenizer.budgets, room, prefix=BOS_TOKENS)
    windows = plan_windows(
        events.event_offsets,
        events.entity_offsets,
        context or bundle.context,
        keep="newest",
        prefix=BOS_TOKENS,
    )
    order = np.argsort(windows.entity, kind="stable")
    start = windows.event_start[order]
    if not len(order):
        raise DataError("there are no events to embed", next_step="check the table and its filters")
    plan = _Plan(
        events=events,
        first_token=np.asarray(events.event_offsets)[start],
        n_tokens=windows.n_tokens[order],
        n_events=windows.event_stop[order] - start,
        names=events.entity_ids.gather(windows.entity[order]),
    )
    return plan, name


def tokenized(bundle: Bundle, source: Source) -> tuple[TokenizedEvents, str]:
    """Histories as the ids of a bundle's model, and the name of their entity column.

    Raises:
        FingerprintError: The source was made by another tokenizer.
    """
    events = source.events() if isinstance(source, TokenStore) else source
    name = events.entity if isinstance(events, EventTable) else "entity"
    return bundle.encode(events), name


def _chunks(
    bundle: Bundle,
    plan: _Plan,
    name: str,
    how: Pooling,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[pl.DataFrame]:
    """Frames of some thousand entities, in order."""
    total = len(plan.n_tokens)
    for start in range(0, total, CHUNK_ENTITIES):
        rows = np.arange(start, min(start + CHUNK_ENTITIES, total))
        vectors = np.empty((len(rows), bundle.model.config.hidden_size), np.float32)
        done = start
        for batch in _batches(plan.n_tokens[rows], batch_tokens):
            vectors[batch] = _forward(bundle, plan, rows[batch], how)
            done += len(batch)
            if progress is not None:
                progress(done, total)
        shape = pl.Array(pl.Float32, vectors.shape[1])
        yield pl.DataFrame(
            {
                name: plan.names[int(rows[0]) : int(rows[-1]) + 1],
                "n_events": plan.n_events[rows],
                "embedding": pl.Series(vectors, dtype=shape),
            }
        )


def _batches(lengths: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices in batches, longest first, each at most ``batch_tokens`` with its padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // int(lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


@torch.inference_mode()
def _forward(
    bundle: Bundle, plan: _Plan, rows: npt.NDArray[np.int64], how: Pooling
) -> npt.NDArray[np.float32]:
    lengths = plan.n_tokens[rows]
    ids = np.full((len(rows), int(lengths.max())), bundle.tokenizer.pad_id, np.int64)
    ids[:, 0] = bundle.tokenizer.bos_id
    for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        start = int(plan.first_token[row])
        ids[line, BOS_TOKENS:length] = plan.events.ids[start : start + int(length) - BOS_TOKENS]
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    device = bundle.device
    mask_BL = torch.from_numpy(mask.astype(np.int64)).to(device)
    hidden_BLW = bundle.model.base_model(
        input_ids=torch.from_numpy(ids).to(device), use_cache=False
    ).last_hidden_state
    pooled = pool_hidden(hidden_BLW, {"attention_mask": mask_BL}, how=how)
    return np.asarray(pooled.float().cpu().numpy(), dtype=np.float32)
