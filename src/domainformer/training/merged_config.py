"""Settings of merges in a pretraining run, and what cannot be trained together with them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from domainformer.config import StrictConfig

_WITH_PLAIN_MERGES = ("next_token", "contrastive")


class MergesConfig(StrictConfig):
    """One token for what often occurs together (`ActionPieceMerges`).

    Args:
        vocab_size: Ids to reach, those of the fields included.
        permutations: Train on events whose tokens are put in random order before merging, anew in
            every epoch. Validation takes one such encoding, which stays.
        across_events: Also merge parts of adjacent events. Histories get shorter still, but a token
            then tells of several events: the model embeds and fine-tunes, and cannot be asked for
            single events (`evaluate`, `generate`).
    """

    vocab_size: int = Field(ge=5)
    permutations: bool = False
    across_events: bool = False

    def refuse(self, *, objectives: Iterable[str], substitute_values: float) -> None:
        """Refuse what needs the ids of single fields, or whole events.

        Raises:
            ValueError: It does.
        """
        if substitute_values:
            raise ValueError(
                "training.substitute_values replaces ids of single fields, and tokenizer.merges "
                "joins them: leave one of them out"
            )
        plain = not (self.permutations or self.across_events)
        allowed = _WITH_PLAIN_MERGES if plain else _WITH_PLAIN_MERGES[:1]
        others = [name for name in objectives if name not in allowed]
        if others:
            raise ValueError(
                f"training.objectives.{others[0]} needs the ids of single events or fields, and "
                f"these tokenizer.merges leave them none: train {' and '.join(allowed)} alone"
            )
