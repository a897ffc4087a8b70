"""What an interview ends in: the values of a configuration, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from domainformer.schema.evidence import InferredSchema

Kind = Literal["pretrain", "train"]


@dataclass(frozen=True)
class Plan:
    """A configuration before it is written.

    Args:
        kind: The verb that runs it: ``pretrain`` (events) or ``train`` (text).
        values: Sections of values.
        sources: Where values came from, by dotted key.
        inferred: The schema of a table, with its evidence.
        found: What the data are, in one line.
    """

    kind: Kind
    values: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, str] = field(default_factory=dict)
    inferred: InferredSchema | None = None
    found: str = ""
