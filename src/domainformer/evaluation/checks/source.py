"""Data whose entropy is known: a Markov chain, exactly; a text, by counting.

::

    H = − Σ_i π_i Σ_j P_ij ln P_ij        nats per token; nothing honest goes below

A model that predicts the chain better than H has seen what it predicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from domainformer.errors import DataError

_MOST_STATES = 24
_CONCENTRATION = 0.3
_FLOOR = 0.02
_HELD_OUT = 0.2
_UNSEEN = 10_000_019


@dataclass(frozen=True, eq=False)
class MarkovSource:
    """A chain over some ids of a vocabulary.

    Args:
        transitions: P [K, K], each row a distribution.
        low: Id of the first state.

    Example:
        >>> coin = MarkovSource(np.full((2, 2), 0.5))
        >>> round(coin.entropy_rate, 4), coin.draw(1, 5, seed=0).shape
        (0.6931, torch.Size([1, 5]))
    """

    transitions: npt.NDArray[np.float64]
    low: int = 0

    @classmethod
    def for_vocabulary(cls, vocab_size: int, *, seed: int = 0) -> Self:
        """A chain of up to 24 states in the ids of a model; rows are drawn from Dirichlet(0.3)."""
        low = 4 if vocab_size >= 16 else 0
        states = min(_MOST_STATES, vocab_size - low)
        drawn = np.random.default_rng(seed).dirichlet(np.full(states, _CONCENTRATION), states)
        return cls((1 - _FLOOR) * drawn + _FLOOR / states, low)

    @property
    def stationary(self) -> npt.NDArray[np.float64]:
        """π [K], with π P = π."""
        states = len(self.transitions)
        system = np.vstack([self.transitions.T - np.eye(states), np.ones(states)])
        target = np.append(np.zeros(states), 1.0)
        return np.asarray(np.linalg.lstsq(system, target, rcond=None)[0])

    @property
    def entropy_rate(self) -> float:
        """Nats per token, given all tokens before it."""
        plogp = self.transitions * np.log(np.maximum(self.transitions, 1e-300))
        return float(-(self.stationary @ plogp.sum(axis=1)))

    @property
    def unigram_entropy(self) -> float:
        """Nats per token, given nothing."""
        weights = self.stationary
        return float(-(weights * np.log(np.maximum(weights, 1e-300))).sum())

    def draw(self, rows: int, length: int, *, seed: int, held_out: bool = False) -> torch.Tensor:
        """Ids [rows, length] from the stationary chain.

        Args:
            rows: Independent walks.
            length: Steps of each.
            seed: Of the draw.
            held_out: Draw from seeds of its own.
        """
        generator = np.random.default_rng([seed, _UNSEEN if held_out else 0])
        states = np.empty((rows, length), dtype=np.int64)
        states[:, 0] = generator.choice(len(self.transitions), rows, p=self._weights())
        edges = self.transitions.cumsum(axis=1)
        edges[:, -1] = 1.0
        for place in range(1, length):
            drawn = generator.random((rows, 1))
            states[:, place] = (edges[states[:, place - 1]] < drawn).sum(axis=1)
        return torch.from_numpy(states + self.low)

    def nll(self, input_ids: torch.Tensor) -> torch.Tensor:
        """What the best predictor loses at each next token [B, L−1] in nats."""
        states = input_ids.cpu().numpy() - self.low
        return torch.from_numpy(-np.log(self.transitions[states[:, :-1], states[:, 1:]]))

    def _weights(self) -> npt.NDArray[np.float64]:
        found = np.clip(self.stationary, 0, None)
        return np.asarray(found / found.sum())


class TextWindows:
    """Windows of a text as ids; its last fifth is held out.

    Args:
        ids: Of the whole text.
        shortest: Tokens that each part must have at least.

    Raises:
        DataError: The text is too short.
    """

    def __init__(self, ids: torch.Tensor, *, shortest: int) -> None:
        cut = int(len(ids) * (1 - _HELD_OUT))
        self.train, self.held_out = ids[:cut], ids[cut:]
        if len(self.held_out) < shortest:
            needed = int(np.ceil(shortest / _HELD_OUT))
            raise DataError(
                f"the text has {len(ids)} tokens, and the checks need {needed}",
                next_step="give a longer text, or a smaller length",
            )

    def draw(self, rows: int, length: int, *, seed: int, held_out: bool = False) -> torch.Tensor:
        """Ids [rows, length] from random places of a part."""
        part = self.held_out if held_out else self.train
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(0, len(part) - length + 1, (rows,), generator=generator)
        return part[starts[:, None] + torch.arange(length)]


@dataclass(frozen=True)
class Counts:
    """Unigrams and bigrams of ids, with a little of everything (additive smoothing).

    Args:
        single: Counts [V].
        pairs: Counts [V', V'] over the ids that occur.
        known: Ids that occur, in order [V'].
    """

    single: torch.Tensor
    pairs: torch.Tensor
    known: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, vocab_size: int) -> Self:
        """Count rows of ids [B, L]."""
        known = rows.unique()
        place = torch.zeros(vocab_size, dtype=torch.long)
        place[known] = torch.arange(len(known))
        single = torch.bincount(rows.flatten(), minlength=vocab_size)
        pairs = torch.zeros(len(known) ** 2, dtype=torch.long)
        index = place[rows[:, :-1]] * len(known) + place[rows[:, 1:]]
        pairs += torch.bincount(index.flatten(), minlength=len(pairs))
        return cls(single, pairs.view(len(known), -1), known)

    def unigram_loss(self, rows: torch.Tensor) -> float:
        """Mean loss of rows [B, L] by the counts of single ids, in nats."""
        weights = self.single.double() + 0.5
        return float(-(weights / weights.sum()).log()[rows[:, 1:]].mean())

    def bigram_loss(self, rows: torch.Tensor) -> float:
        """Mean loss by pairs, backed by single ids: (n_ij + 2 p_j) / (n_i + 2)."""
        weights = self.single.double() + 0.5
        backing = weights / weights.sum()
        place = torch.full((len(weights),), -1)
        place[self.known] = torch.arange(len(self.known))
        first, second = place[rows[:, :-1]], place[rows[:, 1:]]
        seen = (first >= 0) & (second >= 0)
        pair = torch.where(seen, self.pairs[first.clamp(min=0), second.clamp(min=0)], 0)
        total = torch.where(first >= 0, self.pairs.sum(1)[first.clamp(min=0)], 0)
        chance = (pair + 2 * backing[rows[:, 1:]]) / (total + 2)
        return float(-chance.log().mean())
