"""Terms against certainty: smoothed labels, and a penalty on confident predictions."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch.nn import functional as F

from domainformer.training.rules.auxiliary.base import AuxiliaryLoss, exact, mean
from domainformer.training.rules.base import Seen, State


class LabelSmoothing(AuxiliaryLoss):
    """Share a part ε of each target among all tokens of the vocabulary.

    The loss becomes ``(1 − ε)·CE(target) + ε·mean over v of CE(v)``: the term is the difference of
    the two, and ε its weight. The model's own loss must be the mean cross-entropy over the scored
    positions, as it is in this package.

    Source: arXiv 1512.00567, section 7; where it helps and where it harms: arXiv 1906.02629.

    Args:
        weight: ε, up to 1.

    Example:
        >>> logits, targets = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]), torch.tensor([[0, -100]])
        >>> plain = F.cross_entropy(logits[0, :1], targets[0, :1])
        >>> seen = Seen(None, logits, targets, {})
        >>> smooth = plain + 0.1 * LabelSmoothing().term(seen, {})
        >>> torch.isclose(
        ...     smooth, F.cross_entropy(logits[0, :1], targets[0, :1], label_smoothing=0.1)
        ... ).item()
        True
    """

    name: ClassVar[str] = "label_smoothing"
    weight: float = Field(default=0.1, ge=0, le=1)

    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """The mean of ``logit of the target − mean of all logits``: the normaliser cancels."""
        logits, targets = seen.scored()
        logits = exact(logits)
        return mean(logits.gather(-1, targets[:, None])[:, 0] - logits.mean(dim=-1))


class ConfidencePenalty(AuxiliaryLoss):
    """Reward entropy: ``−w·H(p)``, with H in nats, of the predicted probabilities p.

    Unlike smoothed labels it does not ask for equal probabilities of all wrong tokens.

    Source: arXiv 1701.06548, section 2.

    Args:
        weight: w.

    Example:
        >>> seen = Seen(None, torch.zeros(1, 2, 4), torch.tensor([[1, 2]]), {})
        >>> round(float(ConfidencePenalty().term(seen, {})), 4)  # −log 4
        -1.3863
    """

    name: ClassVar[str] = "confidence_penalty"
    weight: float = Field(default=0.1, ge=0)

    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """The mean of −H."""
        logits, _ = seen.scored()
        log_p = F.log_softmax(exact(logits), dim=-1)
        return mean((log_p.exp() * log_p).sum(dim=-1))
