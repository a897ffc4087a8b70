"""Ranks that are read off the features: their norm, their contrast, their likeness to the query."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.baselines.selector import Ranker
from domainformer.models.vision.request import CompressionRequest


class FeatureNorm(Ranker):
    """The length of a token's feature: ``‖f_k‖``.

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> images = ImageTokens((torch.tensor([[3.0, 4.0], [1.0, 0.0]]),), ((1, 2),), (0,))
        >>> FeatureNorm().scores(CompressionRequest(images, ()))
        (tensor([5., 1.]),)
    """

    def scores(self, request: CompressionRequest) -> tuple[Tensor, ...]:
        """The Euclidean norm of each token."""
        return tuple(tokens.float().norm(dim=-1) for tokens in request.images.features)


class FeatureContrast(Ranker):
    """How far a token is from its image's mean: ``‖f_k − mean_j f_j‖``.

    An image of objects on a plain background is summed up by it, which makes it the strongest
    baseline without a question on generated images.
    """

    def scores(self, request: CompressionRequest) -> tuple[Tensor, ...]:
        """The distance of each token from the mean of its own image."""
        return tuple(
            (tokens.float() - tokens.float().mean(dim=0)).norm(dim=-1)
            for tokens in request.images.features
        )


class QueryCosine(Ranker):
    """The cosine between a token and the words of the question.

    Args:
        words: ``"mean"`` compares with the mean of the word embeddings; ``"max"`` with the nearest
            word.

    Raises:
        ConfigError: another word for ``words``.

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> images = ImageTokens((torch.eye(2),), ((1, 2),), (0,))
        >>> QueryCosine().scores(CompressionRequest(images, (torch.tensor([[0.0, 2.0]]),)))
        (tensor([0., 1.]),)
    """

    def __init__(self, words: Literal["mean", "max"] = "mean") -> None:
        if words not in ("mean", "max"):
            raise ConfigError(
                f"QueryCosine does not know words={words!r}", next_step="use 'mean' or 'max'"
            )
        self.words = words

    def scores(self, request: CompressionRequest) -> tuple[Tensor, ...]:
        """The cosine of each token with the question.

        Raises:
            VisionError: an image has no question.
        """
        if len(request.queries) != len(request.images.features) or any(
            not len(query) for query in request.queries
        ):
            raise VisionError(
                "the cosine to the question needs a question for every image",
                where="CompressionRequest.queries",
                why=f"queries of {[len(query) for query in request.queries]} words for "
                f"{len(request.images.features)} images",
                next_step="ask something, or use a selector that needs no question",
            )
        return tuple(
            self._cosine(tokens.float(), query.float())
            for tokens, query in zip(request.images.features, request.queries, strict=True)
        )

    def _cosine(self, tokens: Tensor, query: Tensor) -> Tensor:
        if self.words == "mean":
            query = query.mean(dim=0, keepdim=True)
        cosine = functional.normalize(tokens, dim=-1) @ functional.normalize(query, dim=-1).T
        return torch.amax(cosine, dim=-1)
