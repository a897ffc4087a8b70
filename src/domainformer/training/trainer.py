"""The Hugging Face Trainer, without what costs, and with checkpoints that survive a crash.

The loop is the Trainer's own. What is switched off are costs that every step pays for uses that a
single process does not have (measured in ``benchmarks/engine_overhead.py``):

==============================  ===================================================================
default                         here
==============================  ===================================================================
``floating_point_ops``          walks all modules at each step to count parameters: not counted
``model.train()`` per step      walks all modules: once, and after each evaluation
accelerate's wrappers           data loader, optimizer and ``backward`` go through them: plain torch
``clip_grad_norm_``             collects the parameters again at each step: collected once
NaN filter                      compares each loss and hides what it finds: a loss that is not
                                finite stops the run with an error
``log_history``                 grows into every checkpoint: ``metrics.jsonl`` keeps it
==============================  ===================================================================

The order of the data, dropout and everything else random depends on the seed and the position
alone, so that a resumed run ends with the very weights of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, TrainerState

from domainformer.errors import CheckpointError, ConfigError, DomainformerError
from domainformer.training import checkpoints
from domainformer.training.optimizer import adamw, make_schedule, trainable
from domainformer.training.plan import TrainPlan, autocast
from domainformer.training.rules import Attached
from domainformer.training.rules.finite import explain
from domainformer.training.sampler import EpochBatches, EpochDataset, spread
from domainformer.training.trainer_parts import (
    TOKENS,
    Batch,
    Collate,
    arguments,
    compiled,
    count_targets,
    counting,
)


class EventTrainer(Trainer):
    """Trains a model on rows of events.

    Args:
        model: A model whose forward takes ``labels`` and returns a ``loss``.
        plan: The resolved numbers.
        train_rows: Training rows; permutes itself in ``set_epoch``.
        eval_rows: Validation rows, or None.
        collate: Rows to model inputs.
        checkpoint_root: Folder of the checkpoints.
        callbacks: Watchers (progress, trackers).
        rules: Learning rules that are attached to the model, or None.
        origin: What the weights came from, for the manifest of each checkpoint.
        groups: Makes the optimizer's parameter groups from the model, the rate and the weight
            decay; None: matrices decay, all else does not.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        plan: TrainPlan,
        *,
        train_rows: EpochDataset,
        eval_rows: EpochDataset | None,
        collate: Collate,
        checkpoint_root: Path,
        callbacks: Sequence[TrainerCallback] = (),
        rules: Attached | None = None,
        origin: Mapping[str, Any] | None = None,
        groups: Callable[[torch.nn.Module, float, float], list[dict[str, Any]]] | None = None,
    ) -> None:
        if len(train_rows) == 0:
            raise ConfigError(
                "there is nothing to train on",
                why="no window of the training events has a token to predict",
                next_step="check the split, and that entities have more than one event",
            )
        self._use_cache = getattr(model.config, "use_cache", None)
        super().__init__(
            model=model,
            args=arguments(plan, checkpoint_root, evaluates=eval_rows is not None),
            data_collator=counting(collate),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            callbacks=[*callbacks],
        )
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            raise ConfigError(
                "this engine trains in one process on one device",
                next_step="start it without torchrun, or set CUDA_VISIBLE_DEVICES to one device",
            )
        self.remove_callback(PrinterCallback)
        self.plan = plan
        self.checkpoint_root = checkpoint_root
        self.rows_per_epoch = len(train_rows)
        self._trainable = trainable(model)
        self.rules = rules
        self._origin = origin
        self._groups = groups
        # The losses since the last line of the log, and the step of that line: the Trainer's own
        # begin anew where a run is resumed, and its log would not be that of an uninterrupted run.
        self._losses: torch.Tensor | None = None
        self._logged_step = 0
        self._stepped = model if plan.compile is None else compiled(model, plan.compile)

    # Data

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in the data set's own order."""
        dataset = self.train_dataset
        return self._loader(dataset, EpochBatches(dataset, self.rows_per_epoch, self.plan.rows))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The same validation rows at every evaluation."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        subset = Subset(dataset, spread(len(dataset), self.plan.eval_rows))
        return self._loader(subset, EpochBatches(subset, len(subset), self.plan.rows))

    def _loader(self, dataset: Any, batches: EpochBatches) -> DataLoader[Any]:
        # A generator of its own: a loader otherwise draws from the global one when it starts,
        # and evaluations would then change the dropout that follows.
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            generator=torch.Generator().manual_seed(self.plan.seed),
            pin_memory=self.args.device.type == "cuda",
        )

    def _run_epoch(self, **values: Any) -> None:
        self.train_dataset.set_epoch(values["epoch"])
        super()._run_epoch(**values)

    # One step

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader[Any], resume_from_checkpoint: str | None
    ) -> tuple[Any, DataLoader[Any]]:
        # One process on one device: accelerate's wrappers around model, optimizer and loader would
        # only cost.
        self.create_optimizer()
        self.create_scheduler(max_steps)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(self.callback_handler, name, getattr(self, name))
        self.callback_handler.train_dataloader = train_dataloader
        return self.model, train_dataloader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, or what a learning rule brings; new for each training."""
        plan = self.plan
        own = None
        if self.rules is not None:
            own = self.rules.make_optimizer(
                learning_rate=plan.learning_rate, weight_decay=plan.weight_decay
            )
        rate, decay = plan.learning_rate, plan.weight_decay
        groups = None if self._groups is None else self._groups(self.model, rate, decay)
        if own is not None and groups is not None:
            raise ConfigError(
                "layer-wise learning rates need the optimizer of the engine",
                where="surgery.layer_decay",
                why="a learning rule brings an optimizer with parameter groups of its own",
                next_step="leave out the rule or the decay",
            )
        self.optimizer = own or adamw(
            self.model, learning_rate=rate, weight_decay=decay, betas=plan.betas, groups=groups
        )
        if self.rules is not None:
            self.rules.bind(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule with warm-up, new for each training."""
        self.lr_scheduler = make_schedule(
            self.optimizer,
            steps=num_training_steps,
            kind=self.plan.schedule,
            warmup_ratio=self.plan.warmup_ratio,
            final_rate=self.plan.final_rate,
        )
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Any:
        """Forward and backward of one batch; the loss is a mean over all targets of the step."""
        self.state.num_input_tokens_seen += inputs.pop(TOKENS, 0)
        if not model.training:
            model.train()
        inputs = self._prepare_inputs(inputs)
        loss = self._forward(inputs, num_items_in_batch)
        if self.rules is not None:
            self._last_pass = inputs, num_items_in_batch
            self._check_finite("loss", loss)
        loss.backward()
        if self.rules is not None:
            self.rules.clock.micro += 1
        told = loss.detach()
        self._losses = told if self._losses is None else self._losses + told
        return told

    def _forward(self, inputs: Batch, num_items_in_batch: Any) -> torch.Tensor:
        """The loss of a pass, as its share of the optimizer step."""
        with self.compute_loss_context_manager():
            if self.rules is not None and self.rules.adds_loss:
                loss = self._loss_with_rules(inputs, num_items_in_batch)
            else:
                loss = self.compute_loss(
                    self._stepped, inputs, num_items_in_batch=num_items_in_batch
                )
        if not self.model_accepts_loss_kwargs:
            loss = loss / self.current_gradient_accumulation_steps
        return loss

    def _loss_with_rules(self, inputs: Batch, num_items_in_batch: Any) -> torch.Tensor:
        """The loss of a pass with the terms of the rules, each counting as the pass counts."""
        assert self.rules is not None
        loss, output = self.compute_loss(
            self._stepped, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        share = 1.0
        if self.model_accepts_loss_kwargs and num_items_in_batch is not None:
            share = self.count_targets(inputs) / max(1, int(num_items_in_batch))
        none = torch.zeros((), device=loss.device)
        added = self.rules.add_auxiliary(none, output.logits, self.targets_of(inputs), inputs)
        return loss + share * added

    def autocast_smart_context_manager(
        self, cache_enabled: bool | None = True
    ) -> contextlib.AbstractContextManager[Any]:
        """Autocast to bf16 where the plan says so."""
        return autocast(self.args.device, self.plan.bf16)

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: Any) -> int:
        # The default looks the model's loss up by name to learn whether it shifts the labels.
        return sum(self.count_targets(batch) for batch in batch_samples)

    def targets_of(self, batch: Batch) -> torch.Tensor:
        """What each position shall say, ids [B, L]; −100 is nothing."""
        labels: torch.Tensor = batch["labels"]
        return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)

    def count_targets(self, batch: Batch) -> int:
        """Number of predictions that a batch's loss averages over."""
        return count_targets(batch["labels"])

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the default walks every module at every step."""
        return 0

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        norm = torch.nn.utils.clip_grad_norm_(self._trainable, self.plan.max_grad_norm)
        self._check_finite("gradient", norm)
        return norm

    def _check_finite(self, what: str, value: torch.Tensor) -> None:
        # Before the weights are touched: afterwards nobody could tell who it was.
        if self.rules is None or math.isfinite(number := value.item()):
            return
        if what == "gradient":
            self.rules.clock.micro -= 1  # it has moved on: the last pass shall draw the same
        explain(self.rules, what, number, lambda: self._forward(*self._last_pass))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return grad_norm  # not measured where nothing is clipped

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the watchers, who keep it; refuse to go on with a loss that is not finite."""
        if "loss" in logs and self._losses is not None:
            steps = max(1, self.state.global_step - self._logged_step)
            logs = {**logs, "loss": float(self._losses) / steps}
            self._losses, self._logged_step = None, self.state.global_step
        if self.rules is not None:
            logs = {**logs, **self.rules.metrics()}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise DomainformerError(
                f"the loss is {logs['loss']} at step {self.state.global_step}",
                why="the training diverged; going on would only spread it",
                next_step="lower training.learning_rate, or set training.precision to fp32",
            )
        self.control: Any = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    # Evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss per target over the validation rows (the default averages batches instead)."""
        total, targets = 0.0, 0
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._evaluation_weights():
            for batch in self.get_eval_dataloader(eval_dataset):
                batch.pop(TOKENS, None)
                inputs = self._prepare_inputs(batch)
                found = self.count_targets(inputs)
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(self.model, inputs)
                if found:
                    total += float(loss) * found
                    targets += found
        self.model.train(was_training)
        metrics = {
            f"{metric_key_prefix}_loss": total / targets if targets else math.nan,
            f"{metric_key_prefix}_targets": float(targets),
        }
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _evaluation_weights(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.rules is None else self.rules.evaluating()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = self.state.best_metric
        loss = metrics["eval_loss"]
        better = math.isfinite(loss) and (best is None or loss < best)
        if better:
            self.state.best_metric, self.state.best_global_step = loss, self.state.global_step
            self.control.should_save = True
        return better

    # Checkpoints

    @property
    def position(self) -> dict[str, int]:
        """What a step counts in: it means the same rows only where all of this is the same."""
        plan = self.plan
        return {
            "rows_per_epoch": self.rows_per_epoch,
            "rows": plan.rows,
            "accumulation": plan.accumulation,
            "seed": plan.seed,
            "steps": plan.steps,
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints.save_checkpoint(
            self.checkpoint_root,
            step=self.state.global_step,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.lr_scheduler,
            state=asdict(self.state),
            position=self.position,
            rules=None if self.rules is None else self.rules.state_dict(),
            window={
                "losses": None if self._losses is None else float(self._losses),
                "logged_step": self._logged_step,
            },
            origin=self._origin,
        )
        best = self.state.best_global_step
        checkpoints.prune_checkpoints(
            self.checkpoint_root, keep=self.plan.keep, spare=() if best is None else (best,)
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_training_state(Path(checkpoint), self.optimizer, self.lr_scheduler)
            self._load_rules(Path(checkpoint))
            window = checkpoints.load_window(Path(checkpoint))
            losses = window.get("losses")
            place = self.args.device
            self._losses = None if losses is None else torch.tensor(losses, device=place)
            self._logged_step = int(window.get("logged_step", self.state.global_step))

    def _load_rules(self, path: Path) -> None:
        if self.rules is not None:
            self.rules.load_state_dict(checkpoints.load_rules(path))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_rng(Path(checkpoint))

    # The whole

    def fit(self, checkpoint: checkpoints.Checkpoint | None = None) -> None:
        """Train from the start, or on from a verified checkpoint, to the last step.

        Raises:
            CheckpointError: The checkpoint belongs to other data, batches or length.
            DomainformerError: The loss is not finite any more.
        """
        if checkpoint is not None and checkpoint.position != self.position:
            raise CheckpointError(
                f"{checkpoint.path} was written for other data or batches",
                why=f"its position counts in {checkpoint.position}, this run in {self.position}",
                next_step="resume with the same data, batch size and length",
            )
        try:
            if checkpoint is not None and checkpoint.step >= self.plan.steps:
                # All steps are done; the Trainer would take one too many.
                checkpoints.load_weights(checkpoint.path, self.model)
                self._load_rules(checkpoint.path)
                self.state = TrainerState.load_from_json(str(checkpoint.path / checkpoints.STATE))
            else:
                self.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        finally:
            # The Trainer switches the cache off for training; the model will generate later.
            self.model.config.use_cache = self._use_cache

    def load_best(self) -> int:
        """Load the weights with the lowest validation loss and return their step.

        Without a validation set these are the last weights, which the model has already. Where a
        learning rule keeps an average to evaluate with, the model gets the average.
        """
        best, last = self.state.best_global_step, self.state.global_step
        if best is not None and best != last:
            path = checkpoints.checkpoint_path(self.checkpoint_root, best)
            checkpoints.load_weights(checkpoints.open_checkpoint(path).path, self.model)
            self._load_rules(path)
        if self.rules is not None:
            self.rules.keep_evaluation_weights()
        return int(last if best is None else best)
