"""Masked fields: hide whole fields of events, and ask for them behind the history.

A causal model sees nothing that comes later, so a field that is hidden where it stands can be told
from what precedes it alone, which is next-token prediction with holes. What is hidden is therefore
moved behind the history, and a marker is left in its place::

    as it was    BOS  kind amount shop   kind amount shop   kind amount shop
    hidden       BOS  kind amount shop   [??] amount shop   kind amount [??]  [??] kind  [??] shop
    event                                ╰───── 1 ──────╯   ╰───── 2 ──────╯  ╰── 1 ──╯  ╰── 2 ──╯
                                                                                   asked      asked

So each answer sees the whole document, before and after its place, by plain causal attention: no
mask of another kind, exact in packed rows, and the backbone is used as it will be used later. (A
pass with attention in both directions would be unsound here: without positional encoding, which
is the default, the causal mask is all that tells one event from another.) A marker is a vector of
the objective that names what is hidden. To all tokens of an event with hidden parts the vector of a
number is added, so that the question finds its event again. The vocabulary and the saved model know
nothing of either.

Source: Aghajanyan et al., "CM3: a causal masked multimodal model of the internet", arXiv
2201.07520, section 2; Bavarian et al., "Efficient training of language models to fill in the
middle", arXiv 2207.14255. The share of 15 % is that of BERT, arXiv 1810.04805.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.data.dataset import IGNORED, DomainSequenceDataset
from domainformer.data.packing import pack
from domainformer.data.tokens import Ints, Mask
from domainformer.errors import ConfigError, nearest
from domainformer.models import Collator
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.slots import BPE
from domainformer.training.objective_base import COUNT, Objective, Reader, Row
from domainformer.training.objective_config import MaskedFieldConfig

_SALT = 0x6D61736B  # keeps these draws apart from others of the same seed, epoch and row
_KEPT = ("input_ids", "labels", "numbers", "attention_mask", "position_ids", "cu_seq_lens_q")


class Hidden(NamedTuple):
    """A document with hidden parts.

    Args:
        ids: Token ids, int64 [n]; a marker is −1 − kind.
        labels: The ids of the answers, −100 elsewhere.
        numbers: Of the events with hidden parts, from 1 on; 0 at other tokens.
    """

    ids: Ints
    labels: Ints
    numbers: Ints


class FieldMasker:
    """Hides fields of events in documents of token ids.

    Args:
        tokenizer: Whose ids they are.
        config: What is hidden, and how often.

    Raises:
        ConfigError: There is no such field.
    """

    def __init__(self, tokenizer: DomainTokenizer, config: MaskedFieldConfig) -> None:
        self._config = config
        opening = {tokenizer.forms.opening.spec.name} if tokenizer.forms.sourced else set()
        names = list(dict.fromkeys(slot.field for slot in tokenizer.slots))
        known = [name for name in names if name not in opening]
        unknown = [name for name in config.fields or () if name not in known]
        if unknown:
            raise ConfigError(
                f"there is no field {unknown[0]!r} to hide",
                where="training.masked_field.fields",
                next_step=nearest(unknown[0], known),
            )
        self.kinds = [*names, "event"]
        self._may_hide = np.isin(names, config.fields or known)
        owner = np.array([names.index(slot.field) for slot in tokenizer.slots])
        slots = tokenizer.layout.slot_of_id
        # What belongs to no slot is a piece of the text whose marker stands before it.
        self._field_of_id = np.where(slots >= 0, owner[slots.clip(0)], BPE)

    def __call__(
        self, ids: Ints, ends: Ints, asked: Mask, context: int, rng: np.random.Generator
    ) -> Hidden | None:
        """Hide parts of one document.

        Where what results is longer than the context, the oldest events are left out.

        Args:
            ids: BOS and the tokens of whole events, int64 [n].
            ends: Where each event ends, int64 [n_events].
            asked: Which tokens may be asked for, bool [n].
            context: Most tokens of the result.
            rng: Decides what is hidden.

        Returns:
            The document, or None where nothing is hidden.
        """
        event = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=1))
        tokens = ids[1:]
        part, kind, first = self._parts(tokens, event)
        hidden = self._draw(kind, np.logical_and.reduceat(asked[1:], first), rng)
        # In its place a hidden part leaves a marker; behind, it takes a marker and its tokens.
        cost = np.diff(ends, prepend=1)
        cost += 2 * np.bincount(event[first[hidden]], minlength=len(ends))
        newest = np.cumsum(cost[::-1])[::-1] < context
        hidden &= newest[event[first]]
        if not hidden.any():
            return None
        touched = np.zeros(len(ends), np.int64)
        touched[event[first[hidden]]] = 1
        number = (np.cumsum(touched) * touched)[event]
        masked, starts = hidden[part], np.zeros(len(tokens), np.bool_)
        starts[first] = True
        history = np.flatnonzero(newest[event] & (~masked | starts))
        answers = np.flatnonzero(masked)
        # Behind, every hidden part has its marker before it: its first token stands there twice.
        behind = np.repeat(answers, 1 + starts[answers])
        is_marker = np.diff(behind, append=-1) == 0
        marker = -1 - kind[part]
        shown = np.where(masked, marker, tokens)[history]
        asks = np.where(is_marker, marker[behind], tokens[behind])
        labels = np.full(1 + len(history) + len(behind), IGNORED)
        labels[1 + len(history) :][~is_marker] = tokens[answers]
        return Hidden(
            np.concatenate([ids[:1], shown, asks]),
            labels,
            np.concatenate([[0], number[history], number[behind]]),
        )

    def _parts(self, tokens: Ints, event: Ints) -> tuple[Ints, Ints, Ints]:
        """What may be hidden as one: the part of each token; each part's kind and first token."""
        own = self._field_of_id[tokens]
        field = own[np.maximum.accumulate(np.where(own == BPE, 0, np.arange(len(tokens))))]
        changes = np.diff(event, prepend=-1) != 0
        if self._config.unit == "field":
            changes |= np.diff(field, prepend=-1) != 0
        first = np.flatnonzero(changes)
        whole = np.full(len(first), len(self.kinds) - 1)
        kind = field[first] if self._config.unit == "field" else whole
        return np.cumsum(changes) - 1, kind, first

    def _draw(self, kind: Ints, asked: Mask, rng: np.random.Generator) -> Mask:
        """Which parts are hidden: each by itself, and of too many some at random."""
        may = asked & (self._may_hide[kind] if self._config.unit == "field" else True)
        chosen = np.flatnonzero((rng.random(len(kind)) < self._config.share) & may)
        if len(chosen) > self._config.most:
            chosen = rng.choice(chosen, self._config.most, replace=False)
        hidden = np.zeros(len(kind), np.bool_)
        hidden[chosen] = True
        return hidden


