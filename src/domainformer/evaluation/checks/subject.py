"""Models of all kinds behind one face, so that a check is written once.

::

    causal            ids ─▶ logits [B, L, V]                  loss of the next token
    bidirectional     ids ─▶ logits [B, L, V]                  loss of tokens that were masked
    encoder-decoder   decoder ids, one fixed source ─▶ …       as causal: a decoder is one
    classifier        rows drawn from ids ─▶ logits [B, C]     loss of labels drawn from a seed
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn import functional as F

from domainformer.export.inputs import InputSpec, draw_all
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.binding import IGNORED_LABEL, BoundModel
from domainformer.models.universal.probes import Advance, PaddedAdvance
from domainformer.models.universal.probing import draw_tokens
from domainformer.models.universal.verification import (
    advance_of,
    padded_advance_of,
    runner_of,
)

Kind = Literal["causal", "bidirectional", "encoder-decoder", "classifier"]
Batch = dict[str, torch.Tensor]

_SOURCE_LENGTH = 8
_MASKED = 0.3
_OTHER_SIZES = 3


class Unanswerable(Exception):  # noqa: N818 - no error: the check is skipped, for this reason
    """A check that cannot be asked of a model; its message is the reason."""


class Subject(nn.Module, abc.ABC):
    """A model that checks can ask.

    Args:
        model: The user's own; its parameters are those that are checked.
        vocab_size: Ids are below it; of a classifier, the number of classes.
        declared: Why it is of its kind, for reasons.
        longest: Most tokens of a row; None: any number.

    Attributes:
        kind: Which of the four it is.
        causal: Whether logits at t are to depend on tokens up to t alone.
        takes_mask: Whether it looks at an attention mask.
        takes_positions: Whether it is told positions.
    """

    kind: Kind
    causal: bool
    takes_mask = True
    takes_positions = False

    def __init__(
        self, model: nn.Module, *, vocab_size: int, declared: str, longest: int | None
    ) -> None:
        super().__init__()
        self.model = model
        self.vocab_size = vocab_size
        self.declared = declared
        self.longest = longest

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((one.device for one in self.parameters()), torch.device("cpu"))

    @abc.abstractmethod
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits [B, L, V] for ids [B, L]."""

    @abc.abstractmethod
    def batch(self, rows: int, length: int, *, seed: int) -> Batch:
        """Random inputs and labels, ids that are not repeated within a row where they suffice."""

    def batch_of(self, input_ids: torch.Tensor, *, seed: int) -> Batch:
        """Inputs and labels of given ids [B, L]; the seed is of what is masked."""
        ids = input_ids.to(self.device)
        return {"input_ids": ids, "labels": ids}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch, a scalar in nats."""
        return self.nll(batch["input_ids"]).mean()

    def nll(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Loss of each next token [B, L−1] in nats.

        Raises:
            Unanswerable: It predicts no next tokens.
        """
        if not self.causal:
            raise Unanswerable(f"it predicts no next tokens: {self.declared}")
        logits = self(input_ids)[:, :-1].float()
        flat = F.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
        return flat.view(input_ids.shape[0], -1)

    def advance(self) -> Advance | None:
        """The model with its cache; None where it has none."""
        return None

    def padded_advance(self) -> PaddedAdvance | None:
        """The model with its cache and a mask, as ``generate`` calls it; None where it has none."""
        return None

    def copied(self) -> Self:
        """A copy that may be trained, in evaluation mode, all its parameters as trainable as here.

        Raises:
            Unanswerable: The model cannot be copied.
        """
        try:
            return copy.deepcopy(self).eval()
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0][:160]
            raise Unanswerable(
                f"it cannot be copied ({type(error).__name__}: {line}), and must not be changed"
            ) from error


class LanguageModel(Subject):
    """Ids to logits, causal or bidirectional.

    Args:
        bound: The model behind :func:`~domainformer.models.universal.bind`.
        vocab_size: Ids are below it.
        causal: What it is meant to be.
        declared: Why.
        longest: Most tokens of a row.
        mask_id: What stands for a masked token, of a bidirectional model.
    """

    def __init__(
        self,
        bound: BoundModel,
        *,
        vocab_size: int,
        causal: bool,
        declared: str,
        longest: int | None = None,
        mask_id: int | None = None,
    ) -> None:
        super().__init__(bound.module, vocab_size=vocab_size, declared=declared, longest=longest)
        self.bound = bound
        self.causal = causal
        self.kind = "causal" if causal else "bidirectional"
        self.takes_mask = bound.takes(Role.MASK)
        self.takes_positions = bound.takes(Role.POSITIONS)
        self.mask_id = vocab_size - 1 if mask_id is None else mask_id

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits [B, L, V] for ids [B, L]."""
        return runner_of(self.bound)(input_ids, attention_mask)

    def batch(self, rows: int, length: int, *, seed: int) -> Batch:
        """Random ids; of a bidirectional model, with masked places and labels there."""
        return self.batch_of(distinct_tokens(rows, length, self.vocab_size, seed=seed), seed=seed)

    def batch_of(self, input_ids: torch.Tensor, *, seed: int) -> Batch:
        """Ids as they are; of a bidirectional model, a third of them masked."""
        if self.causal:
            return super().batch_of(input_ids, seed=seed)
        ids = input_ids.to(self.device)
        generator = torch.Generator().manual_seed(seed)
        masked = (torch.rand(ids.shape, generator=generator) < _MASKED).to(ids.device)
        masked[:, 0] = True
        return {
            "input_ids": ids.masked_fill(masked, self.mask_id),
            "labels": ids.masked_fill(~masked, IGNORED_LABEL),
        }

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of the next token, or of the masked ones."""
        if self.causal:
            return super().loss(batch)
        logits = self(batch["input_ids"]).float()
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    def advance(self) -> Advance | None:
        """The model with its cache."""
        return advance_of(self.bound) if self.causal else None

    def padded_advance(self) -> PaddedAdvance | None:
        """The model with its cache and a mask."""
        return padded_advance_of(self.bound) if self.causal else None


