"""The engine's loop for a compressor: temperature by the step, validation by hard drop."""

from __future__ import annotations

from typing import Any

from domainformer.training.trainer import EventTrainer
from domainformer.training.trainer_parts import TOKENS, Batch
from domainformer.training.vision.judging import judge
from domainformer.training.vision.learner import VisionLearner


class VisionTrainer(EventTrainer):
    """An :class:`~domainformer.training.trainer.EventTrainer` of a :class:`VisionLearner`.

    Everything random or annealed follows from the seed and the step, so that a resumed run ends
    with the weights of an uninterrupted one.

    The last weights are the result. A "best" checkpoint would be one whose gate is still warm, or,
    with dynamic budgets, the one that spends most tokens.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss at the current step."""
        return model(**inputs, step=self.state.global_step)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the temperature of the gate, and the price of tokens where one is found."""
        if "loss" in logs:
            learner: VisionLearner = self.model
            last = max(0, self.state.global_step - 1)
            logs = {**logs, "gate_temperature": learner.temperature(last)}
            if hasattr(learner, "multiplier"):
                logs["gate_multiplier"] = float(learner.multiplier)
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Accuracy, loss and share of tokens kept by hard drop, for each budget.

        Returns:
            ``eval_`` and the names of :func:`~domainformer.training.vision.judging.judge`.
        """
        loader = self.get_eval_dataloader(eval_dataset)
        batches = (
            self._prepare_inputs({key: batch[key] for key in batch if key != TOKENS})
            for batch in loader
        )
        found = judge(self.model, batches)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        return False