class MaskedFieldObjective(Objective):
    """Tell hidden fields from the rest of the history.

    The loss has one term per hidden token: −log of its probability among all ids, given the
    document with its markers, and the answers before it. A copy head has no part in it.

    Args:
        config: What is hidden.
        tokenizer: Whose ids the rows hold.
        width: Hidden size of the model.
        std: Standard deviation of new vectors.
        context: Most tokens of a row.
        packed: Put several documents into one row.
    """

    name = "masked_field"

    def __init__(
        self,
        config: MaskedFieldConfig,
        tokenizer: DomainTokenizer,
        *,
        width: int,
        std: float = 0.02,
        context: int,
        packed: bool,
    ) -> None:
        super().__init__()
        self._masker = FieldMasker(tokenizer, config)
        self._context, self._packed = context, packed
        self._vocab_size = tokenizer.vocab_size
        self._collate = Collator(tokenizer.pad_id, packed=packed)
        self.number = nn.Embedding(config.most + 1, width)  # 0: nothing is hidden
        self.kind = nn.Embedding(len(self._masker.kinds), width)
        for table in (self.number, self.kind):
            nn.init.normal_(table.weight, std=std)

    def reader(self, dataset: DomainSequenceDataset) -> Reader:
        """The documents of a row with fields hidden; only what the row asks for is hidden."""
        if dataset.source.vocab_size != self._vocab_size:
            raise ConfigError(
                "masked_field hides fields, and these tokens are not those of the fields",
                where="training.objectives.masked_field",
                why=f"the rows have {dataset.source.vocab_size} ids, the fields and their texts "
                f"{self._vocab_size}",
                next_step="leave masked_field out, or train on tokens that are not merged",
            )

        def read(index: int, row: Row) -> Row:
            rng = np.random.default_rng((dataset.seed, dataset.epoch, index, _SALT))
            documents, begin = [], 0
            for (_, _, ends), length in zip(
                dataset.events_of(index), row["segment_lengths"].tolist(), strict=True
            ):
                part = slice(begin, begin + length)
                asked = row["labels"][part] != IGNORED
                made = self._masker(row["input_ids"][part], ends, asked, dataset.context, rng)
                documents += [] if made is None else [made]
                begin += length
            return {"masked_field_documents": documents}

        return read

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        """All hidden documents of the batch, packed as its rows are."""
        documents = [made for row in rows for made in row["masked_field_documents"]]
        if not documents:
            return {f"masked_field{COUNT}": 0}
        places = [np.array([index]) for index in range(len(documents))]
        if self._packed:
            packing = pack([len(made.ids) for made in documents], self._context)
            places = [packing.row(index) for index in range(len(packing))]
        chosen = [[documents[i] for i in place] for place in places]
        made = self._collate([_row(each) for each in chosen])
        made["numbers"] = torch.zeros_like(made["input_ids"])
        for row, each in enumerate(chosen):
            numbers = np.concatenate([document.numbers for document in each])
            made["numbers"][row, : len(numbers)] = torch.from_numpy(numbers)
        return {
            f"masked_field{COUNT}": int(made["labels"].ne(IGNORED).sum()),
            **{f"masked_field_{key}": made[key] for key in _KEPT if key in made},
        }

    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Sum of the answers' negative log-probabilities."""
        inputs = {k: batch[f"masked_field_{k}"] for k in _KEPT if f"masked_field_{k}" in batch}
        embeds = self.embed(model, inputs.pop("input_ids"), inputs.pop("numbers"))
        targets = inputs.pop("labels")[:, 1:]
        states = model.base_model(inputs_embeds=embeds, use_cache=False, **inputs)
        asked = targets != IGNORED
        logits = model.get_output_embeddings()(states.last_hidden_state[:, :-1][asked])
        return F.cross_entropy(logits.float(), targets[asked], reduction="sum")

    def embed(self, model: Any, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """The model's vectors of tokens, this objective's of markers and numbers [B, L, W]."""
        tokens = model.get_input_embeddings()(ids.clamp_min(0))
        markers = self.kind((-1 - ids).clamp_min(0)).to(tokens.dtype)
        embeds = torch.where((ids < 0)[..., None], markers, tokens)
        counts = (numbers > 0)[..., None]
        return embeds + counts * self.number(numbers).to(tokens.dtype)


def _row(documents: Sequence[Hidden]) -> Row:
    return {
        "input_ids": np.concatenate([made.ids for made in documents]),
        "labels": np.concatenate([made.labels for made in documents]),
        "segment_lengths": [len(made.ids) for made in documents],
    }


__all__ = ["FieldMasker", "Hidden", "MaskedFieldObjective"]
