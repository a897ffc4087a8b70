"""``UniversalModelAdapter``: any module as a LightningModule. Needs the extra ``lightning``.

::

    module ─▶ UniversalForCausalLM ─▶ UniversalModelAdapter ─▶ lightning.Trainer(precision=…,
                                       AdamW, cosine, perplexity    accumulate_grad_batches=…).fit
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from domainformer.errors import ConfigError, MissingExtraError
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.pretrained import UniversalForCausalLM

try:
    import lightning
    import torchmetrics
except ImportError as error:
    raise MissingExtraError(
        error.name or "lightning", extra="lightning", purpose="a LightningModule"
    ) from error

IGNORED_LABEL = -100


class UniversalModelAdapter(lightning.LightningModule):
    """Trains any module with Lightning: AdamW, a cosine with warm-up, and perplexity.

    Batches are ids [B, L], or mappings with ``input_ids`` and, where there are, ``attention_mask``
    and ``labels`` (not shifted; without them the ids, those of padding ignored). Precision
    (``"bf16-mixed"``, ``"16-mixed"``), gradient accumulation and clipping are the Trainer's own
    arguments. Logged: ``train_loss``, ``train_perplexity``, ``val_loss``, ``val_perplexity``; those
    of validation are means over all tokens, not over batches::

        perplexity = exp(Σ nll / Σ tokens)

    Args:
        model: A module of any shape, or a :class:`UniversalForCausalLM`.
        learning_rate: At the peak.
        weight_decay: Of matrices; embeddings, norms and biases do not decay.
        betas: Of AdamW.
        warmup: Share of the steps until the peak, from 0 to 1.
        max_steps: Optimizer steps of the schedule; None: what the Trainer will make.
        vocab_size: See :meth:`UniversalForCausalLM.wrap`.
        roles: See there.
        providers: See there.
        logits: See there.

    Raises:
        ConfigError: A number is out of range, or the length of the schedule cannot be known.
        AdapterError: The module cannot be bound.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019; "SGDR",
    ICLR 2017 (the cosine).

    Example:
        >>> module = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        >>> adapter = UniversalModelAdapter(module, roles={"input": "tokens"})
        >>> adapter.generate(torch.tensor([[4, 5]]), max_new_tokens=3, top_k=5, seed=0).shape
        torch.Size([1, 5])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        warmup: float = 0.05,
        max_steps: int | None = None,
        vocab_size: int | None = None,
        roles: Mapping[str, Role | str] | None = None,
        providers: Mapping[str, Any] | None = None,
        logits: Any = None,
    ) -> None:
        super().__init__()
        _check(learning_rate=learning_rate, weight_decay=weight_decay, warmup=warmup)
        self.save_hyperparameters("learning_rate", "weight_decay", "betas", "warmup", "max_steps")
        self.model = (
            model
            if isinstance(model, UniversalForCausalLM)
            else UniversalForCausalLM.wrap(
                model, vocab_size=vocab_size, roles=roles, providers=providers, logits=logits
            )
        )
        self._nll = torchmetrics.MeanMetric()

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        """What :class:`UniversalForCausalLM` gives: ``logits`` [B, L, V], and ``loss``."""
        return self.model(input_ids=input_ids, **kwargs)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """The mean loss over the targets of a batch."""
        inputs = inputs_of(batch)
        loss: torch.Tensor = self.model(**inputs, use_cache=False).loss
        told = loss.detach()
        rows = inputs["input_ids"].shape[0]
        self.log("train_loss", told, prog_bar=True, batch_size=rows)
        self.log("train_perplexity", told.exp(), batch_size=rows)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to count anew."""
        self._nll.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add the losses of a batch, by the number of its targets."""
        inputs = inputs_of(batch)
        targets = (inputs["labels"][:, 1:] != IGNORED_LABEL).sum()
        if int(targets):
            self._nll.update(self.model(**inputs, use_cache=False).loss.float(), targets)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over all targets, and its perplexity."""
        loss = self._nll.compute()
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_perplexity", loss.exp(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with decay on matrices alone, and a cosine with warm-up, moved on at each step."""
        own = self.hparams
        steps = own["max_steps"] or self.trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps < 1:
            raise ConfigError(
                "the length of the schedule cannot be known",
                why="the Trainer has neither max_steps nor a finite number of epochs",
                next_step="UniversalModelAdapter(model, max_steps=…)",
            )
        optimizer = torch.optim.AdamW(
            decay_groups(self.model, own["weight_decay"]),
            lr=own["learning_rate"],
            betas=tuple(own["betas"]),
        )
        schedule = get_cosine_schedule_with_warmup(
            optimizer, math.ceil(own["warmup"] * steps), int(steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int = 20,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        attention_mask: torch.Tensor | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Go on with rows of tokens.

        Args:
            input_ids: Beginnings, ids [B, L].
            max_new_tokens: How many tokens to add, at most.
            temperature: Divides the logits; 0 takes the likeliest token always.
            top_k: Draw from the k likeliest tokens alone.
            top_p: Draw from the likeliest tokens that have this much probability together.
            attention_mask: 0 at padding, which must be on the left [B, L].
            seed: Of the draws; the global generator is then as before afterwards.
            **kwargs: More for ``generate`` of transformers.

        Returns:
            The beginnings with what was added, ids [B, L + n].

        Raises:
            ConfigError: A number is out of range.
        """
        _check_sampling(temperature, top_k, top_p)
        drawing: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            # transformers draws from the 50 likeliest where nothing is said.
            drawing |= {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng(enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(seed)
                found: torch.Tensor = self.model.generate(
                    input_ids,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    **{**drawing, **kwargs},
                )
        finally:
            self.model.train(was_training)
        return found


def inputs_of(batch: Any) -> dict[str, Any]:
    """A batch as the model takes it; without labels, each token that is not padding is one.

    Example:
        >>> inputs_of(torch.tensor([[4, 5]]))["labels"].tolist()
        [[4, 5]]
        >>> ids, mask = torch.tensor([[4, 0]]), torch.tensor([[1, 0]])
        >>> inputs_of({"input_ids": ids, "attention_mask": mask})["labels"].tolist()
        [[4, -100]]
    """
    inputs = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
    if "labels" not in inputs:
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        inputs["labels"] = ids if mask is None else ids.masked_fill(mask == 0, IGNORED_LABEL)
    return inputs


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Each trainable parameter once: matrices decay; embeddings, norms and biases do not.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
        >>> [[tuple(p.shape) for p in group["params"]] for group in decay_groups(model, 0.1)]
        [[(3, 4)], [(5, 4), (3,)]]
    """
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    embedded = {id(weight) for part in tables for weight in part.parameters()}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [one for one in weights if one.ndim >= 2 and id(one) not in embedded]
    decayed = {id(one) for one in matrices}
    rest = [one for one in weights if id(one) not in decayed]
    groups = [(matrices, weight_decay), (rest, 0.0)]
    return [{"params": one, "weight_decay": decay} for one, decay in groups if one]


def _check(*, learning_rate: float, weight_decay: float, warmup: float) -> None:
    for name, value, good, should in (
        ("learning_rate", learning_rate, learning_rate > 0, "above 0"),
        ("weight_decay", weight_decay, weight_decay >= 0, "0 or more"),
        ("warmup", warmup, 0 <= warmup <= 1, "a share of the steps, from 0 to 1"),
    ):
        if not (good and math.isfinite(value)):
            raise ConfigError(f"{name}={value} cannot be used", why=f"it must be {should}")


def _check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    for name, value, good, should in (
        ("temperature", temperature, temperature >= 0, "0 or more"),
        ("top_k", top_k, top_k is None or top_k >= 1, "1 or more"),
        ("top_p", top_p, top_p is None or 0 < top_p <= 1, "above 0, and at most 1"),
    ):
        if not good:
            raise ConfigError(f"{name}={value} cannot be used", why=f"it must be {should}")
