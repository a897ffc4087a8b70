"""Predicting from raw rows: a fusion model with all that reads its inputs, in one folder.

::

    events table ─▶ tokenizer ─▶ newest histories ─┐
                                                   ├─ joined by key ─▶ JointFusionModel ─▶ frame
    tabular frame ─▶ TabularSchema ────────────────┘   (its scaler is in its weights)

    fusion/
      config.json, model.safetensors      the model; scalers and bins are buffers in it
      fusion.json                         columns, categories, targets, key, fingerprints, record
      tokenizer.json, schema.yaml, …      only where it reads events
      manifest.json                       size and SHA-256 of every file, written last
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from domainformer.artifacts import read_facts, staged_directory, verify_directory, write_json
from domainformer.data import EventTable
from domainformer.data.histories import NewestHistories
from domainformer.data.tabular import TabularArrays, TabularSchema
from domainformer.errors import DataError, FingerprintError, nearest
from domainformer.models import JointFusionModel
from domainformer.models.families.loading import without_progress_bar
from domainformer.tokenizers import DomainTokenizer, hub
from domainformer.version import __version__

FUSION_FILE = "fusion.json"
FORMAT_VERSION = 1
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FusionTarget:
    """One thing that is predicted.

    Args:
        name: The label's column.
        kind: ``binary``, ``multiclass`` or ``regression``.
        classes: The values of the label, sorted; a binary target predicts the second.
        center: Mean of a regression's training labels.
        scale: Their standard deviation.
    """

    name: str
    kind: str
    classes: tuple[Any, ...] = ()
    center: float = 0.0
    scale: float = 1.0

    @property
    def outputs(self) -> int:
        """Logits of this target."""
        return len(self.classes) if self.kind == "multiclass" else 1

    def predict(self, logits: torch.Tensor) -> Floats:
        """Probabilities, or values in the label's own units, of logits [n, outputs]."""
        logits = logits.double()
        if self.kind == "multiclass":
            result = logits.softmax(-1)
        elif self.kind == "binary":
            result = logits[:, 0].sigmoid()
        else:
            result = logits[:, 0] * self.scale + self.center
        return np.asarray(result.cpu().numpy(), np.float64)


@dataclass(frozen=True, eq=False)
class FusionInputs:
    """Examples as a model reads them: ``inputs[i]`` is one row.

    Args:
        histories: The newest history of each example; None where events are not read.
        tabular: The features of each example.
    """

    histories: NewestHistories | None
    tabular: TabularArrays

    def __len__(self) -> int:
        return len(self.tabular)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        if self.histories is None:
            return np.zeros(len(self), np.int64)
        return self.histories.lengths

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = np.empty(0, np.int64) if self.histories is None else self.histories[index]
        return {
            "input_ids": ids,
            "numbers": self.tabular.numbers[index],
            "codes": self.tabular.codes[index],
        }


