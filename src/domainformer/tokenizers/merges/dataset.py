"""Training rows whose events are permuted and merged anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.store import TokenStore
from domainformer.data.tokens import Ints, TokenizedEvents
from domainformer.errors import ConfigError
from domainformer.tokenizers.merges.actionpiece import ActionPieceMerges


class PermutedSequenceDataset:
    """A `DomainSequenceDataset` over `ActionPieceMerges.encode_permuted`, anew in every epoch.

    Set permutation regularisation: the model sees each event in many forms and learns merged
    tokens and their parts alike. Score and label with the greedy `ActionPieceMerges.encode`.

    Another permutation merges to another number of tokens, so that ``len`` differs a little from
    epoch to epoch.

    Args:
        source: Events *before* merging.
        merges: Learned for the tokenizer of these events.
        seed: Non-negative seed of permutations, order and packing.
        compiled: Use numba (extra ``fast``); None where it is installed.
        options: Further arguments of `DomainSequenceDataset`.

    Raises:
        ConfigError: ``score_roles`` was given: only training is permuted.
        FingerprintError: The events come from another tokenizer than the merges.

    Source: ActionPiece (arXiv 2502.13581), set permutation regularization.

    Example:
        >>> import polars as pl
        >>> events = TokenizedEvents(
        ...     ids=np.array([4, 8, 9, 4, 8, 9], np.uint8), event_offsets=np.array([0, 3, 6]),
        ...     entity_offsets=np.array([0, 2]), entity_ids=pl.Series(["anna"]),
        ...     times=np.array([1, 2]), roles=None, tokenizer_fingerprint="f00d", vocab_size=10)
        >>> merges = ActionPieceMerges.fit(events, vocab_size=11)
        >>> rows = PermutedSequenceDataset(events, merges, context=8)
        >>> len(rows), 1 + 4 <= len(rows[0]["input_ids"]) <= 1 + 6
        (1, True)
    """

    def __init__(
        self,
        source: TokenizedEvents | TokenStore,
        merges: ActionPieceMerges,
        *,
        seed: int = 0,
        compiled: bool | None = None,
        **options: Any,
    ) -> None:
        if options.get("score_roles") is not None:
            raise ConfigError(
                "permuted rows are for training",
                where="score_roles",
                next_step="score with DomainSequenceDataset(merges.encode(events), score_roles=…)",
            )
        self.source, self.merges, self.seed = source, merges, seed
        self.compiled, self.options = compiled, options
        self.epoch = 0
        self._rows = self._encode()

    @property
    def rows(self) -> DomainSequenceDataset:
        """The rows of this epoch."""
        return self._rows

    def set_epoch(self, epoch: int) -> None:
        """Permute, merge, order and pack anew by (seed, epoch)."""
        if epoch < 0:
            raise ConfigError(f"the epoch must not be negative, but is {epoch}")
        if epoch != self.epoch:
            self.epoch = epoch
            self._rows = self._encode()

    @property
    def row_lengths(self) -> Ints:
        """Tokens of each row of this epoch."""
        return self._rows.row_lengths

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.int64]]:
        return self._rows[index]

    def __reduce__(self) -> tuple[Callable[..., PermutedSequenceDataset], tuple[Any, ...]]:
        arguments = {"seed": self.seed, "compiled": self.compiled, **self.options}
        return _rebuild, (self.source, self.merges, arguments, self.epoch)

    def _encode(self) -> DomainSequenceDataset:
        source = self.source.events() if isinstance(self.source, TokenStore) else self.source
        merged = self.merges.encode_permuted(
            source, seed=self.seed, epoch=self.epoch, compiled=self.compiled
        )
        rows = DomainSequenceDataset(merged, seed=self.seed, **self.options)
        rows.set_epoch(self.epoch)
        return rows


def _rebuild(
    source: TokenizedEvents | TokenStore,
    merges: ActionPieceMerges,
    arguments: dict[str, Any],
    epoch: int,
) -> PermutedSequenceDataset:
    dataset = PermutedSequenceDataset(source, merges, **arguments)
    dataset.set_epoch(epoch)
    return dataset
