"""SimpleDataModule and AdaptiveTokenizerDataModule: texts to batches, for a Lightning trainer.

::

    HF data set, files, list ─▶ documents ─split─▶ train, validation ─tokenizer─▶ ids ─▶ TextRows
                                                     └─ AdaptiveTokenizer.fit sees these alone
                                              EpochLoader ─▶ input_ids, labels, and a mask (pad)
                                                             or position_ids (pack)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from domainformer.artifacts import fingerprint
from domainformer.data.text import Document, SplitBy, split_text, text_fingerprint
from domainformer.errors import (
    ConfigError,
    FingerprintError,
    MissingExtraError,
    nearest,
)
from domainformer.models.batching import Collator
from domainformer.tokenizers.language.adaptive import AdaptiveTokenizer
from domainformer.tokenizers.language.view import TextView, view_of
from domainformer.training.lightning.loader import EpochLoader
from domainformer.training.lightning.rows import Collate, TextRows
from domainformer.training.lightning.sources import documents_of, parts_of

try:
    from lightning.pytorch import LightningDataModule
except ImportError as error:
    raise MissingExtraError(
        "lightning", extra="lightning", purpose="a Lightning data module"
    ) from error

Part = Literal["train", "validation"]
_TENSORS = ("input_ids", "labels", "attention_mask", "position_ids")


class SimpleDataModule(LightningDataModule):
    """Texts and a tokenizer to batches for a causal language model.

    Args:
        source: Texts: a path (file, folder or pattern), a list of texts, or a data set of Hugging
            Face; of a ``DatasetDict`` the part ``train``, and ``validation`` where it has one.
        tokenizer: Of transformers, `tokenizers` or this library.
        context: Most ids of a row, at least 2.
        batch_size: Rows per batch.
        validation: Share of the texts, in (0, 1); or texts of their own, of any kind as `source`.
        split_by: ``document`` draws whole texts (equal ones stay on one side), ``position`` cuts
            each; None is by document where there are two different ones.
        collate: ``pad`` gives one text per row and ``attention_mask``; ``pack`` several, and
            ``position_ids`` that begin anew with each text, by which models of transformers keep
            them apart; and ``use_cache`` false, without which they silently do not.
        text_column: Of a data set of Hugging Face.
        end: Whether the end token, if there is one, ends each text.
        workers: Processes that make batches.
        pin_memory: None pins where there is a GPU.
        seed: Of the split and of the order of every epoch.

    Raises:
        ConfigError: An argument is out of range.
        DataError: There are no texts, or too few to split.

    Example:
        >>> from domainformer.tokenizers import CharacterTokenizer
        >>> texts = [f"verse {number}: to be or not to be" for number in range(10)]
        >>> data = SimpleDataModule(texts, CharacterTokenizer.fit(texts), context=32, batch_size=4)
        >>> data.setup()
        >>> batch = data.sample_batch()
        >>> batch["input_ids"].shape, sorted(batch)
        (torch.Size([4, 28]), ['attention_mask', 'input_ids', 'labels'])
        >>> data.describe()["validation"]["texts"]
        1
    """

    def __init__(
        self,
        source: Any,
        tokenizer: Any,
        *,
        context: int = 256,
        batch_size: int = 8,
        validation: Any = 0.1,
        split_by: SplitBy | None = None,
        collate: Collate = "pad",
        text_column: str = "text",
        end: bool = True,
        workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if any(not isinstance(one, int) for one in (workers, batch_size, seed)) or not (
            workers >= 0 and batch_size >= 1 and seed >= 0
        ):
            raise ConfigError(
                "a number is out of range",
                why=f"batch_size {batch_size} (at least 1), workers {workers}, seed {seed} "
                "(not negative)",
            )
        self.source, self.tokenizer, self.validation = source, tokenizer, validation
        self.context, self.batch_size, self.collate = context, batch_size, collate
        self.split_by, self.text_column, self.end, self.seed = split_by, text_column, end, seed
        self.workers = workers
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._rows: dict[Part, TextRows] = {}
        self._texts: dict[Part, list[Document]] = {}
        self._resumed: str | None = None

    # ── from texts to rows ───────────────────────────────────────────────────────────────────

    def setup(self, stage: str | None = None) -> None:
        """Read, split and encode; once, whatever the stage."""
        if self._rows:
            return
        train, validation = self._split()
        view = self._tokenizer_of(train)
        end = view.specials().get("eos", ("", None))[1] if self.end else None
        for part, documents in (("train", train), ("validation", validation)):
            ids = view.encode_all([document.text for document in documents])
            self._texts[part] = documents  # type: ignore[index]
            self._rows[part] = TextRows(  # type: ignore[index]
                ids,
                context=self.context,
                collate=self.collate,
                eos_id=end,
                seed=self.seed,
                shuffle=part == "train",
            )
        self._check_resumed()

    def _split(self) -> tuple[list[Document], list[Document]]:
        train, given = parts_of(self.source, self.text_column)
        if not isinstance(self.validation, int | float):
            return train, documents_of(self.validation, self.text_column)
        if given is not None:
            return train, given
        by = self.split_by
        if by is None:
            by = "document" if len({document.text for document in train}) > 1 else "position"
        return split_text(train, by=by, fraction=float(self.validation), seed=self.seed)

    def _tokenizer_of(self, train: list[Document]) -> TextView:
        return view_of(self.tokenizer)

    # ── loaders ──────────────────────────────────────────────────────────────────────────────

    def train_dataloader(self) -> EpochLoader:
        """Batches of training, resumable in mid-epoch."""
        return self._loader("train")

    def val_dataloader(self) -> EpochLoader:
        """Batches of validation, the same in every epoch."""
        return self._loader("validation")

    def _loader(self, part: Part) -> EpochLoader:
        self.setup()
        return EpochLoader(
            self._rows[part],
            partial(_collate, Collator(self._pad_id, packed=self.collate == "pack")),
            batch_size=self.batch_size,
            workers=self.workers,
            pin_memory=self.pin_memory,
            fixed=part == "validation",
        )

    @property
    def _pad_id(self) -> int:
        """What fills rows up: masked, so that any id does where there is no padding token."""
        specials = view_of(self.tokenizer).specials()
        ids = (specials.get(role, ("", None))[1] for role in ("pad", "eos"))
        return next((index for index in ids if index is not None), 0)

    # ── looking at it ────────────────────────────────────────────────────────────────────────

    def sample_batch(
        self, part: Part = "train", *, epoch: int = 0, index: int = 0
    ) -> dict[str, Any]:
        """Any batch of any epoch; nothing moves by it.

        Args:
            part: ``train`` or ``validation``.
            epoch: From 0.
            index: From 0; within the epoch.

        Raises:
            ConfigError: There is no such part.
            CheckpointError: There is no such batch.
        """
        if part not in ("train", "validation"):
            raise ConfigError(
                f"there is no part {part!r}", next_step=nearest(part, ("train", "validation"))
            )
        self.setup()
        rows = self._rows[part]
        before = rows.epoch
        loader = self._loader(part)
        loader.workers, loader.pin_memory = 0, False
        loader.load_state_dict({"epoch": 0 if loader.fixed else epoch, "batch": index})
        try:
            batch: dict[str, Any] = next(iter(loader))
            return batch
        finally:
            rows.set_epoch(before)

    def render_sample(self, part: Part = "train", *, epoch: int = 0, index: int = 0) -> str:
        """The texts of a batch as the model reads them, a line per row."""
        batch, view = self.sample_batch(part, epoch=epoch, index=index), view_of(self.tokenizer)
        mask = batch.get("attention_mask")
        kept = [
            row if mask is None else row[mask[number].bool()]
            for number, row in enumerate(batch["input_ids"])
        ]
        return "\n".join(repr(view.decode(row.tolist())) for row in kept)

    def describe(self) -> dict[str, dict[str, float]]:
        """Texts, ids, rows and batches of both parts, and the share of places left empty."""
        self.setup()
        return {
            part: {
                "texts": len(self._texts[part]),
                "ids": rows.n_ids,
                "rows": len(rows),
                "batches": -(-len(rows) // self.batch_size),
                "filling": round(rows.filling, 4),
            }
            for part, rows in self._rows.items()
        }

    # ── resuming ─────────────────────────────────────────────────────────────────────────────

    @property
    def fingerprint(self) -> str:
        """Short name of all that decides batches: texts, ids, rows, seed."""
        self.setup()
        view = view_of(self.tokenizer)
        return fingerprint(
            {
                "texts": {part: text_fingerprint(texts) for part, texts in self._texts.items()},
                "ids": {part: _ids_fingerprint(rows) for part, rows in self._rows.items()},
                "size": view.size,
                "settings": [self.context, self.batch_size, self.collate, self.seed],
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints; where the next batch stands, the loader keeps."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse to resume on other data.

        Raises:
            FingerprintError: The checkpoint was written with other data or settings.
        """
        self._resumed = str(state_dict["fingerprint"])
        self._check_resumed()

    def _check_resumed(self) -> None:
        if self._resumed is None or not self._rows or self._resumed == self.fingerprint:
            return
        raise FingerprintError(
            "the checkpoint was written with other data",
            why=f"its data module is {self._resumed}, this one {self.fingerprint}: other texts, "
            "tokenizer, context, batch size, collate or seed",
            next_step="resume with the same data module, or start a new run",
        )


