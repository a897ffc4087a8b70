"""What one step learns: where the model looks, then what a gate costs or a band is worth.

::

    question ─▶ compressor ─▶ scores ─▶ log-gate on image keys ─▶ frozen model ─▶ answer
                    ▲                                                               │
                    └──────────────── gradient, to the compressor alone ────────────┘

A step with a dynamic budget has no gates: it drops tokens and learns from what that cost
(``trials``).

Trap: through a warm or smooth gate the model reads tokens that it will not have, and the training
loss falls to almost nothing with or without a question. Only :meth:`VisionLearner.judge`, which
drops tokens, tells what a compressor can do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
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
from domainformer.models.vision.soft import SoftOutput
from domainformer.training.vision.answers import Judged, at_answers, per_row, tokens_of
from domainformer.training.vision.collator import NO_TARGET
from domainformer.training.vision.config import VisionTrainingConfig
from domainformer.training.vision.guidance import guidance_loss, shares_of_attention
from domainformer.training.vision.trials import trial_loss

_NOT_INPUTS = ("relevant", "images", "looked_at")


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
        guidance, warmth = training.guidance, training.temperature
        self._alone = 0 if guidance is None else math.ceil(guidance.alone * training.steps)
        self._schedule = TemperatureSchedule(
            steps=max(1, training.steps - self._alone - 1),
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
        alone = self.guided_alone(step)
        guided = self._guided(batch, centred=alone)
        if alone:
            return guided
        inputs, images, labels = self._opened(batch)
        share, temperature = self.budget_at(step), self.temperature(step)
        if share is None:
            return self._tried(inputs, images, labels) + guided
        budgets = tokens_of(images, share)
        soft = self._gated(inputs, images, labels, budgets, temperature)
        found, wanted, _ = at_answers(soft.logits, labels)
        loss = functional.cross_entropy(found.float(), wanted)
        if weight := self.training_config.distillation:
            distance = self._distance(inputs, images, labels, found)
            loss = (1 - weight) * loss + weight * distance
        return loss + guided

    def guided_alone(self, step: int) -> bool:
        """Whether a step learns from the model's attention alone.

        Args:
            step: Optimizer steps done.
        """
        return step < self._alone

    def temperature(self, step: int) -> float:
        """Of the gate at a step; it falls over the steps that have gates.

        Args:
            step: Optimizer steps done.
        """
        return self._schedule(step - self._alone)

    @torch.no_grad()
    def judge(self, batch: Mapping[str, Any], share: float | None) -> Judged:
        """Drop tokens and let the frozen model answer.

        Args:
            batch: Of a collator, with labels.
            share: Of an image's tokens to keep; None: as many as the compressor chooses.
        """
        inputs, images, labels = self._opened(batch)
        budgets = None if share is None else tokens_of(images, share)
        found, wanted, rows, kept = self._dropped(inputs, images, labels, budgets)
        wrong = found.argmax(-1) != wanted
        return Judged(
            correct=len(labels) - len(rows[wrong].unique()),
            questions=len(labels),
            loss=float(functional.cross_entropy(found.float(), wanted, reduction="sum")),
            targets=len(wanted),
            kept=sum(kept),
            tokens=sum(images.counts),
        )

    def _dropped(
        self,
        inputs: dict[str, Any],
        images: ImageTokens,
        labels: Tensor,
        budgets: tuple[int, ...] | None,
    ) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
        """Logits, ids and rows at the answers after tokens were dropped, and how many stayed."""
        short = self.realizer.compress(**inputs, labels=labels, images=images, budgets=budgets)
        assert short.labels is not None  # they were given
        output = self.realizer.model(
            **short.model_inputs(self.realizer.base), **self._tail(short.labels)
        )
        return *at_answers(output.logits, short.labels), short.selection.counts

    def _opened(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], ImageTokens, Tensor]:
        """The model's inputs without labels, the image tokens, the labels."""
        inputs = {name: value for name, value in batch.items() if name not in _NOT_INPUTS}
        labels = inputs.pop("labels")
        images = batch.get("images")
        if images is None:
            return inputs, self.realizer.encode(**inputs), labels
        weight = self.realizer.base.model.get_input_embeddings().weight
        return inputs, images.like(weight), labels

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
        request = self.realizer.request(**inputs, images=images, labels=labels)
        return shares_of_attention(request, guidance.layers)

    def _guided(self, batch: Mapping[str, Any], *, centred: bool) -> Tensor:
        """How far the scores are from what the full model looks at, weighted."""
        guidance = self.training_config.guidance
        if guidance is None:
            return batch["labels"].new_zeros((), dtype=torch.float32)
        looked_at = batch["looked_at"] if "looked_at" in batch else self.looked_at(batch)
        inputs, images, labels = self._opened(batch)
        request = self.realizer.request(**inputs, images=images, labels=labels)
        found = self.selector.score(request).scores
        return guidance.weight * guidance_loss(found, looked_at, centred=centred)

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

    def _tried(self, inputs: dict[str, Any], images: ImageTokens, labels: Tensor) -> Tensor:
        """What budgets cost that are tried, told to the scores."""
        dynamic = self.training_config.dynamic
        assert dynamic is not None  # budget_at answers None for no other reason
        tried = [tokens_of(images, share) for share in dynamic.trials]
        whose = torch.tensor(images.rows, device=labels.device)
        with torch.no_grad():
            costs = torch.stack(
                [self._answer_loss(inputs, images, labels, tokens)[whose] for tokens in tried]
            )  # [T, N]
        request = self.realizer.request(**inputs, images=images, labels=labels)
        scores = self.selector.score(request).scores
        for index, tokens in enumerate(tried):
            costs[index] += self._price(tokens, images.counts).to(costs)
        losses = [
            trial_loss(score, [tokens[image] for tokens in tried], costs[:, image])
            for image, score in enumerate(scores)
        ]
        if dynamic.target is not None and self.training:
            # Dual ascent: what is kept too much becomes dearer for the steps to come.
            kept = torch.stack([(score > 0).float().mean() for score in scores]).mean()
            self.multiplier.add_(dynamic.rate * (kept.detach() - dynamic.target)).clamp_(min=0)
        return torch.stack(losses).mean()

    def _answer_loss(
        self, inputs: dict[str, Any], images: ImageTokens, labels: Tensor, budgets: tuple[int, ...]
    ) -> Tensor:
        """Mean cross-entropy of each row's answer after tokens were dropped, ``[B]``."""
        found, wanted, rows, _ = self._dropped(inputs, images, labels, budgets)
        losses = functional.cross_entropy(found.float(), wanted, reduction="none")
        return per_row(losses, rows, len(labels))

    def _price(self, tokens: tuple[int, ...], counts: tuple[int, ...]) -> Tensor:
        """What so many tokens of each image cost, ``[N]`` nats."""
        dynamic = self.training_config.dynamic
        assert dynamic is not None  # as in _tried
        kept = torch.tensor(tokens, dtype=torch.float32)
        if dynamic.target is None:
            return (dynamic.price or 0.0) * kept
        return self.multiplier.cpu() * kept / torch.tensor(counts)
