"""What one step learns: where the model looks, then what a gate costs; judged by hard drop.

::

    question ─▶ compressor ─▶ scores ─▶ log-gate on image keys ─▶ frozen model ─▶ answer
                    ▲                                                               │
                    └──────────────── gradient, to the compressor alone ────────────┘

Trap: through a warm or smooth gate the model reads tokens that it will not have, and the training
loss falls to almost nothing with or without a question. Only :meth:`VisionLearner.judge`, which
drops tokens, tells what a compressor can do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from domainformer.errors import VisionError
from domainformer.models.vision import (
    ImageTokens,
    RelevanceCompressor,
    RelevanceRealizer,
    TemperatureSchedule,
)
from domainformer.models.vision.baselines import AttentionRank
from domainformer.models.vision.soft import SoftOutput
from domainformer.training.vision.collator import NO_TARGET
from domainformer.training.vision.config import VisionTrainingConfig

_NOT_INPUTS = ("relevant", "images", "looked_at")


@dataclass(frozen=True)
class Judged:
    """How a batch was answered after tokens were dropped.

    Args:
        correct: Questions whose whole answer is the model's first choice, token by token: those
            that greedy generation would answer exactly.
        questions: Questions in all.
        loss: Cross-entropy, summed over the tokens of all answers.
        targets: Tokens of all answers.
        kept: Image tokens kept.
        tokens: Image tokens in all.
    """

    correct: int
    questions: int
    loss: float
    targets: int
    kept: int
    tokens: int


class VisionLearner(nn.Module):
    """The trainable part of a realizer, with the loss of one step.

    Its parameters and its state are the compressor's (and the price of tokens, where a multiplier
    finds it): a checkpoint holds nothing of the frozen model.

    Args:
        realizer: The frozen model with its compressor.
        training: Budgets, temperature, distillation, seed.

    Raises:
        VisionError: The realizer's selector is no compressor.
    """

    accepts_loss_kwargs = True
    multiplier: Tensor

    def __init__(self, realizer: RelevanceRealizer, training: VisionTrainingConfig) -> None:
        super().__init__()
        if not isinstance(realizer.selector, RelevanceCompressor):
            raise VisionError(
                f"{type(realizer.selector).__name__} has nothing to train",
                next_step="put a RelevanceCompressor into the realizer",
            )
        self.selector = realizer.selector
        self._frozen = (realizer,)  # in a tuple, so that it is no submodule
        self.training_config = training
        self._cuts_logits = "logits_to_keep" in signature(realizer.model.forward).parameters
        # The engine keeps it with checkpoints, and changes it while it trains: a copy.
        self.config = copy.deepcopy(realizer.base.model.config)
        warmth = training.temperature
        self.temperature = TemperatureSchedule(
            steps=max(1, training.steps - 1),
            start=warmth.start,
            end=warmth.end,
            shape=warmth.shape,
        )
        if training.dynamic is not None and training.dynamic.target is not None:
            self.register_buffer("multiplier", torch.tensor(training.dynamic.multiplier))

    @property
    def realizer(self) -> RelevanceRealizer:
        """The frozen model with its compressor."""
        return self._frozen[0]

    def budget_at(self, step: int) -> float | None:
        """The share of tokens that a step trains; None: the compressor chooses.

        Drawn from the seed and the step alone, so that a resumed run draws the same.

        Args:
            step: Optimizer steps done.
        """
        training = self.training_config
        rng = np.random.default_rng([training.seed, step])
        if training.dynamic is not None and rng.random() < training.dynamic.probability:
            return None
        return float(rng.choice(training.budgets))

    def forward(self, *, step: int, **batch: Any) -> Tensor:
        """The loss of a batch at a step, from which the temperature and the budget follow.

        Args:
            step: Optimizer steps done.
            batch: Of a :class:`~domainformer.training.vision.VisionCollator`.
        """
        guided = self._guided(batch)
        if self.guided_alone(step):
            return guided
        inputs, images, labels = self._opened(batch)
        share, temperature = self.budget_at(step), self.temperature(step)
        budgets = None if share is None else tokens_of(images, share)
        soft = self._gated(inputs, images, labels, budgets, temperature)
        found, wanted, _ = at_answers(soft.logits, labels)
        loss = functional.cross_entropy(found.float(), wanted)
        if weight := self.training_config.distillation:
            distance = self._distance(inputs, images, labels, found)
            loss = (1 - weight) * loss + weight * distance
        if share is None:
            loss = loss + self._cost(soft.kept_share, images.counts)
        return loss + guided

    def guided_alone(self, step: int) -> bool:
        """Whether a step learns from the model's attention alone.

        Args:
            step: Optimizer steps done.
        """
        guidance = self.training_config.guidance
        return guidance is not None and step < guidance.alone * self.training_config.steps

    @torch.no_grad()
    def judge(self, batch: Mapping[str, Any], share: float | None) -> Judged:
        """Drop tokens and let the frozen model answer.

        Args:
            batch: Of a collator, with labels.
            share: Of an image's tokens to keep; None: as many as the compressor chooses.
        """
        inputs, images, labels = self._opened(batch)
        budgets = None if share is None else tokens_of(images, share)
        short = self.realizer.compress(**inputs, labels=labels, images=images, budgets=budgets)
        assert short.labels is not None  # they were given
        output = self.realizer.model(
            **short.model_inputs(self.realizer.base), **self._tail(short.labels)
        )
        found, wanted, rows = at_answers(output.logits, short.labels)
        wrong = found.argmax(-1) != wanted
        return Judged(
            correct=len(labels) - len(rows[wrong].unique()),
            questions=len(labels),
            loss=float(functional.cross_entropy(found.float(), wanted, reduction="sum")),
            targets=len(wanted),
            kept=sum(short.selection.counts),
            tokens=sum(images.counts),
        )

    def _opened(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], ImageTokens, Tensor]:
        """The model's inputs without labels, the image tokens, the labels."""
        inputs = {name: value for name, value in batch.items() if name not in _NOT_INPUTS}
        labels = inputs.pop("labels")
        images = batch.get("images")
        if images is None:
            return inputs, self.realizer.encode(**inputs), labels
        weight = self.realizer.base.model.get_input_embeddings().weight
        return inputs, _placed(images, weight), labels

    def _gated(
        self,
        inputs: dict[str, Any],
        images: ImageTokens,
        labels: Tensor,
        budgets: tuple[int, ...] | None,
        temperature: float,
    ) -> SoftOutput:
        """A soft pass whose question is all text but the answer."""
        return self.realizer.soft_forward(
            **inputs,
            images=images,
            budgets=budgets,
            query_mask=labels == NO_TARGET,
            temperature=temperature,
            straight=self.training_config.gate == "straight",
            options=self._tail(labels),
        )

    @torch.no_grad()
    def looked_at(self, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The full model's attention to each image's tokens, from the question's last token.

        Args:
            batch: Of a collator, with labels.
        """
        guidance = self.training_config.guidance
        assert guidance is not None  # nobody asks otherwise
        inputs, images, labels = self._opened(batch)
        layer = guidance.layer or len(self.realizer.base.model.get_decoder().layers)
        request = self.realizer.request(**inputs, images=images, labels=labels)
        return AttentionRank(layer).scores(request)

    def _guided(self, batch: Mapping[str, Any]) -> Tensor:
        """How far the scores are from what the full model looks at, weighted."""
        guidance = self.training_config.guidance
        if guidance is None:
            return batch["labels"].new_zeros((), dtype=torch.float32)
        looked_at = batch["looked_at"] if "looked_at" in batch else self.looked_at(batch)
        inputs, images, labels = self._opened(batch)
        request = self.realizer.request(**inputs, images=images, labels=labels)
        found = self.selector.score(request).scores
        distances = [
            functional.kl_div(
                score.float().log_softmax(0),
                (attention / attention.sum()).to(score.device),
                reduction="sum",
            )
            for score, attention in zip(found, looked_at, strict=True)
        ]
        return guidance.weight * torch.stack(distances).mean()

    def _tail(self, labels: Tensor) -> dict[str, int]:
        """Lets the model compute logits from the first answer on: a vocabulary is wide."""
        if not self._cuts_logits:
            return {}
        first = int((labels != NO_TARGET).any(0).nonzero()[0])
        return {"logits_to_keep": labels.shape[1] - first + 1}

    def _distance(
        self, inputs: dict[str, Any], images: ImageTokens, labels: Tensor, gated: Tensor
    ) -> Tensor:
        """KL(full ‖ gated), the mean over the tokens of the answers."""
        with torch.no_grad():
            # A budget of all tokens opens every gate: this is the model without compression.
            full = self._gated(inputs, images, labels, images.counts, 1.0)
        teacher, _, _ = at_answers(full.logits, labels)
        return functional.kl_div(
            gated.float().log_softmax(-1),
            teacher.float().log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )

    def _cost(self, kept_share: Tensor, counts: tuple[int, ...]) -> Tensor:
        """The price of the tokens that dynamic budgets are expected to keep."""
        dynamic = self.training_config.dynamic
        assert dynamic is not None  # budget_at answers None for no other reason
        if dynamic.target is None:
            return (dynamic.price or 0.0) * (kept_share * kept_share.new_tensor(counts)).mean()
        excess = kept_share.mean() - dynamic.target
        cost = self.multiplier.clone() * excess
        if self.training:
            # Dual ascent: what is kept too much becomes dearer for the steps to come.
            self.multiplier.add_(dynamic.rate * excess.detach()).clamp_(min=0)
        return cost


def tokens_of(images: ImageTokens, share: float) -> tuple[int, ...]:
    """Tokens to keep of each image for a share of them; at least one.

    Example:
        >>> images = ImageTokens((torch.zeros(36, 4), torch.zeros(4, 4)), ((6, 6), (2, 2)), (0, 1))
        >>> tokens_of(images, 1 / 9)
        (4, 1)
    """
    return tuple(max(1, min(count, round(share * count))) for count in images.counts)


def at_answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, ids and rows of the batch at the predictions of answers.

    Args:
        logits: ``[B, T, V]`` of the last T ≤ S positions.
        labels: ``[B, S]``; a position is predicted by the one before it.

    Returns:
        ``[A, V]``, ``[A]``, ``[A]``.

    Example:
        >>> found, wanted, rows = at_answers(torch.zeros(1, 2, 9), torch.tensor([[-100, -100, 7]]))
        >>> found.shape, wanted.tolist(), rows.tolist()
        (torch.Size([1, 9]), [7], [0])
    """
    wanted = labels[:, labels.shape[1] - logits.shape[1] + 1 :]
    rows, places = (wanted != NO_TARGET).nonzero(as_tuple=True)
    return logits[rows, places], wanted[rows, places], rows


def _placed(images: ImageTokens, like: Tensor) -> ImageTokens:
    """Kept features where the model is, in its precision."""
    return replace(
        images,
        features=tuple(one.to(like.device, like.dtype) for one in images.features),
        deepstack=tuple(
            tuple(one.to(like.device, like.dtype) for one in layer) for layer in images.deepstack
        ),
    )
