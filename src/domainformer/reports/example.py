"""A few training events as the model reads them, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domainformer.data.splits import TRAIN
from domainformer.data.store import TokenStore
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fields import BytePairModel
from domainformer.tokenizers.fields.text import FIRST_PIECE
from domainformer.tokenizers.slots import BPE

_EVENTS = 3
_ENTITIES = 200


@dataclass(frozen=True)
class ExampleToken:
    """One token of an example.

    Args:
        text: Its entry in the vocabulary, or for a text the pieces put together again.
        field: The field that it belongs to.
        slot: The slot that it stands at.
        pieces: For a text the number of its tokens, else 0.
    """

    text: str
    field: str
    slot: str
    pieces: int = 0


ExampleEvent = list[ExampleToken]


def example_event(tokenizer: DomainTokenizer, store: TokenStore) -> list[ExampleEvent]:
    """Consecutive training events of one entity: the first of them with several in a row."""
    for index in range(min(store.n_entities, _ENTITIES)):
        history = store.history(index)
        roles = history.roles
        events = np.arange(history.n_events) if roles is None else np.flatnonzero(roles == TRAIN)
        if len(events) >= _EVENTS or (len(events) and store.n_entities == 1):
            return [_tokens(tokenizer, history.event(int(i)).tolist()) for i in events[:_EVENTS]]
    return []


def _tokens(tokenizer: DomainTokenizer, ids: list[int]) -> ExampleEvent:
    """Heads of slots as they are; the pieces of a text as one."""
    layout, vocab = tokenizer.layout, tokenizer.vocab
    bpe = BytePairModel(tokenizer.backend) if tokenizer.layout.has_text else None
    tokens: ExampleEvent = []
    pieces: list[int] = []
    for token_id in [*ids, None]:
        if token_id is not None and layout.slot_of_id[token_id] == BPE:
            pieces.append(int(layout.local_of_id[token_id]) - FIRST_PIECE)
            continue
        if pieces and bpe is not None:
            owner = tokens[-1]
            tokens.append(ExampleToken(bpe.decode(pieces), owner.field, owner.slot, len(pieces)))
            pieces = []
        if token_id is not None:
            slot = layout.slots[layout.slot_of_id[token_id]]
            tokens.append(ExampleToken(vocab[token_id], slot.field, slot.name))
    return tokens
