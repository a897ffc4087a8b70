"""One answer from several permuted encodings of the same histories."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import InputError

Item = TypeVar("Item", bound=Hashable)


def average_encodings(
    encodings: Iterable[TokenizedEvents],
    answer: Callable[[TokenizedEvents], npt.ArrayLike],
) -> npt.NDArray[np.floating[Any]]:
    """Mean of what a model answers to each encoding: embeddings, probabilities, scores.

    Args:
        encodings: Of the same events, as `ActionPieceMerges.permutations` gives them.
        answer: An array of one shape for every encoding, such as [n_entities, width].

    Raises:
        InputError: There is no encoding, or answers differ in shape.
    """
    total: npt.NDArray[np.floating[Any]] | None = None
    count = 0
    for encoding in encodings:
        one = np.asarray(answer(encoding), dtype=np.float64)
        if total is not None and one.shape != total.shape:
            raise InputError(
                "the answers to two encodings differ in shape",
                why=f"{total.shape} and {one.shape}",
                next_step="answer per entity: the number of tokens differs between encodings",
            )
        total = one if total is None else total + one
        count += 1
    if total is None:
        raise InputError("there is no encoding to average over")
    return total / count


def fuse_rankings(rankings: Iterable[Sequence[Item]]) -> list[Item]:
    """Items by Σ 1/log₂(rank + 1) over several rankings, best first; ties in order of appearance.

    Args:
        rankings: Each best first, as the beams of one permuted encoding.

    Source: ActionPiece (arXiv 2502.13581), inference-time ensembling.

    Example:
        >>> fuse_rankings([["a", "b", "c"], ["b", "a"], ["b", "c"]])
        ['b', 'a', 'c']
    """
    scores: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / math.log2(rank + 1)
    return sorted(scores, key=lambda item: -scores[item])
