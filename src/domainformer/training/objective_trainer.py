"""The engine's loop for several objectives: each loss a mean of its own, logged on its own."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch

from domainformer.training.objectives import NEXT_TOKEN, Losses, count_batch
from domainformer.training.trainer import EventTrainer
from domainformer.training.trainer_parts import TOKENS, Batch


class ObjectiveTrainer(EventTrainer):
    """An :class:`EventTrainer` of an :class:`~domainformer.training.objectives.ObjectiveModel`.

    ``loss`` in the log is the weighted sum, ``loss_{objective}`` each objective's own mean.
    ``eval_loss`` is the mean loss of next tokens, as in every run; the others have names of their
    own, and their weighted sum decides which checkpoint is the best.
    """

    _totals: dict[str, int]

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: Any) -> int:
        counts: Counter[str] = Counter()
        for batch in batch_samples:
            counts.update(count_batch(batch))
        self._totals = dict(counts)
        return self._totals[NEXT_TOKEN]

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The weighted loss of one pass, as its share of the optimizer step."""
        losses: Losses = model(**inputs, totals=self._totals)
        for name, part in losses.parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + part.detach()
        return losses.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each objective's mean over the steps since the last line."""
        if "loss" in logs:
            steps = max(1, self.state.global_step - self._logged)
            means = {f"loss_{name}": float(self._sums[name]) / steps for name in self._sums}
            logs = {**logs, **means}
            self._restart_sums()
        super().log(logs, start_time)

    def _restart_sums(self) -> None:
        self._sums: dict[str, torch.Tensor | float] = {}
        self._logged = self.state.global_step

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        self._sums = {}
        return super()._prepare_for_training(*args, **kwargs)

    def _run_epoch(self, **values: Any) -> None:
        if not self._sums:  # the step that a resumed run begins at is known only now
            self._restart_sums()
        super()._run_epoch(**values)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss per term of each objective over the validation rows."""
        sums: dict[str, float] = {}
        terms: Counter[str] = Counter()
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._evaluation_weights():
            for batch in self.get_eval_dataloader(eval_dataset):
                batch.pop(TOKENS, None)
                counts = count_batch(batch)
                with self.compute_loss_context_manager():
                    losses = self.model(**self._prepare_inputs(batch))
                for name, part in losses.parts.items():
                    sums[name] = sums.get(name, 0.0) + float(part) * counts[name]
                    terms[name] += counts[name]
        self.model.train(was_training)
        means = {name: sums[name] / terms[name] for name in sums}
        metrics = {
            f"{metric_key_prefix}_loss": means.pop(NEXT_TOKEN, math.nan),
            f"{metric_key_prefix}_targets": float(terms[NEXT_TOKEN]),
            **{f"{metric_key_prefix}_loss_{name}": mean for name, mean in means.items()},
        }
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        named = {NEXT_TOKEN: metrics["eval_loss"]}
        named |= {key.removeprefix("eval_loss_"): value for key, value in metrics.items()}
        weights = self.model.weights
        # An objective that the validation rows say nothing about has no say.
        judged = [w * named[name] for name, w in weights.items() if name in named]
        judged = [value for value in judged if math.isfinite(value)]
        return super()._determine_best_metric(
            {"eval_loss": sum(judged) if judged else math.nan}, trial
        )
