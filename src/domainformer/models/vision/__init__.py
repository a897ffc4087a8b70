"""Relevance-aware compression of image tokens for vision-language models."""

from domainformer.models.vision.request import (
    CompressionRequest,
    Grid,
    ImageTokens,
    Selection,
    TokenSelector,
)

__all__ = ["CompressionRequest", "Grid", "ImageTokens", "Selection", "TokenSelector"]
