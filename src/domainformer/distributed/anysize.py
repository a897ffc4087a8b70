"""Fitting and encoding a table of any size: read whole where it is small, streamed where it is not.

::

    glance ─┬─ small: EventTable.read ─▶ DomainTokenizer.fit, encode_to_store
            └─ several files, larger than the memory, several workers ─▶ fit_files, tokenize_files

Both ways fit the same tokenizer from the same schema, and write the same ids. A streamed store has
its entities in another order (that of their hashes).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.data import EventTable, TokenStore
from domainformer.data.splits import Cut
from domainformer.distributed.encoding import tokenize_files
from domainformer.distributed.fitting import fit_files
from domainformer.distributed.glance import Glance, glance
from domainformer.distributed.progress import ProgressCallback
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.base import FieldTokenizer

Say = Callable[[str], None]


def _silent(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Means:
    """What a job may use.

    Args:
        workers: Processes.
        engine: ``"local"``, ``"ray"`` or ``"spark"``.
        memory: What each process may use for events, beside the libraries themselves.
        work: Folder for unfinished work; None: ``<output>.partial``, removed in the end.
        resume: Go on with what an interrupted call has left there.
        progress: Called with a `Progress` after every unit of streamed work.
        say: Called with what a person should know.
    """

    workers: int = 1
    engine: str = "local"
    memory: int | str = "1GB"
    work: str | Path | None = None
    resume: bool = True
    progress: ProgressCallback | None = None
    say: Say = _silent

    def stream(self, seen: Glance, *, cut: bool) -> bool:
        """Whether a table is streamed; cuts and workers are a matter of the streaming path."""
        asked = self.workers > 1 or self.engine != "local" or self.work is not None
        if not (asked or cut or seen.is_large(self.memory)):
            return False
        files = "one file" if seen.n_files == 1 else f"{seen.n_files:,} files"
        self.say(f"streaming {seen.n_rows:,} rows of {files}")
        return True

    def options(self) -> dict[str, Any]:
        """What `fit_files` and `tokenize_files` take."""
        names = ("workers", "engine", "memory", "resume", "progress")
        return {name: getattr(self, name) for name in names}


def fit_table(
    source: str | Path,
    output: str | Path,
    schema: DomainSchema | None = None,
    *,
    entity: str | None = None,
    time: str | None = None,
    before: Cut | None = None,
    bpe_vocab_size: int = 4096,
    semantic_ids: Mapping[str, FieldTokenizer] | None = None,
    overwrite: bool = False,
    means: Means | None = None,
) -> DomainTokenizer:
    """Fit a tokenizer on a table of any size, and save it.

    Args:
        source: Parquet files of any size, or a smaller table of another format.
        output: Folder to write; the caller sees to it that it may be written.
        schema: The fields; None: inferred from the events, or from a sample of a large table.
        entity: The entity column; None: guessed where its name makes it plain.
        time: The time column; None: likewise.
        before: Fit on events before this time alone.
        bpe_vocab_size: Bytes and merges for text.
        semantic_ids: Semantic ids that were fitted apart, by field.
        overwrite: Replace an existing folder.
        means: Workers, memory and who is told.

    Raises:
        DomainformerError: As `fit_files` and `EventTable.read`.
    """
    means = means or Means()
    seen = glance(source, entity=entity, time=time)
    if not means.stream(seen, cut=before is not None):
        events = read_table(source, seen, means.say)
        fitted = DomainTokenizer(
            schema or DomainSchema.infer(events), bpe_vocab_size=bpe_vocab_size
        ).fit(events, semantic_ids=semantic_ids)
        fitted.save_pretrained(output, overwrite=overwrite)
        return fitted
    if schema is None:
        means.say(f"schema inferred from a sample of {seen.sample.n_events:,} events")
        schema = DomainSchema.infer(seen.sample)
    own = Path(output).with_name(f"{Path(output).name}.partial")
    fitted = fit_files(
        seen.source,
        schema,
        entity=seen.entity,
        time=seen.time,
        before=before,
        bpe_vocab_size=bpe_vocab_size,
        semantic_ids=semantic_ids,
        work=means.work or own,
        **means.options(),
    )
    fitted.save_pretrained(output, overwrite=overwrite)
    if means.work is None:
        shutil.rmtree(own, ignore_errors=True)
    return fitted


def tokenize_table(
    source: str | Path,
    tokenizer: DomainTokenizer,
    output: str | Path,
    *,
    entity: str | None = None,
    time: str | None = None,
    known: Mapping[str, Any] | None = None,
    validation_from: Cut | None = None,
    test_from: Cut | None = None,
    overwrite: bool = False,
    means: Means | None = None,
) -> TokenStore:
    """Encode a table of any size into a token store.

    Args:
        source: Parquet files of any size, or a smaller table of another format.
        tokenizer: A fitted tokenizer.
        output: Folder of the store.
        entity: The entity column; None: as ``known`` says, else guessed.
        time: The time column; None: likewise.
        known: ``entity`` and ``time`` of the table that a model was trained on.
        validation_from: Events from here on have the role "validation".
        test_from: Events from here on have the role "test".
        overwrite: Replace an existing store.
        means: Workers, memory and who is told.

    Raises:
        DomainformerError: As `tokenize_files` and `EventTable.read`.
    """
    means = means or Means()
    seen = glance(source, entity=entity, time=time, known=known)
    cut = validation_from is not None or test_from is not None
    if not means.stream(seen, cut=cut):
        events = read_table(source, seen, means.say)
        return tokenizer.encode_to_store(events, output, overwrite=overwrite)
    return tokenize_files(
        seen.source,
        tokenizer,
        output,
        entity=seen.entity,
        time=seen.time,
        validation_from=validation_from,
        test_from=test_from,
        overwrite=overwrite,
        work=means.work,
        **means.options(),
    )


def read_table(source: str | Path, seen: Glance, say: Say) -> EventTable:
    """A table that fits in memory, as a first look has named its columns."""
    events = EventTable.read(source, entity=seen.entity, time=seen.time)
    for note in events.notes:
        say(note)
    return events
