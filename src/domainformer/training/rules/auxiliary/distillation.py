"""Learning from a teacher's probabilities."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import nn
from torch.nn import functional as F

from domainformer.artifacts import fingerprint, sha256_file
from domainformer.errors import FingerprintError, RuleError
from domainformer.models.families import adapter_for
from domainformer.registry import Registry
from domainformer.training.rules.auxiliary.base import AuxiliaryLoss, exact, mean
from domainformer.training.rules.base import Moment, Seen, Site, Slot, State
from domainformer.weights import CONFIG_FILE, check_weights

_NOT_OF_THE_TEACHER = ("labels", "shift_labels", "use_cache", "num_items_in_batch")


def load_teacher(name: str, registry: str = "models") -> tuple[nn.Module, str]:
    """The teacher, and the fingerprint of its files.

    Args:
        name: A model folder (ours, a bundle, or any causal model of transformers in safetensors),
            or a name of the registry.
        registry: Folder of the registry.

    Raises:
        RegistryError: It is neither, has only pickles, or its files are not as registered.
    """
    if Path(name).is_dir():
        folder, adapter = Path(name), adapter_for(name)
    else:
        known = Registry(registry)
        folder, adapter = known.folder(name), known.load(name)
    model = adapter.model.eval().requires_grad_(False)
    files = {file: sha256_file(folder / file) for file in (CONFIG_FILE, *check_weights(folder))}
    return model, fingerprint(files)


class Distillation(AuxiliaryLoss):
    """Be near a teacher: ``w·T²·mean KL(p_T ‖ q_T)`` at temperature T.

    ``p_T = softmax(teacher/T)``, ``q_T = softmax(student/T)``; T² keeps the size of the gradient
    the same at every T. Both must share a vocabulary. The teacher is no part of the rule's
    state: a checkpoint holds the fingerprint of its files, and a run does not go on with another.

    Source: arXiv 1503.02531, section 2.

    Args:
        teacher: Its folder, or its name in the registry.
        weight: w.
        temperature: T.
        registry: Folder of the registry.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 100.0]])
        >>> rule = Distillation(teacher="models/large", temperature=1.0)
        >>> round(float(rule.divergence(student, teacher)), 4)  # log 2
        0.6931
    """

    name: ClassVar[str] = "distillation"

    teacher: str
    weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    registry: str = "models"

    # Not a setting and not a state: the loaded model, there only while the rule is attached.
    _loaded: tuple[nn.Module, str] | None = PrivateAttr(default=None)

    @contextlib.contextmanager
    def around(
        self, model: nn.Module, sites: Sequence[Site], slot: Slot, moment: Moment
    ) -> Iterator[None]:
        """Load the teacher, and let it go on leaving.

        Raises:
            RegistryError: It cannot be loaded.
            RuleError: It has another vocabulary.
        """
        if self.weight == 0:
            yield
            return
        teacher, files = load_teacher(self.teacher, self.registry)
        self._check_vocabulary(model, teacher)
        before, self._loaded = self._loaded, (teacher, files)
        slot.state = {**slot.state, "teacher": files}
        try:
            yield
        finally:
            self._loaded = before

    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """The mean divergence over scored positions.

        Raises:
            FingerprintError: The run was started with another teacher.
        """
        teacher = self._teacher_of(state).to(seen.logits.device)
        known = {k: v for k, v in seen.inputs.items() if k not in _NOT_OF_THE_TEACHER}
        with torch.no_grad():
            given = teacher(**known, use_cache=False).logits
        kept = seen.targets.ne(-100)
        return self.divergence(seen.logits[kept], given[kept])

    def divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """``T²·mean KL``, of logits [N, V]."""
        warm = self.temperature
        log_p = F.log_softmax(exact(teacher) / warm, dim=-1).to(exact(student).dtype)
        log_q = F.log_softmax(exact(student) / warm, dim=-1)
        return warm**2 * mean((log_p.exp() * (log_p - log_q)).sum(dim=-1))

    def _teacher_of(self, state: State) -> nn.Module:
        if self._loaded is None:
            raise RuleError(
                f"the rule {self.name!r} has no teacher",
                why="it is loaded while the rule is attached to a model",
                next_step="work the loss out inside `with attach(rule, model)`",
            )
        teacher, files = self._loaded
        if state.get("teacher", files) != files:
            raise FingerprintError(
                "this run was started with another teacher",
                where=self.teacher,
                why=f"its files have the fingerprint {files}, the checkpoint says "
                f"{state['teacher']}",
                next_step="put the teacher back as it was, or start a new run",
            )
        return teacher

    def _check_vocabulary(self, model: nn.Module, teacher: Any) -> None:
        sizes = model.config.vocab_size, teacher.config.vocab_size
        if sizes[0] != sizes[1]:
            raise RuleError(
                "the teacher has another vocabulary than the model",
                where=self.teacher,
                why=f"it knows {sizes[1]} tokens, the model {sizes[0]}",
                next_step="choose a teacher that was trained with the same tokenizer",
            )
