"""``pipeline(task, model=…)``: tokenizer, model and decoding behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from domainformer.data import EventTable
from domainformer.data.frames import to_polars
from domainformer.data.histories import NewestHistories
from domainformer.errors import ArtifactError, DataError, InputError, nearest
from domainformer.inference.bundle import Bundle
from domainformer.inference.embed import embed
from domainformer.inference.fusion import FusionPredictor
from domainformer.inference.generate import generate
from domainformer.models.families import BaseAdapter
from domainformer.pipelines.loading import Model, load_model

Events = EventTable | pl.DataFrame | str | Path | Sequence[Mapping[str, Any]] | Any


def pipeline(task: str, model: str | Path | Model, **options: Any) -> Callable[..., Any]:
    """What answers a task with a model, from raw events or text.

    ==================== ============================================== ========================
    task                 called with                                    gives
    ==================== ============================================== ========================
    event-embedding      events, ``how="last"|"mean"``                  entity, ``embedding``
    event-classification events (or a frame and ``events`` for fusion)  entity, probabilities
    next-event           events, ``n_events``, ``n_samples``, sampling  future events, decoded
    text-generation      text or texts, as in transformers              texts
    ==================== ============================================== ========================

    Events are a path, an :class:`~domainformer.EventTable`, a polars or pandas frame, or a list of
    dictionaries; entity and time columns are those of the model's training, unless the call names
    others (``entity=…, time=…``).

    Args:
        task: One of the above.
        model: A folder, a run, a name of the registry, a repository of the hub, or a loaded model.
        **options: As in :func:`~domainformer.pipelines.load_model`: ``revision``, ``dtype``,
            ``device``, ``device_map``, ``quantization``, ``overrides``, ``registry``.

    Raises:
        InputError: There is no such task, or the model is not for it.
        RegistryError: There is no such model.

    Example:
        >>> import tempfile
        >>> from domainformer import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> from domainformer import DomainSchema, DomainTokenizer, FieldSpec, save_bundle
        >>> events = pl.DataFrame({"client": [1, 1, 2], "kind": ["a", "b", "a"]})
        >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
        >>> tokenizer = DomainTokenizer(schema).fit(EventTable.of(events, entity="client"))
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=tokenizer.vocab_size)
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> record = {"data": {"entity": "client", "time": None}}
        >>> _ = save_bundle(folder, DomainTransformerForCausalLM(config), tokenizer, record)
        >>> pipeline("event-embedding", folder)(events)["embedding"].dtype
        Array(Float32, shape=(128,))
        >>> pipeline("next-event", folder)([{"client": 7, "kind": "b"}], n_events=2).shape
        (2, 4)
    """
    if task not in TASKS:
        raise InputError(f"there is no task {task!r}", next_step=nearest(task, TASKS))
    loaded = load_model(model, **options) if isinstance(model, (str, Path)) else model
    return TASKS[task](loaded)


class _OfEvents:
    """What the pipelines of events share: a model that reads them, and reading them."""

    task = ""

    def __init__(self, model: Model) -> None:
        if not isinstance(model, Bundle):
            raise _unfit(self.task, model, "a bundle of events (domainformer pretrain, finetune)")
        self.bundle = model

    def table(self, events: Events, entity: str | None, time: str | None) -> EventTable:
        """Events as a table, by the columns of the model's training."""
        named = dict(self.bundle.record.get("data") or {})
        return read_table(events, entity or named.get("entity"), time or named.get("time"))


class EventEmbedding(_OfEvents):
    """A vector per entity."""

    task = "event-embedding"

    def __call__(
        self,
        events: Events,
        *,
        entity: str | None = None,
        time: str | None = None,
        **settings: Any,
    ) -> pl.DataFrame:
        """Embed each entity; settings as in :func:`~domainformer.embed`."""
        return embed(self.bundle, self.table(events, entity, time), **settings)


class NextEvent(_OfEvents):
    """Future events of each entity."""

    task = "next-event"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        try:
            _ = self.bundle.language_model  # a classifier says so now, not at the first call
        except ArtifactError as error:
            raise _unfit(self.task, model, "a model that predicts tokens") from error

    def __call__(
        self,
        events: Events,
        *,
        n_events: int = 1,
        entity: str | None = None,
        time: str | None = None,
        **settings: Any,
    ) -> pl.DataFrame:
        """Continue each history; settings as in :func:`~domainformer.generate`."""
        table = self.table(events, entity, time)
        return generate(self.bundle, table, n_events=n_events, **settings)


