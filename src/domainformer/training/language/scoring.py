"""The loss over a whole text: deterministic, each token once, in three units."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.data.text_windows import TextWindows
from domainformer.training.language.rows import IGNORED, TARGETS, LanguageRows, collate_text


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    Args:
        nats: Mean cross-entropy per token.
        bits_per_character: Total cross-entropy in bits, by the characters that it tells.
        perplexity: e to the nats.
        tokens: Tokens that were scored.
        characters: Characters that they stand for.
    """

    nats: float
    bits_per_character: float
    perplexity: float
    tokens: int
    characters: int

    def to_json(self) -> dict[str, Any]:
        """As plain data; what was scored is named apart from what was trained on."""
        values = asdict(self)
        return {
            **{key: values[key] for key in ("nats", "bits_per_character", "perplexity")},
            "scored_tokens": self.tokens,
            "scored_characters": self.characters,
        }


@torch.no_grad()
def score(
    model: nn.Module,
    windows: TextWindows,
    *,
    characters: int | None = None,
    rows: int = 64,
) -> TextScore:
    """Score every token of some windows once, in float32 and in a fixed order.

    ::

        nats = −1/N · Σ log p(tokenᵢ | up to `context` tokens before it)
        bits per character = N · nats / (characters · ln 2)

    Args:
        model: A language model; its mode (training or not) is given back.
        windows: Of :meth:`~domainformer.data.SequenceBuilder.build_scoring`.
        characters: That the scored tokens stand for; None: one each.
        rows: Windows at once. It does not change what is computed, only how sums are rounded.

    Example:
        >>> from domainformer.data import SequenceBuilder
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=10, num_hidden_layers=1)
        >>> windows = SequenceBuilder(context=4).build_scoring([[9, 1, 8, 2, 7, 3]])
        >>> found = score(DomainTransformerForCausalLM(config), windows)
        >>> found.tokens, found.perplexity > 1
        (5, True)
    """
    dataset = LanguageRows(windows)
    place = next(model.parameters()).device
    total, tokens = 0.0, 0
    was_training = model.training
    model.eval()
    # Long rows first, so that one short row pads none of the others.
    order = np.argsort(-dataset.row_lengths, kind="stable")
    for begin in range(0, len(order), rows):
        batch = collate_text([dataset[int(index)] for index in order[begin : begin + rows]])
        targets = batch[TARGETS].to(place)
        logits = model(input_ids=batch["input_ids"].to(place), use_cache=False).logits
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        total += float(losses.double().sum())
        tokens += int(targets.ne(IGNORED).sum())
    model.train(was_training)
    nats = total / tokens
    told = tokens if characters is None else characters
    return TextScore(
        nats=nats,
        bits_per_character=total / (told * math.log(2)),
        perplexity=math.exp(min(nats, 700.0)),
        tokens=tokens,
        characters=told,
    )


def unigram_nats(train: TextWindows, validation: TextWindows, vocabulary: int) -> float:
    """The mean cross-entropy of a guess by frequency alone, over the tokens that are scored.

    ::

        p(token) = count / (n + t)          n tokens to learn from, t of them distinct
                   t / ((n + t) · unseen)   for each of the ids that never occurred

    A model that does not get below it has learned nothing of order. Smoothed after Witten and Bell
    1991, *The zero-frequency problem* (method C), since a token that was never seen must cost
    something, not everything.

    Args:
        train: Windows whose text is counted.
        validation: Windows of :meth:`~domainformer.data.SequenceBuilder.build_scoring`.
        vocabulary: Ids that there are.

    Example:
        >>> from domainformer.data import SequenceBuilder
        >>> builder = SequenceBuilder(context=2)
        >>> halves = builder.build([[1, 2, 1, 2, 1]]), builder.build_scoring([[1, 2, 2, 1]])
        >>> round(unigram_nats(*halves, vocabulary=3), 3)  # −ln(2 / 6), p(0) is the other third
        1.099
    """
    seen = train.target_counts(vocabulary).astype(np.float64)
    scored = validation.target_counts(vocabulary)
    distinct = int(np.count_nonzero(seen))
    unseen = len(seen) - distinct
    total = seen.sum() + (distinct if unseen else 0)
    told = np.where(seen > 0, seen, distinct / max(unseen, 1)) / total
    return float(-(scored @ np.log(told)) / scored.sum())
