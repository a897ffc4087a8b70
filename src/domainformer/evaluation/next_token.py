"""What a model says of the next token: by its output layer, and by its copy head if it has one.

Scoring runs the backbone itself, with branches side by side in one cache, so it cannot ask the
whole model for logits; here they are put together from hidden states::

    window     x₀ x₁ … x_{b−1} │ x_b …          at(rows, positions): teacher-forced
                          h_{b−1} ─▶ y₀ ─▶ y₁   branches from a boundary b: their own tokens
                                                are copied from too, other branches' never
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

Ints = npt.NDArray[np.int64]


class WindowLogits:
    """Logits at positions of a batch of windows.

    Shapes: R rows, L positions, W model width, V ids.

    Args:
        model: A causal language model.
        ids: Tokens of the windows [R, L], padded on the right.
        hidden: Their normed hidden states [R, L, W].
    """

    def __init__(self, model: PreTrainedModel, ids: torch.Tensor, hidden: torch.Tensor) -> None:
        self.output, self.copy_head = model.get_output_embeddings(), _copy_head(model)
        self.ids, self.hidden = ids, hidden

    def at(self, rows: Ints, positions: Ints) -> torch.Tensor:
        """Logits of what follows some positions.

        Args:
            rows: Row of each position, ascending [N].
            positions: The positions [N].

        Returns:
            float32 [N, V].
        """
        logits = self.output(self.hidden[rows, positions]).float()
        if self.copy_head is None:
            return logits
        parts = []
        for row in np.unique(rows):
            here = rows == row
            keep = torch.from_numpy(positions[here]).to(self.ids.device)
            line = slice(int(row), int(row) + 1)
            own = logits[torch.from_numpy(here).to(logits.device)][None]
            parts.append(self.copy_head(self.hidden[line], self.ids[line], own, keep=keep)[0])
        return torch.cat(parts)


class BranchLogits:
    """Logits of branches that leave their windows at boundaries and grow in step.

    Shapes: R rows, Q branches of each, N some of the R × Q, flattened.

    Args:
        model: A causal language model.
        ids: Tokens of the windows [R, L].
        hidden: Their normed hidden states [R, L, W].
        boundary: Where each branch begins: it replaces the tokens from there on [R, Q].
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ids: torch.Tensor,
        hidden: torch.Tensor,
        boundary: torch.Tensor,
    ) -> None:
        self.output, self.copy_head = model.get_output_embeddings(), _copy_head(model)
        self.boundary = boundary.reshape(-1)
        self.row_of = torch.arange(len(ids), device=ids.device).repeat_interleave(boundary.shape[1])
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        self.hidden = hidden[rows, boundary - 1].flatten(0, 1)
        if self.copy_head is not None:
            self.window_keys = self.copy_head.key(hidden)
            key_width = self.window_keys.shape[-1]
            self.window_next = ids.roll(-1, dims=1)
            self.own_keys = self.window_keys.new_zeros(len(self.hidden), 0, key_width)
            self.own_next = ids.new_zeros(len(self.hidden), 0)

    def grow(self, ids: torch.Tensor, hidden: torch.Tensor) -> None:
        """Append a token to every branch.

        Args:
            ids: The tokens [R, Q].
            hidden: The normed hidden states after reading them [R, Q, W].
        """
        if self.copy_head is not None:
            key = self.copy_head.key(self.hidden)[:, None]
            self.own_keys = torch.cat([self.own_keys, key], dim=1)
            self.own_next = torch.cat([self.own_next, ids.reshape(-1, 1)], dim=1)
        self.hidden = hidden.flatten(0, 1)

    def of(self, branches: Ints) -> torch.Tensor:
        """Logits over all ids.

        Args:
            branches: Flat numbers of branches [N].

        Returns:
            float32 [N, V].
        """
        chosen = torch.from_numpy(branches).to(self.hidden.device)
        logits = self.output(self.hidden[chosen]).float()
        return logits if self.copy_head is None else self._mixed(chosen, logits)

    def inside(self, branches: Ints, ids: slice | Ints) -> npt.NDArray[np.float64]:
        """Probabilities within some ids, renormalised to sum to 1, ``[N, ids]``.

        Args:
            branches: Flat numbers of branches [N].
            ids: What takes the ids out of the vocabulary (`Slot.index`).
        """
        if self.copy_head is None:  # the other ids need not be computed
            hidden = self.hidden[torch.from_numpy(branches).to(self.hidden.device)]
            bias = None if self.output.bias is None else self.output.bias[ids]
            logits = torch.nn.functional.linear(hidden, self.output.weight[ids], bias)
        else:
            logits = self.of(branches)[:, ids]
        return logits.float().softmax(dim=-1).cpu().double().numpy()

    def _mixed(self, chosen: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        head, asking = self.copy_head, self.hidden[chosen][:, None]
        row, grown = self.row_of[chosen], self.own_next.shape[1]
        # The query stands at boundary − 1 + grown. What followed the state before the boundary is
        # the branch's own first token, so the window itself ends one state earlier.
        now = self.boundary[chosen][:, None, None] - 1
        places = torch.arange(self.window_next.shape[1], device=now.device)
        past = head.scores(asking, self.window_keys[row], now + grown - places, places < now)
        steps = torch.arange(grown, 0, -1, device=now.device)[None, None]
        own = head.scores(asking, self.own_keys[chosen], steps, steps > 0)
        sentinel = head.sentinel(asking).float()
        attention = torch.cat([sentinel, past, own], dim=-1).log_softmax(dim=-1)[:, 0]
        following = torch.cat([self.window_next[row], self.own_next[chosen]], dim=1)
        mixed: torch.Tensor = head.mix(attention, following, logits)
        return mixed


def _copy_head(model: PreTrainedModel) -> Any:
    return getattr(model, "copy_head", None)


def inverse_cdf(
    probabilities: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The index that each uniform number falls on."""
    cumulative = probabilities.cumsum(axis=1)
    below = cumulative < (draws * cumulative[:, -1])[:, None]
    return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1)
