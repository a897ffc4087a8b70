"""The loop behind ``fit_fusion``: rows in buckets of similar length, a learning rate for each part.

Training stops when the validation loss has not improved for a while, and takes the best weights.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback

from domainformer.inference.fusion import FusionInputs, collate_fusion
from domainformer.models import JointFusionModel
from domainformer.models.numeric import FeatureLinear
from domainformer.training.fusion_config import FusionConfig
from domainformer.training.fusion_targets import Floats
from domainformer.training.optimizer import choose_precision
from domainformer.training.plan import TrainPlan, device
from domainformer.training.trainer import EventTrainer
from domainformer.training.trainer_parts import Batch


class FusionTrainer(EventTrainer):
    """The engine with a learning rate for each part of a fusion model.

    Args:
        model: The fusion model.
        plan: The resolved numbers.
        config: Learning rates and decays.
        **kwargs: As for :class:`~domainformer.training.trainer.EventTrainer`.
    """

    def __init__(
        self, model: JointFusionModel, plan: TrainPlan, *, config: FusionConfig, **kwargs: Any
    ) -> None:
        self._config = config
        super().__init__(model, plan, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over :func:`fusion_groups`."""
        groups = fusion_groups(self.model, self._config)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, fused=True)
        return self.optimizer

    def count_targets(self, batch: Batch) -> int:
        """Rows with at least one known label."""
        return int((~torch.isnan(batch["labels"])).any(dim=1).sum())


def fusion_groups(model: JointFusionModel, config: FusionConfig) -> list[dict[str, Any]]:
    """Trainable parameters by part and decay, each with its learning rate.

    Example:
        >>> from domainformer.models import JointFusionConfig
        >>> model = JointFusionModel(JointFusionConfig(n_numbers=2))
        >>> [(g["name"], g["lr"], g["weight_decay"]) for g in fusion_groups(model, FusionConfig())]
        [('cross', 0.001, 0.05), ('cross', 0.001, 0.0), ('head', 0.001, 0.01), ('head', 0.001, 0.0),
         ('tabular', 0.001, 0.01), ('tabular', 0.001, 0.0)]
    """
    rates, decays = config.rates, {"cross": config.cross_weight_decay}
    lines = {"backbone": rates.backbone, "tabular": rates.tabular, "cross": rates.tabular}
    # What decays is the weight of a linear layer; embeddings, frequencies and norms do not.
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Linear, FeatureLinear))
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = _part(name)
            groups.setdefault((part, id(parameter) in matrices), []).append(parameter)
    return [
        {
            "name": part,
            "params": parameters,
            "lr": lines.get(part, rates.head),
            "weight_decay": decays.get(part, config.weight_decay) if decayed else 0.0,
        }
        for (part, decayed), parameters in sorted(
            groups.items(), key=lambda item: (item[0][0], not item[0][1])
        )
    ]


def _part(name: str) -> str:
    if name.startswith("tabular.cross."):
        return "cross"
    first = name.split(".", 1)[0]
    return first if first in ("backbone", "tabular") else "head"


class FusionRows:
    """Examples with labels, as the trainer asks for them; neighbours of similar length."""

    def __init__(
        self, inputs: FusionInputs, labels: Floats, *, bucket: int, seed: int | None
    ) -> None:
        self.inputs = inputs
        self._labels = labels
        self._bucket = bucket
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle by (seed, epoch), then sort within buckets: less padding, order still random."""
        order = np.arange(len(self.inputs))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, epoch)).permutation(order)
            if self.inputs.histories is not None:
                buckets = np.arange(len(order)) // self._bucket
                order = order[np.lexsort((self.inputs.lengths[order], buckets))]
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = int(self._order[index])
        return {**self.inputs[place], "labels": self._labels[place]}


@dataclass
class Patience(TrainerCallback):
    """Keeps the validation losses, and stops when they have not improved for a while."""

    patience: int

    def __post_init__(self) -> None:
        self.losses: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Look at the newest loss."""
        self.losses.append(float(metrics["eval_loss"]))
        best = int(np.nanargmin(self.losses)) if np.isfinite(self.losses).any() else 0
        if len(self.losses) - 1 - best >= self.patience:
            control.should_training_stop = True


def train_fusion(
    model: JointFusionModel, train: FusionRows, valid: FusionRows, pad_id: int, config: FusionConfig
) -> dict[str, Any]:
    """Train a model in place and leave it with its best weights.

    Args:
        model: The model, on its device.
        train: Training rows.
        valid: Rows to stop by.
        pad_id: The padding token's id.
        config: Lengths, rates and decays.

    Returns:
        The validation loss of every evaluation, the best epoch, and sizes.
    """
    per_epoch = -(-len(train) // config.batch_rows)
    steps, eval_every = config.length(per_epoch)
    plan = TrainPlan(
        steps=steps,
        rows=config.batch_rows,
        warmup_ratio=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
        bf16=choose_precision(config.precision, device(), model.config.hidden_size) == "bf16",
        eval_every=eval_every,
        save_every=steps,  # the best are saved whenever they are found
        log_every=min(eval_every, 50),
        keep=1,
        seed=config.seed,
    )
    watcher = Patience(config.patience)
    with tempfile.TemporaryDirectory() as folder:
        trainer = FusionTrainer(
            model,
            plan,
            config=config,
            train_rows=train,
            eval_rows=valid,
            collate=partial(collate_fusion, pad_id=pad_id),
            checkpoint_root=Path(folder),
            callbacks=[watcher],
        )
        trainer.fit()
        best = trainer.load_best()
    model.eval()
    return {
        "losses": watcher.losses,
        "best_epoch": best // per_epoch,
        "parameters": model.num_parameters(),
        "train_rows": len(train),
        "validation_rows": len(valid),
    }