class EncoderDecoder(Subject):
    """The decoder of an encoder-decoder, beside one source that is the same for all rows.

    With the source fixed, its decoder is a causal language model, and is asked as one.
    """

    kind = "encoder-decoder"
    causal = True

    def __init__(
        self, model: nn.Module, *, vocab_size: int, declared: str, longest: int | None = None
    ) -> None:
        super().__init__(model, vocab_size=vocab_size, declared=declared, longest=longest)
        source = draw_tokens(1, _SOURCE_LENGTH, vocab_size, seed=1)
        self.register_buffer("source", source.to(self.device), persistent=False)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits [B, L, V] for the decoder's ids [B, L]."""
        return self._call(input_ids, decoder_attention_mask=attention_mask, use_cache=False).logits

    def batch(self, rows: int, length: int, *, seed: int) -> Batch:
        """Random ids of the decoder."""
        return self.batch_of(distinct_tokens(rows, length, self.vocab_size, seed=seed), seed=seed)

    def advance(self) -> Advance | None:
        """The decoder with its cache."""

        def advance(input_ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
            output = self._call(input_ids, past_key_values=cache, use_cache=True)
            return output.logits, output.past_key_values

        return advance

    def _call(self, input_ids: torch.Tensor, **arguments: Any) -> Any:
        source: Any = self.source
        source = source.expand(input_ids.shape[0], -1)
        return self.model(input_ids=source, decoder_input_ids=input_ids, **arguments)


class Classifier(Subject):
    """One vector of logits per row: a fusion model, or a head on pooled states.

    Each row's inputs are drawn from a seed that its ids make, so that the probes, which know ids
    alone, can ask whether the same row gives the same logits. One output counts as two classes.

    Args:
        reading: The model behind positional tensors.
        model: The user's own.
        specs: What it reads.
        classes: Outputs that it has.
        declared: Why it is a classifier.
        longest: Most tokens of a row.
    """

    kind = "classifier"
    causal = False
    takes_mask = False

    def __init__(
        self,
        reading: nn.Module,
        model: nn.Module,
        *,
        specs: Sequence[InputSpec],
        classes: int,
        declared: str,
        longest: int | None = None,
    ) -> None:
        super().__init__(model, vocab_size=max(2, classes), declared=declared, longest=longest)
        self.reading = reading
        self.specs = tuple(specs)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The logits of each row, at each of its places [B, L, C]."""
        rows = [self._row(row) for row in input_ids]
        names = [spec.name for spec in self.specs]
        given = [torch.cat([row[name] for row in rows]).to(self.device) for name in names]
        logits = self.reading(*given)
        logits = logits if isinstance(logits, torch.Tensor) else logits[0]
        if logits.shape[-1] == 1:
            logits = torch.cat([-logits / 2, logits / 2], dim=-1)
        return logits[:, None].expand(-1, input_ids.shape[1], -1)

    def batch(self, rows: int, length: int, *, seed: int) -> Batch:
        """Random rows, and labels that have nothing to do with them."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 1000, (rows, length), generator=generator)
        labels = torch.randint(0, self.vocab_size, (rows,), generator=generator)
        return {"input_ids": ids.to(self.device), "labels": labels.to(self.device)}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of the labels."""
        return F.cross_entropy(self(batch["input_ids"])[:, 0].float(), batch["labels"])

    def _row(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        places = torch.arange(1, len(ids) + 1)
        seed = int((ids.cpu() * places * 7919 + ids.cpu() ** 2 * 104_729).sum())
        sizes = {dim: _OTHER_SIZES for s in self.specs for dim in s.dims if isinstance(dim, str)}
        sizes |= {"batch": 1, "length": len(ids)}
        return draw_all(self.specs, sizes, torch.Generator().manual_seed(seed))


def distinct_tokens(rows: int, length: int, vocab_size: int, *, seed: int) -> torch.Tensor:
    """Ids [rows, length] without repetition where the vocabulary is large enough.

    Where no token comes twice, each next token follows from the one before it, and even a table of
    pairs can learn them by heart.

    Example:
        >>> len(distinct_tokens(2, 8, 50, seed=0).unique())
        16
    """
    low = 4 if vocab_size >= 16 else 0
    if rows * length > vocab_size - low:
        return draw_tokens(rows, length, vocab_size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(vocab_size - low, generator=generator)[: rows * length]
    return low + drawn.view(rows, length)
