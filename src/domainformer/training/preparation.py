"""From the table to everything that training starts from, written into the run folder.

::

    table ─▶ split ─▶ schema (given, or inferred from training events)
                 └─▶ tokenizer (fitted on training events) ─▶ token store with roles
                                     merges, if asked for ◀──┘

Only training events are looked at by anything that learns: the schema's evidence, the bins, the
vocabularies. All events are encoded, each with its role, so that evaluation finds the others.
A run that is taken up again finds the finished parts and does not read the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domainformer.data import EventTable
from domainformer.data.splits import Split, split_by_entity, split_by_time
from domainformer.data.store import TokenStore
from domainformer.errors import ConfigError, FingerprintError, nearest
from domainformer.run import Run
from domainformer.schema import PRESETS, DomainSchema
from domainformer.schema.infer import infer_schema
from domainformer.tokenizers import ActionPieceMerges, DomainTokenizer
from domainformer.training.config import RunConfig, SplitConfig
from domainformer.training.merging import check_schema, merges_of_run

SCHEMA_FILE = "schema.yaml"
TOKENIZER_FOLDER = "tokenizer"
STORE_FOLDER = "store"


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Args:
        tokenizer: Fitted on training events.
        store: All events as tokens, with their roles.
        split: The record of the split.
        merges: Tokens of several fields, learned from training events; None: there are none.
    """

    tokenizer: DomainTokenizer
    store: TokenStore
    split: dict[str, Any]
    merges: ActionPieceMerges | None = None

    @property
    def vocab_size(self) -> int:
        """Ids that a model needs."""
        return (self.merges or self.tokenizer).vocab_size


def prepare(
    config: RunConfig,
    run: Run,
    *,
    table: EventTable | None = None,
    schema: DomainSchema | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Read, split, infer, fit and encode; or open what an earlier start of this run has finished.

    Args:
        config: The configuration.
        run: The open run; its record receives fingerprints and split.
        table: The events, where they are at hand; otherwise ``data.path`` is read.
        schema: The schema, where it is at hand; otherwise ``schema`` of the configuration.
        say: Receives lines for the user.

    Raises:
        ConfigError: There is no table, no such schema, or the label is one of its fields.
        DataError: The table cannot be read, split or encoded.
    """
    done = _already_prepared(run)
    if done is None:
        done = _prepare(config, run, table, schema, say)
    else:
        say(f"found {done.store.n_events:,} tokenized events")
    if config.tokenizer.merges is None:
        return done
    settings = config.tokenizer.merges
    merges = merges_of_run(run.directory, settings, done.tokenizer, done.store, say=say)
    return replace(done, merges=merges)


def _prepare(
    config: RunConfig,
    run: Run,
    table: EventTable | None,
    schema: DomainSchema | None,
    say: Callable[[str], None],
) -> Prepared:
    """Read, split, infer, fit and encode."""
    table = read_table(config) if table is None else table
    for note in table.notes:
        say(note)
    split = make_split(table, config.split)
    training = split.events(table, "train")
    schema = schema or find_schema(config, training)
    _check_label(schema, config.data.label)
    if config.tokenizer.merges is not None:
        check_schema(schema)
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=config.tokenizer.bpe_vocab_size)
    tokenizer.fit(training)
    run.update(
        data_fingerprint=table.fingerprint(),
        schema_fingerprint=schema.fingerprint(),
        tokenizer_fingerprint=tokenizer.fingerprint,
        split=split.record,
    )
    schema.to_yaml(run.directory / SCHEMA_FILE)
    tokenizer.save_pretrained(run.directory / TOKENIZER_FOLDER, overwrite=True)
    store = tokenizer.encode_to_store(
        table,
        run.directory / STORE_FOLDER,
        roles=split.roles,
        overwrite=True,
        meta={"run": run.record.id, "notes": table.notes},
    )
    say(f"tokenized {store.n_events:,} events of {store.n_entities:,} entities: {tokenizer!r}")
    return Prepared(tokenizer, store, split.record)


def read_table(config: RunConfig) -> EventTable:
    """The table that a configuration names.

    Raises:
        ConfigError: It names none.
        DataError: It cannot be read.
    """
    data = config.data
    if data.path is None:
        raise ConfigError(
            "the configuration names no table",
            where="data.path",
            next_step="set data.path (and data.entity, data.time), or pass table=EventTable…",
        )
    return EventTable.read(
        data.path, entity=data.entity, time=data.time, columns=_with_label(data.columns, data.label)
    )


def make_split(table: EventTable, config: SplitConfig) -> Split:
    """The split that a configuration describes."""
    if config.kind == "entity":
        return split_by_entity(table, fractions=config.fractions, seed=config.seed)
    return split_by_time(
        table,
        validation_from=config.validation_from,
        test_from=config.test_from,
        fractions=config.fractions,
    )


def find_schema(config: RunConfig, training: EventTable) -> DomainSchema:
    """The schema from a file, a preset, or (none named) inferred from training events.

    Raises:
        ConfigError: The name is neither a file nor a preset.
    """
    named = config.schema
    if named is None:
        return infer_schema(training, label=config.data.label).schema
    if Path(named).is_file():
        return DomainSchema.from_yaml(named)
    if named in PRESETS:
        return PRESETS[named]
    raise ConfigError(
        f"there is no schema {named!r}",
        where="schema",
        why="it is neither a file nor a preset",
        next_step=nearest(named, PRESETS),
    )


def _already_prepared(run: Run) -> Prepared | None:
    """The parts that an earlier start of this run has finished, or None.

    Each part appears whole or not at all, and the store is the last of them.
    """
    folder, record = run.directory, run.record
    if record.split is None or not (folder / STORE_FOLDER).is_dir():
        return None
    tokenizer = DomainTokenizer.from_pretrained(folder / TOKENIZER_FOLDER)
    store = TokenStore.open(folder / STORE_FOLDER, verify=True)
    names = {record.tokenizer_fingerprint, tokenizer.fingerprint, store.tokenizer_fingerprint}
    if len(names) > 1:
        raise FingerprintError(
            f"the parts of {folder} were not made for each other",
            why=f"run.json, tokenizer and store name the tokenizers {sorted(map(str, names))}",
            next_step="delete the folder and start the run again",
        )
    return Prepared(tokenizer, store, record.split)


def _check_label(schema: DomainSchema, label: str | None) -> None:
    if label is not None and label in {field.source for field in schema.fields}:
        raise ConfigError(
            f"the label {label!r} is a field of the schema",
            where="data.label",
            why="the model would read in every event what it shall predict later",
            next_step="take the field out of the schema, or leave data.label out",
        )


def _with_label(columns: tuple[str, ...] | None, label: str | None) -> list[str] | None:
    if columns is None:
        return None
    return [*columns, *([label] if label and label not in columns else [])]
