"""The base model of the experiment: a small Qwen2-VL that answers questions on mosaics.

Two stages. The tower learns to name what a tile shows and is frozen (``base_tower.py``). Then the
language model learns to answer every kind of question from all tokens, on grids that grow: on 64
tiles from the start, attention is spread so thin that it stays at chance (docs/vision.md).
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLForConditionalGeneration,
    Trainer,
    TrainerCallback,
)
from transformers.trainer_callback import PrinterCallback

from domainformer.data.tile_questions import KINDS, TileQuestions
from domainformer.training.vision.base_config import (
    build_image_processor,
    build_model,
    build_tokenizer,
)
from domainformer.training.vision.base_rounds import CURRICULUM, BaseRound, BaseStage, RoundSteps
from domainformer.training.vision.base_tower import train_tower, training_arguments
from domainformer.training.vision.packed_questions import IGNORED, PackedQuestions

_SHOWN_TO: Final = {"lookups": (-1, slice(0, 2)), "sums": (-2, slice(2, 4))}
"""The layer and the heads that learn where the answers of these questions stand."""


class _AnswerTrainer(Trainer):
    """A trainer that also shows some heads where an answer stands.

    ``loss + w · cross-entropy of their attention``, with w falling from 1 to 0 over the round.
    From answers alone the same model needs many times the steps.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        del return_outputs, kwargs  # nothing is evaluated here, and every label counts alike
        inputs = dict(inputs)
        wanted = {name: inputs.pop(name) for name in _SHOWN_TO}
        output = model(**encode_images(model, inputs), output_attentions=True)
        weight = 1 - self.state.global_step / self.state.max_steps
        loss = output.loss
        for name, (layer, heads) in _SHOWN_TO.items():
            attention = output.attentions[layer][:, heads].mean(1)
            loss = loss + weight * looking_loss(attention, inputs["labels"], wanted[name])
        return loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights of a checkpoint under the names that the model uses.

        A Qwen2-VL is saved under the names of the published weights. The engine reads them as
        they are (transformers 5.23), finds none that it knows, warns, and goes on with what the
        model happens to hold.
        """
        saved = Qwen2VLForConditionalGeneration.from_pretrained(resume_from_checkpoint)
        (model or self.model).load_state_dict(saved.state_dict())


def looking_loss(attention: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of the attention from which an answer is said, mean over the questions shown.

    Args:
        attention: ``[B, S, S]``.
        labels: ``[B, S]``, two per question: the answer and the end of the text.
        wanted: ``[questions, 1 + K]``, each row a distribution, or zero where nothing is shown.

    Returns:
        A scalar, 0 where no question is shown.
    """
    rows, places = torch.nonzero(labels[:, 1:] != IGNORED, as_tuple=True)
    found = attention[rows[::2], places[::2], : wanted.shape[1]]
    shown = wanted.sum(1) > 0
    losses = -(wanted * (found + 1e-6).log()).sum(1)
    return losses[shown].sum() / shown.sum().clamp_min(1)


