"""What is explained: one number per history, as a function of gates on its tokens.

::

    gate g of a token:  embedding = g · its own + (1 − g) · its baseline's       g = 1: as it is

With all gates at 1 a score is what the model says; the gradient along the gates is what integrated
gradients need, since Σ_w ∂f/∂e_w · (e_w − e'_w) = ∂f/∂g. A head that copies earlier tokens reads
ids beside embeddings, so a gate also scales how much of a token there is to be copied.

========================  =======================================================
model                     score
========================  =======================================================
classifier, fusion        log-odds of a class: log p/(1 − p)
fusion, regression        the value, in the label's units
causal language model     log-probability of a field's tokens, given all before them
========================  =======================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from domainformer.inference.attribution.baselines import Baseline
from domainformer.inference.fusion import FusionTarget
from domainformer.models import JointFusionModel, pool_hidden

_TINY = 1e-38  # the least normal float32: a token that cannot be copied has no logarithm


@dataclass(frozen=True)
class Batch:
    """Histories side by side, padded on the right.

    Args:
        ids: Token ids [B, L].
        mask: True at real tokens [B, L].
        missing: The MISSING of each token's slot [B, L].
        scored: How many tokens at each row's end are asked for [B].
        gates: Of tokens [B, L]; None: all open.
        numbers: Tabular numbers [B, F]; None without.
        codes: Tabular codes [B, C]; None without.
        feature_gates: Of tabular features [B, F + C]; None: all open.
        baseline: What stands behind closed gates; needed with gates.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    missing: torch.Tensor
    scored: torch.Tensor
    gates: torch.Tensor | None = None
    numbers: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    feature_gates: torch.Tensor | None = None
    baseline: Baseline | None = None

    def embedded(self, table: torch.Tensor) -> torch.Tensor:
        """The gated embeddings [B, L, W]."""
        own = table[self.ids]
        if self.gates is None or self.baseline is None:
            return own
        absent = self.baseline.embeddings(table, self.ids, self.missing)
        return absent + self.gates[..., None].to(own.dtype) * (own - absent)


class Score(ABC):
    """A model's answers to a batch.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @abstractmethod
    def __call__(self, batch: Batch) -> torch.Tensor:
        """One number per row and possible choice, [B, choices]."""

    def hidden(self, backbone: Any, batch: Batch) -> torch.Tensor:
        """Normed hidden states of gated embeddings [B, L, W]."""
        return backbone(
            inputs_embeds=batch.embedded(backbone.embed_tokens.weight),
            attention_mask=batch.mask.long(),
            use_cache=False,
        ).last_hidden_state


class ClassifierScore(Score):
    """Log-odds of every class of a sequence classifier; the value where it has one output."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """As :meth:`Score.__call__`."""
        hidden = self.hidden(self.model.model, batch)
        logits = self.model.score(pool_hidden(hidden, {"attention_mask": batch.mask.long()}))
        return logits if logits.shape[1] == 1 else log_odds(logits)


class FusionScore(Score):
    """Log-odds of every class, or the value, of one target of a fusion model.

    Args:
        model: The fusion model.
        target: What is predicted.
        first: Its first logit.
    """

    def __init__(self, model: JointFusionModel, target: FusionTarget, first: int) -> None:
        super().__init__(model)
        self.target = target
        self.own = slice(first, first + target.outputs)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """As :meth:`Score.__call__`."""
        model, parts = self.model, []
        if model.backbone is not None:
            hidden = self.hidden(model.backbone, batch)
            parts.append(model.norm(pool_hidden(hidden, {"attention_mask": batch.mask.long()})))
        if model.tabular is not None:
            parts.append(model.tabular.cross_features(self._features(batch)))
        logits = model.score(model.head(torch.cat(parts, dim=1)))[:, self.own]
        if self.target.kind == "multiclass":
            return log_odds(logits)
        if self.target.kind == "binary":
            return torch.cat([-logits, logits], dim=1)
        return logits * self.target.scale + self.target.center

    def _features(self, batch: Batch) -> torch.Tensor:
        """Embedded features, gated towards those of a row where all are missing."""
        tabular = self.model.tabular
        own = tabular.embed(batch.numbers, batch.codes)
        if batch.feature_gates is None:
            return own
        nothing = None if batch.numbers is None else torch.full_like(batch.numbers, torch.nan)
        none = None if batch.codes is None else torch.zeros_like(batch.codes)
        absent = tabular.embed(nothing, none)
        gates = batch.feature_gates[:, tabular.feature_of_column.to(own.device)]
        return absent + gates.to(own.dtype) * (own - absent)


class NextScore(Score):
    """Log-probability of the last ``scored`` tokens of each row, given all before each."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """As :meth:`Score.__call__`."""
        hidden = self.hidden(self.model.base_model, batch)
        most = int(batch.scored.max())
        lengths = batch.mask.sum(dim=1)
        # Slot k of the grid asks for the k-th token from the row's end; short questions leave some.
        back = torch.arange(1, most + 1, device=hidden.device)
        asked = back[None] <= batch.scored[:, None]
        at = (lengths[:, None] - back[None]).clamp_min(1)
        wanted = batch.ids.gather(1, at)
        rows = torch.arange(len(at), device=hidden.device)[:, None]
        asking = hidden[rows, at - 1]
        logits = self.model.get_output_embeddings()(asking).float()
        found = logits.log_softmax(dim=-1).gather(2, wanted[..., None])[..., 0]
        if getattr(self.model, "copy_head", None) is not None:
            found = self._with_copies(batch, hidden, asking, at, wanted, found)
        return (found * asked).sum(dim=1, keepdim=True)

    def _with_copies(
        self,
        batch: Batch,
        hidden: torch.Tensor,
        asking: torch.Tensor,
        at: torch.Tensor,
        wanted: torch.Tensor,
        own: torch.Tensor,
    ) -> torch.Tensor:
        """The mixture with copies, where a token is copied as far as its gate is open."""
        head = self.model.copy_head
        steps = torch.arange(hidden.shape[1], device=hidden.device)
        # The query stands one before what it asks for; an earlier state s copies token s + 1.
        distance = (at - 1)[..., None] - steps
        scores = head.scores(asking, head.key(hidden), distance, distance > 0)
        weights = torch.cat([head.sentinel(asking).float(), scores], dim=-1).log_softmax(dim=-1)
        following = batch.ids.roll(-1, dims=1)
        share = (following[:, None, :] == wanted[..., None]).float()
        if batch.gates is not None and batch.baseline is not None:
            gates = batch.gates.float().roll(-1, dims=1)[:, None, :]
            absent = batch.baseline.matches(following, batch.missing.roll(-1, dims=1), wanted)
            share = gates * share + (1 - gates) * absent
        copied = (weights[..., 1:].exp() * share).sum(dim=-1)
        return torch.logaddexp(own + weights[..., 0], copied.clamp_min(_TINY).log())


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """The log-odds of every class of a softmax, log p/(1 − p), [B, C].

    Example:
        >>> log_odds(torch.tensor([[0.0, 2.0]]))
        tensor([[-2.,  2.]])
    """
    classes = logits.shape[1]
    own = torch.eye(classes, dtype=torch.bool, device=logits.device)
    others = logits[:, None, :].expand(-1, classes, -1).masked_fill(own, -torch.inf)
    return logits - others.logsumexp(dim=-1)