class EventClassification(_OfEvents):
    """Probabilities of each class for each entity, or for each row of a fusion model's frame."""

    task = "event-classification"

    def __init__(self, model: Model) -> None:
        self.fusion = model if isinstance(model, FusionPredictor) else None
        if self.fusion is None:
            super().__init__(model)
            if not type(self.bundle.model).__name__.endswith("SequenceClassification"):
                raise _unfit(self.task, model, "a classifier (domainformer finetune)")

    def __call__(
        self,
        data: Events,
        events: Events | None = None,
        *,
        entity: str | None = None,
        time: str | None = None,
        batch_tokens: int = 16384,
    ) -> pl.DataFrame:
        """Classify.

        Args:
            data: Events; for a fusion model the frame of examples.
            events: For a fusion model that reads histories: the events.
            entity: Their entity column; None: as in training.
            time: Their time column; None: as in training.
            batch_tokens: Tokens of one pass.

        Returns:
            The entity and ``probability_CLASS`` for each class; of a fusion model what
            :meth:`~domainformer.FusionPredictor.predict` gives.
        """
        if self.fusion is not None:
            table = None if events is None else read_table(events, entity or self.fusion.key, time)
            return self.fusion.predict(as_frame(data), table, batch_tokens=batch_tokens)
        return classify(self.bundle, self.table(data, entity, time), batch_tokens)


class TextGeneration:
    """Continues texts by transformers' own pipeline."""

    task = "text-generation"

    def __init__(self, model: Model) -> None:
        if not isinstance(model, BaseAdapter) or model.tokenizer is None:
            raise _unfit(self.task, model, "a language model with its tokenizer")
        if model.record.get("needs_rules"):
            raise InputError(
                "this model needs the learning rules that it was trained with",
                why="they change what it computes, and transformers does not know them",
                next_step="use `domainformer sample`, or open_language_model in Python",
            )
        from transformers import pipeline as of_transformers

        self.run = of_transformers(self.task, model=model.model, tokenizer=model.tokenizer)

    def __call__(self, text: str | Sequence[str], **settings: Any) -> Any:
        """Continue; arguments and result are those of transformers' pipeline."""
        return self.run(text, **settings)


TASKS: dict[str, Callable[[Model], Callable[..., Any]]] = {
    one.task: one for one in (EventEmbedding, EventClassification, NextEvent, TextGeneration)
}


@torch.inference_mode()
def classify(bundle: Bundle, table: EventTable, batch_tokens: int = 16384) -> pl.DataFrame:
    """Class probabilities of each entity, from the newest events that fit the context.

    Args:
        bundle: A classifier.
        table: Events.
        batch_tokens: Tokens of one pass.
    """
    names = table.entity_ids
    histories = NewestHistories.of(
        bundle.encode(table),
        names,
        context=bundle.context,
        bos_id=bundle.tokenizer.bos_id,
        budgets=bundle.tokenizer.budgets,
    )
    config = bundle.model.config
    probabilities = np.empty((len(names), config.num_labels))
    order, start = np.argsort(-histories.lengths, kind="stable"), 0
    while start < len(order):
        rows = max(1, batch_tokens // int(histories.lengths[order[start]]))
        chosen = order[start : start + rows]
        ids, mask = _padded([histories[int(i)] for i in chosen], bundle.tokenizer.pad_id)
        logits = bundle.model(
            input_ids=ids.to(bundle.device), attention_mask=mask.to(bundle.device)
        ).logits
        probabilities[chosen] = logits.double().softmax(-1).cpu().numpy()
        start += rows
    labels = {f"probability_{config.id2label[i]}": probabilities[:, i] for i in config.id2label}
    return pl.DataFrame({table.entity: names, **labels})


def _padded(rows: list[npt.NDArray[np.int64]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad_id)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.from_numpy(np.asarray(row, np.int64))
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def read_table(events: Events, entity: str | None, time: str | None) -> EventTable:
    """Events of any form as a table.

    Raises:
        DataError: The entity column is not known, or the events cannot be read.
    """
    if isinstance(events, EventTable):
        return events
    if isinstance(events, (str, Path)):
        return EventTable.read(events, entity=entity, time=time)
    if entity is None:
        raise DataError(
            "the entity column is not known",
            why="the model does not say which one its training used",
            next_step="pass entity=…",
        )
    return EventTable.of(as_frame(events), entity=entity, time=time)


def as_frame(data: Any) -> pl.DataFrame:
    """A polars frame of a polars or pandas frame, an Arrow table, or a list of dictionaries.

    Raises:
        DataError: It is none of them.

    Example:
        >>> as_frame([{"a": 1}, {"a": None}]).shape
        (2, 1)
    """
    if isinstance(data, (list, tuple)) and data and all(isinstance(row, Mapping) for row in data):
        return pl.DataFrame(list(data), infer_schema_length=None)
    return to_polars(data, columns=None, where="the events")


def _unfit(task: str, model: Any, wanted: str) -> InputError:
    inner = getattr(model, "model", model)
    return InputError(f"{task} needs {wanted}", why=f"the model is a {type(inner).__name__}")