class AdaptiveTokenizerDataModule(SimpleDataModule):
    """Texts and a vocabulary size to batches: a tokenizer is chosen and fitted on training texts.

    Args:
        source: As in `SimpleDataModule`.
        vocab_size: As in `AdaptiveTokenizer.fit`.
        model: As there.
        own: As there.
        cache: As there.
        tokenizer_options: Further arguments of it, such as ``{"tier": "bpe"}``.
        options: Those of `SimpleDataModule`: context, batch_size, validation and so on.

    Raises:
        ConfigError: As there.
        TokenizerError: No tier gives such a tokenizer; raised by `setup`.

    Example:
        >>> texts = [f"verse {number}: to be or not to be" for number in range(10)]
        >>> data = AdaptiveTokenizerDataModule(texts, 600, context=32, collate="pack")
        >>> data.setup()
        >>> data.tokenizer.choice.tier, data.sample_batch()["position_ids"][0, :3].tolist()
        ('characters', [0, 1, 2])
    """

    tokenizer: AdaptiveTokenizer
    """The tokenizer; there is none before `setup`."""

    def __init__(
        self,
        source: Any,
        vocab_size: int | None = None,
        *,
        model: str | Path | None = None,
        own: str | Path | None = None,
        cache: str | Path | None = None,
        tokenizer_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(source, None, **options)
        self._asked = {
            "vocab_size": vocab_size,
            "model": model,
            "own": own,
            "cache": cache,
            **(tokenizer_options or {}),
        }

    def _tokenizer_of(self, train: list[Document]) -> TextView:
        # Texts of validation are not seen: a vocabulary is something that is learned.
        texts = [document.text for document in train]
        self.tokenizer = AdaptiveTokenizer.fit(texts, **self._asked)
        return self.tokenizer.view


def _collate(collator: Collator, rows: list[Any]) -> dict[str, Any]:
    """A batch as keyword arguments of a model."""
    batch = collator(rows)
    kept = {name: batch[name] for name in _TENSORS if name in batch}
    # transformers looks for packed texts only where there is neither a mask nor a cache.
    return kept | {"use_cache": False} if collator.packed else kept


def _ids_fingerprint(rows: TextRows) -> str:
    return hashlib.sha256(np.concatenate(rows.pieces).tobytes()).hexdigest()
