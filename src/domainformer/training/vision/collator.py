"""Questions to the inputs of a vision-language model.

::

    ids       [pad pad] <image> × K₀  which digit is red ?  7 <end>
    labels      -100      -100          -100                7 <end>

A question is read as it will be asked in use, and the answer's ids are put behind it: an answer
cannot change how its question is cut into tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision import Grid, ImageTokens
from domainformer.training.vision.examples import pixels_of

NO_TARGET = -100
_TEXT = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
Row = dict[str, Any]


class VisionCollator:
    """Turns questions into padded batches of one model's inputs.

    Args:
        processor: Of the model: called with ``images`` and ``text``; has a ``tokenizer`` and the
            ``image_token``.
        prompt: How a question is asked, with ``{image}`` and ``{question}``; None: the chat
            template, or ``{image}{question}`` where there is none.
        answers: Whether the answer follows, with ``labels``; False: ready for ``generate``.
        end_of_answer: Whether the token that ends a text belongs to the answer.
        padding_side: ``left`` serves training and generation alike.

    Raises:
        ConfigError: The tokenizer has no token to pad with, or a prompt lacks a place.
    """

    def __init__(
        self,
        processor: Any,
        *,
        prompt: str | None = None,
        answers: bool = True,
        end_of_answer: bool = True,
        padding_side: str = "left",
    ) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.prompt, self.answers, self.padding_side = prompt, answers, padding_side
        end = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        if pad is None and end is None:
            raise ConfigError(
                "the tokenizer has no token to pad with",
                next_step="set processor.tokenizer.pad_token",
            )
        if prompt is not None and not ("{image}" in prompt and "{question}" in prompt):
            raise ConfigError("a prompt has {image} and {question}", where="prompt")
        self.pad_id = int(end if pad is None else pad)
        self.end_id = int(end) if end_of_answer and end is not None else None
        self.image_token = str(processor.image_token)
        self.image_token_id = int(self.tokenizer.convert_tokens_to_ids(self.image_token))

    def __call__(
        self, questions: Sequence[VisionQuestion] | Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """A batch of questions, or of rows that :meth:`row` made of them.

        Returns:
            ``input_ids``, ``attention_mask``, ``mm_token_type_ids`` ``[B, S]``; ``labels`` where
            answers follow; ``pixel_values`` (and ``image_grid_thw``, …) of all images, or
            ``images`` where the rows have their features; ``looked_at`` where they have what the
            full model looks at; ``relevant`` where all questions know it: one tensor per image.
        """
        rows = [self.row(one) if isinstance(one, VisionQuestion) else one for one in questions]
        batch = self._text(rows)
        for name in rows[0]["vision"]:
            batch[name] = torch.cat([row["vision"][name] for row in rows])
        if "features" in rows[0]:
            batch["images"] = _images(rows)
        if "looked_at" in rows[0]:
            batch["looked_at"] = tuple(row["looked_at"] for row in rows)
        if all(row["relevant"] is not None for row in rows):
            batch["relevant"] = tuple(row["relevant"] for row in rows)
        return batch

    def row(self, question: VisionQuestion) -> Row:
        """One question by itself: ``input_ids``, ``labels``, ``vision``, ``relevant``.

        Raises:
            VisionError: The question or the answer is empty.
            DataError: The image cannot be used.
        """
        for name in ("question", "answer") if self.answers else ("question",):
            if not getattr(question, name).strip():
                raise VisionError(
                    f"the {name} is empty",
                    where=f"question {question.question!r}, answer {question.answer!r}",
                    why="a selector has nothing to choose image tokens for"
                    if name == "question"
                    else "there is nothing to learn from or to compare with",
                    next_step="ask something about the image, or leave the example out"
                    if name == "question"
                    else "leave the example out",
                )
        made = self.processor(
            images=[pixels_of(question)], text=[self.ask(question.question)], return_tensors="pt"
        )
        ids = made["input_ids"][0]
        answer = ids.new_tensor(self._answer(question.answer) if self.answers else [])
        relevant = question.relevant
        return {
            "input_ids": torch.cat([ids, answer]),
            "labels": torch.cat([torch.full_like(ids, NO_TARGET), answer]),
            "vision": {key: made[key] for key in made if key not in _TEXT},
            "relevant": None if relevant is None else torch.as_tensor(relevant).long(),
        }

    def ask(self, question: str) -> str:
        """The text that puts a question to the model, with one placeholder for its image."""
        if self.prompt is None and getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            asked = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            return str(asked)
        # One pass over the template: a question may itself hold braces.
        before, _, after = (self.prompt or "{image}{question}").partition("{question}")
        place = self.image_token
        return before.replace("{image}", place) + question + after.replace("{image}", place)

    def _answer(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids if self.end_id is None else [*ids, self.end_id]

    def _text(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), length), self.pad_id)
        labels = torch.full((len(rows), length), NO_TARGET)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for index, row in enumerate(rows):
            size = len(row["input_ids"])
            at = slice(length - size, None) if self.padding_side == "left" else slice(size)
            input_ids[index, at], labels[index, at] = row["input_ids"], row["labels"]
            mask[index, at] = 1
        kinds = (input_ids == self.image_token_id).long()
        batch = {"input_ids": input_ids, "attention_mask": mask, "mm_token_type_ids": kinds}
        return {**batch, "labels": labels} if self.answers else batch


def _images(rows: Sequence[Mapping[str, Any]]) -> ImageTokens:
    """The kept features of a batch, as the tower would have given them."""
    layers = zip(*(row["deepstack"] for row in rows), strict=True)
    grids: tuple[Grid, ...] = tuple(row["grid"] for row in rows)
    return ImageTokens(
        features=tuple(row["features"] for row in rows),
        grids=grids,
        rows=tuple(range(len(rows))),
        deepstack=tuple(tuple(layer) for layer in layers),
    )