class _Snapshots(TrainerCallback):
    """Keeps the model as it is at the end of each stage of square grids."""

    def __init__(
        self, stages: Sequence[BaseStage], tokenizer: PreTrainedTokenizerFast, folder: Path
    ) -> None:
        ends, total = {}, 0
        for stage in stages:
            total += stage.steps
            if stage.short is None:
                ends[total] = stage.side
        self.ends, self.tokenizer, self.folder = ends, tokenizer, folder

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write ``grid-SIDE`` after a stage's last step, with its accuracy beside it."""
        side = self.ends.get(state.global_step)
        if side is None:
            return
        model, folder = kwargs["model"], self.folder / f"grid-{side}"
        save_base(model, self.tokenizer, folder)
        held_out = TileQuestions(
            600, rows=side, columns=side, part="validation", questions_per_scene=12
        )
        accuracy = answer_accuracy(model, self.tokenizer, held_out)
        (folder / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
        model.train()


def encode_images(model: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The inputs with the tower's features in place of pixels."""
    inputs = dict(inputs)
    with torch.no_grad():
        images = model.get_image_features(inputs.pop("pixel_values"), inputs.pop("image_grid_thw"))
    return {**inputs, "mm_encoder_outputs": {"image": images}}


def train_base(
    folder: Path,
    *,
    seed: int = 0,
    rounds: Sequence[BaseRound] = CURRICULUM,
    tower_steps: int = 900,
    save_every: int = 250,
) -> dict[int, Path]:
    """Train the base model, keeping it at the end of each stage.

    Started again on the same folder it goes on from its last checkpoint.

    Args:
        folder: where ``grid-SIDE`` folders are written: Qwen2-VL models with their processors. A
            later round writes its grids anew.
        seed: of weights, scenes and questions.
        rounds: what is trained, in order.
        tower_steps: optimiser steps of the tower.
        save_every: steps between checkpoints.

    Returns:
        The folder of each grid's model, by the grid's side.

    Example:
        >>> import tempfile
        >>> once = BaseRound((BaseStage(3, 2, 2, 6),), KINDS, 1e-3, 1e-4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = train_base(Path(folder), rounds=[once], tower_steps=2)
        ...     sorted(made), (made[3] / "model.safetensors").exists()
        ([3], True)
    """
    tokenizer, before = build_tokenizer(), folder / "tower"
    if not (before / "accuracy.json").exists():
        model = build_model(tokenizer, seed=seed)
        named = train_tower(model, tokenizer, folder / "trainer", seed=seed, steps=tower_steps)
        save_base(model, tokenizer, before)
        (before / "accuracy.json").write_text(json.dumps(named) + "\n")
    for number, wanted in enumerate(rounds, start=1):
        after = folder / f"round-{number}"
        if not (after / "accuracy.json").exists():
            _train_round(before, after, wanted, folder, seed=seed + number, save_every=save_every)
        before = after
    sides = {stage.side for wanted in rounds for stage in wanted.stages if stage.short is None}
    return {side: folder / f"grid-{side}" for side in sorted(sides)}


def _train_round(
    before: Path, after: Path, wanted: BaseRound, folder: Path, *, seed: int, save_every: int
) -> None:
    """One round, from the model of one folder to that of the next."""
    tokenizer = build_tokenizer()
    model = Qwen2VLForConditionalGeneration.from_pretrained(before)
    model.model.visual.requires_grad_(False)
    # Attention is read only where it is computed in the open.
    model.set_attn_implementation({"text_config": "eager"})
    work = folder / f"trainer-{after.name}"
    arguments = training_arguments(
        work,
        steps=wanted.steps,
        seed=seed,
        per_device_train_batch_size=1,  # an item is a whole step
        learning_rate=wanted.learning_rate,
        lr_scheduler_type="polynomial",
        lr_scheduler_kwargs={"lr_end": wanted.final_rate, "power": 1.0},
        warmup_steps=min(100, wanted.steps // 10),
        save_steps=save_every,
    )
    collate = PackedQuestions(tokenizer)
    trainer = _AnswerTrainer(
        model,
        arguments,
        train_dataset=RoundSteps(wanted, seed),
        data_collator=lambda steps: collate(steps[0]),
        callbacks=[_Snapshots(wanted.stages, tokenizer, folder)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")) or None)
    last = folder / f"grid-{wanted.stages[-1].side}"
    save_base(model, tokenizer, after)
    shutil.copy(last / "accuracy.json", after / "accuracy.json")


@torch.no_grad()
def answer_accuracy(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    questions: TileQuestions,
    *,
    batch_size: int = 16,
) -> dict[str, float]:
    """Share of questions whose answer is the likeliest word, per kind, all tokens seen."""
    model.eval()
    collate = PackedQuestions(tokenizer)
    scenes = -(-len(questions) // questions.questions_per_scene)
    hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for first in range(0, scenes, batch_size):
        groups = [questions.group(s) for s in range(first, min(first + batch_size, scenes))]
        batch = collate(groups)
        del batch["lookups"], batch["sums"]
        wanted = batch.pop("labels")[:, 1:]
        guesses = model(**encode_images(model, batch)).logits[:, :-1].argmax(-1)
        # Each question has two labels, the answer and the end of the text.
        asked = (wanted != IGNORED) & (wanted != collate.stop)
        rows, places = torch.nonzero(asked, as_tuple=True)
        right = (guesses[rows, places] == wanted[rows, places]).tolist()
        kinds = [question.kind for _, group in groups for question in group]
        for kind, hit in zip(kinds, right, strict=True):
            hits[kind].append(hit)
    return {kind: sum(found) / len(found) for kind, found in hits.items() if found}


def save_base(
    model: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the model and its processor as an ordinary Qwen2-VL folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)
