"""One module of the corpus with the verdict that is expected of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

V, H = 20, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A module and what must be said of it.

    `outcome`: "runs" (binds, and gives logits [B, L, V]), "refused" (`bind` raises), or "fails"
    (it binds; the call raises a deliberate error). `says` must stand in the message.
    """

    make: Callable[[], nn.Module]
    outcome: str = "runs"
    says: str = ""
    bind: dict[str, Any] = dataclasses.field(default_factory=dict)
    call: dict[str, Any] = dataclasses.field(default_factory=dict)
    roles: dict[str, str] = dataclasses.field(default_factory=dict)
    undefined: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    unknown: str | None = None
    layout: str | None = None

    @property
    def name(self) -> str:
        return getattr(self.make, "__name__", "?")


class Base(nn.Module):
    """An embedding, a mixing layer and a head: what most of the corpus needs."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, H)
        self.mix = nn.Linear(H, H)
        self.head = nn.Linear(H, V)

    def body(self, ids):
        h = self.emb(ids)
        steps = 1 + h.new_ones(h.shape[1]).cumsum(0)[:, None]
        return self.head(self.mix(h).cumsum(1) / steps)