def collate_fusion(rows: Sequence[Mapping[str, Any]], pad_id: int = 0) -> dict[str, torch.Tensor]:
    """Rows of :class:`FusionInputs` as one batch, histories padded on the right.

    Args:
        rows: The rows; ``labels`` float [targets] are kept where they have them.
        pad_id: The padding token's id.
    """
    batch = {
        "numbers": torch.from_numpy(np.stack([row["numbers"] for row in rows])),
        "codes": torch.from_numpy(np.stack([row["codes"] for row in rows])),
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    if int(lengths.max()):
        ids = torch.full((len(rows), int(lengths.max())), pad_id)
        for line, row in enumerate(rows):
            ids[line, : len(row["input_ids"])] = torch.from_numpy(row["input_ids"])
        batch["input_ids"] = ids
        batch["attention_mask"] = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    if "labels" in rows[0]:
        batch["labels"] = torch.from_numpy(np.stack([row["labels"] for row in rows]))
    return batch


@dataclass(frozen=True, eq=False)
class FusionPredictor:
    """A fusion model that reads raw rows.

    Args:
        model: In evaluation mode.
        tabular: How its tabular features are read.
        targets: What it predicts.
        key: Column of the frame that names the entity of the events.
        tokenizer: How events are read; None where they are not.
        context: Most tokens of a history.
        record: Plain data of the training (settings, losses).
    """

    model: JointFusionModel
    tabular: TabularSchema
    targets: tuple[FusionTarget, ...]
    key: str
    tokenizer: DomainTokenizer | None = None
    context: int = 256
    record: dict[str, Any] = field(default_factory=dict)

    def predict(
        self, frame: pl.DataFrame, events: EventTable | None = None, *, batch_tokens: int = 16384
    ) -> pl.DataFrame:
        """Predict every row of a frame.

        Args:
            frame: One row per example: the key, and the columns of training.
            events: Histories of the keys; needed where the model reads them. A key without
                events is read as an empty history.
            batch_tokens: Tokens per forward pass, padding included.

        Returns:
            The key and, for each target: binary ``name`` (the probability of its second class),
            multiclass ``name_class`` for each class, regression ``name`` (in its own units).

        Raises:
            DataError: Columns or events are missing, or no key has events though there are some.
        """
        logits, _ = self._forward(self.inputs(frame, events), batch_tokens)
        columns: dict[str, Any] = {}
        if self.key in frame.columns:
            columns[self.key] = frame[self.key]
        for target, values in zip(self.targets, self._split(logits), strict=True):
            if target.kind == "multiclass":
                names = [f"{target.name}_{value}" for value in target.classes]
                columns |= {name: values[:, i] for i, name in enumerate(names)}
            else:
                columns[target.name] = values
        return pl.DataFrame(columns)

    def predict_array(
        self,
        frame: pl.DataFrame,
        events: EventTable | None = None,
        *,
        target: str | None = None,
        batch_tokens: int = 16384,
    ) -> Floats:
        """As :meth:`predict`, one target as an array: float64 [n], or [n, classes].

        Args:
            frame: As there.
            events: As there.
            target: Its name; None: the first.
            batch_tokens: As there.

        Raises:
            DataError: As there, or there is no such target.
        """
        names = [each.name for each in self.targets]
        if target is not None and target not in names:
            raise DataError(f"there is no target {target!r}", next_step=nearest(target, names))
        logits, _ = self._forward(self.inputs(frame, events), batch_tokens)
        return self._split(logits)[0 if target is None else names.index(target)]

    def embed(
        self, frame: pl.DataFrame, events: EventTable | None = None, *, batch_tokens: int = 16384
    ) -> pl.DataFrame:
        """The joint vector of every row, before the head: the key and ``embedding``.

        Arguments and errors are those of :meth:`predict`.
        """
        _, vectors = self._forward(self.inputs(frame, events), batch_tokens)
        values = vectors.float().cpu().numpy()
        column = pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))
        keys = {self.key: frame[self.key]} if self.key in frame.columns else {}
        return pl.DataFrame({**keys, "embedding": column})

    def inputs(self, frame: pl.DataFrame, events: EventTable | None) -> FusionInputs:
        """Raw rows as the model reads them."""
        if not frame.height:
            raise DataError("there are no examples", where="the frame", why="it has no rows")
        histories = None
        if self.tokenizer is not None:
            histories = read_histories(self.tokenizer, frame, events, self.key, self.context)
        return FusionInputs(histories, self.tabular.encode(frame))

    def _split(self, logits: torch.Tensor) -> list[Floats]:
        parts = logits.split([target.outputs for target in self.targets], dim=1)
        return [target.predict(part) for target, part in zip(self.targets, parts, strict=True)]

    @torch.no_grad()
    def _forward(
        self, inputs: FusionInputs, batch_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [n, outputs] and joint vectors [n, width], in the order of the inputs."""
        pad_id = 0 if self.tokenizer is None else self.tokenizer.pad_id
        logits = torch.empty(len(inputs), self.model.config.n_outputs)
        vectors = torch.empty(len(inputs), self.model.config.hidden_size)
        for chosen in _batches(inputs.lengths, batch_tokens):
            batch = collate_fusion([inputs[int(i)] for i in chosen], pad_id)
            output = self.model(**{k: v.to(self.model.device) for k, v in batch.items()})
            logits[chosen] = output.logits.float().cpu()
            vectors[chosen] = output.embedding.float().cpu()
        return logits, vectors

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write everything into one folder, whole or not at all.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
        """
        folder = Path(folder)
        named = None if self.tokenizer is None else self.tokenizer.fingerprint
        self.model.config.tokenizer_fingerprint = named
        facts = {
            "format": FORMAT_VERSION,
            "domainformer": __version__,
            "key": self.key,
            "context": self.context,
            "tabular": self.tabular.to_json(),
            "targets": [asdict(target) for target in self.targets],
            "tokenizer_fingerprint": named,
            "record": self.record,
        }
        with staged_directory(folder, overwrite=overwrite, meta={"kind": "fusion"}) as staging:
            with without_progress_bar():
                self.model.save_pretrained(staging)
            if self.tokenizer is not None:
                hub.write_files(self.tokenizer, staging)
            write_json(staging / FUSION_FILE, facts)
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Read a folder written by :meth:`save`.

        Raises:
            ArtifactError: The folder is no fusion model, is incomplete or damaged.
            FingerprintError: Tokenizer and weights do not belong together.
        """
        folder = Path(folder)
        facts = _read_facts(folder)
        verify_directory(folder)
        named = facts["tokenizer_fingerprint"]
        tokenizer = None if named is None else DomainTokenizer.from_pretrained(folder)
        with without_progress_bar():
            model = JointFusionModel.from_pretrained(folder)
        found = None if tokenizer is None else tokenizer.fingerprint
        if {named, getattr(model.config, "tokenizer_fingerprint", None)} != {found}:
            raise FingerprintError(
                "the model was trained with another tokenizer",
                where=str(folder),
                why=f"{FUSION_FILE} names {named}, the folder holds {found}",
                next_step="restore the folder from a copy; its parts cannot be mixed",
            )
        return cls(
            model=model.to(device).eval(),
            tabular=TabularSchema.from_json(facts["tabular"]),
            targets=tuple(
                FusionTarget(**{**target, "classes": tuple(target["classes"])})
                for target in facts["targets"]
            ),
            key=facts["key"],
            tokenizer=tokenizer,
            context=int(facts["context"]),
            record=facts["record"],
        )


def read_histories(
    tokenizer: DomainTokenizer,
    frame: pl.DataFrame,
    events: EventTable | None,
    key: str,
    context: int,
) -> NewestHistories:
    """The newest histories of a frame's keys.

    Raises:
        DataError: There is no events table, no key column, a null key, or no key has events.
    """
    if events is None:
        raise DataError(
            "the model reads histories, and no events were given",
            next_step="pass events=…, an EventTable whose entity is the frame's key",
        )
    if key not in frame.columns:
        raise DataError(
            f"there is no key column {key!r}",
            where="the frame of examples",
            next_step=nearest(key, frame.columns),
        )
    keys = frame[key]
    if keys.null_count():
        raise DataError(
            f"{keys.null_count():,} keys are null",
            where=f"column {key!r} of the frame of examples",
            next_step="leave out these rows, or name their entity",
        )
    if not events.n_events:  # new entities alone: a history of nothing is no mistake
        none = np.zeros(len(keys), np.int64)
        return NewestHistories(np.empty(0, np.int64), none, none + 1, tokenizer.bos_id)
    events = events_of(events, keys)
    return NewestHistories.of(
        tokenizer.encode(events),
        keys,
        context=context,
        bos_id=tokenizer.bos_id,
        budgets=tokenizer.budgets,
    )


def events_of(events: EventTable, keys: pl.Series) -> EventTable:
    """The events of some keys; all of them where no key has any (the caller tells why)."""
    wanted = keys.cast(events.entity_ids.dtype, strict=False).unique()
    chosen = np.flatnonzero(events.entity_ids.is_in(wanted.implode()).to_numpy())
    return events.take_entities(chosen) if 0 < len(chosen) < events.n_entities else events


def _batches(lengths: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices, longest first; without histories rows are counted as eight tokens."""
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        rows = max(1, batch_tokens // max(8, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def _read_facts(folder: Path) -> dict[str, Any]:
    return read_facts(
        folder,
        FUSION_FILE,
        kind="fusion model",
        version=FORMAT_VERSION,
        remedy="write one with FusionPredictor.save, or open a bundle with load_bundle",
    )
