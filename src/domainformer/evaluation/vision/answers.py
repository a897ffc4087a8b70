"""What the model answers greedily, read off one forward pass.

Greedy generation gives exactly the answer's tokens if, and only if, each of them is the most likely
next one after the true tokens before it. One pass over question and answer tells all of them at
once, so an answer of any length costs one forward and no generation (tested against ``generate``).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from domainformer.errors import VisionError
from domainformer.models.vision import CompressedInputs, VisionBase
from domainformer.models.vision.queries import IGNORED_LABEL


@dataclass(frozen=True)
class Answers:
    """What was said to a batch of questions, up to the first token that is not the answer's.

    Args:
        tokens: ``[B, A]``, -100 behind the first wrong token and behind the answer's end.
        correct: ``[B]`` bool: all tokens of the answer.
    """

    tokens: Tensor
    correct: Tensor

    def agree(self, other: Answers) -> Tensor:
        """``[B]`` bool: where the same was said, as far as both followed the answer."""
        return (self.tokens == other.tokens).all(dim=1)


def answer(base: VisionBase, compressed: CompressedInputs) -> Answers:
    """Ask the model, and compare with the labels.

    Args:
        base: the opened model.
        compressed: with ``labels``: the answer's ids where they stand, -100 elsewhere.

    Raises:
        VisionError: there are no labels, or a row without an answer.
    """
    labels = compressed.labels
    if labels is None or not bool((labels[:, 1:] != IGNORED_LABEL).any(dim=1).all()):
        raise VisionError(
            "there is a question without an answer to compare with",
            where="labels",
            next_step="use a collator that puts the answer behind the question, with labels",
        )
    answered = (labels != IGNORED_LABEL).any(dim=0).int()
    first = max(1, int(answered.argmax()))
    # The logits of one position tell the next token.
    tail = labels.shape[1] - first + 1
    options = {"logits_to_keep": tail} if _can_keep(base) else {}
    with torch.no_grad():
        output = base.model(**compressed.model_inputs(base), use_cache=False, **options)
    said = output.logits[:, -tail:-1].argmax(dim=-1)
    return compare(said, labels[:, first:].to(said.device))


def compare(said: Tensor, labels: Tensor) -> Answers:
    """Greedy tokens beside labels ``[B, A']``, -100 where nothing is asked.

    Example:
        >>> ours = compare(torch.tensor([[5, 6, 9], [4, 7, 7]]),
        ...                torch.tensor([[5, 6, -100], [-100, 8, 7]]))
        >>> ours.correct.tolist(), ours.tokens.tolist()
        ([True, False], [[5, 6], [7, -100]])
    """
    asked = labels != IGNORED_LABEL
    lengths = asked.sum(dim=1).tolist()
    tokens, truth = (
        pad_sequence(
            list(part[asked].split(lengths)), batch_first=True, padding_value=IGNORED_LABEL
        )
        for part in (said, labels)
    )
    wrong = tokens != truth
    behind = (wrong.cumsum(dim=1) - wrong.int()) > 0
    return Answers(tokens.masked_fill(behind, IGNORED_LABEL), ~wrong.any(dim=1))


def _can_keep(base: VisionBase) -> bool:
    return "logits_to_keep" in inspect.signature(base.model.forward).parameters
