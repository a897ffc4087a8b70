"""Looking at one question: what is kept at each budget, and what the model answers then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import DataError, VisionError
from domainformer.models.vision import ImageTokens, RelevanceRealizer, Selection
from domainformer.models.vision.baselines import baseline
from domainformer.reports.vision_picture import Panel, Sight
from domainformer.training.trainer_parts import on_device
from domainformer.training.vision import VisionCollator, pixels_of
from domainformer.training.vision.examples import refuse_video

Budget = int | float | None
"""Tokens to keep, a share of them up to 1.0, or None: the selector decides."""


def check_image(path: Path) -> None:
    """Refuse what is no image before a model is opened for it.

    Raises:
        DataError: There is no such file.
        VisionError: It is a video.
    """
    if not path.is_file():
        raise DataError(f"there is no image {path}", next_step="check its name and folder")
    refuse_video(path)


def look(
    realizer: RelevanceRealizer,
    processor: Any,
    question: VisionQuestion,
    *,
    budgets: Sequence[Budget] = (None,),
    prompt: str | None = None,
    max_new_tokens: int = 16,
) -> Sight:
    """Answer one question from all tokens and from those kept at each budget, greedily.

    Args:
        realizer: the model with its selector.
        processor: of the model.
        question: one image with its question; an empty answer means that none is known.
        budgets: one panel of the picture for each.
        prompt: how a question is asked, see :class:`~domainformer.training.vision.VisionCollator`.
        max_new_tokens: of an answer.

    Returns:
        What :func:`~domainformer.reports.vision_picture.draw_sight` draws.

    Raises:
        DataError: The image cannot be read.
        VisionError: The question is empty, or no budget is given.
    """
    if not budgets:
        raise VisionError("there is no budget to look at", next_step="give one, or None")
    collate = VisionCollator(processor, prompt=prompt, answers=False)
    inputs = on_device(collate([question]), realizer.model)
    images = realizer.encode(**inputs)
    whole = RelevanceRealizer(realizer.model, baseline("everything"), route=realizer.base.route)
    said, _, full_length = _answer(whole, processor, inputs, images, None, max_new_tokens)
    panels, selections = [], []
    for budget in budgets:
        answer, selection, length = _answer(
            realizer, processor, inputs, images, budget, max_new_tokens
        )
        kept = selection.kept[0].cpu().numpy()
        panels.append(Panel(kept, answer, _titled(budget, kept, images.counts[0]), length))
        selections.append(selection)
    # A budget changes what is kept of the scores, and not the scores.
    scores, mixing = selections[0].scores, selections[0].mixing
    return Sight(
        image=pixels_of(question),
        grid=images.grids[0],
        question=question.question,
        panels=tuple(panels),
        full_answer=said,
        expected=question.answer.strip() or None,
        scores=None if scores is None else scores[0].double().cpu().numpy(),
        mixing=None if mixing is None else mixing[0],
        full_length=full_length,
    )


def _answer(
    realizer: RelevanceRealizer,
    processor: Any,
    inputs: dict[str, Any],
    images: ImageTokens,
    budget: Budget,
    max_new_tokens: int,
) -> tuple[str, Selection, int]:
    """The answer, what was kept for it, and the length of the prompt."""
    given = {**inputs, "images": images, "budgets": budget}
    compressed = realizer.compress(**given)
    options = {"max_new_tokens": max_new_tokens, "do_sample": False}
    new = realizer.generate(**given, options=options)[0]
    text = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    return text, compressed.selection, int(compressed.attention_mask.sum())


def _titled(budget: Budget, kept: np.ndarray[Any, Any], tokens: int) -> str | None:
    return f"dynamic: {len(kept)} of {tokens}" if budget is None else None
