"""Attention maps: where a model's heads look. Not an explanation.

A weight says that a head read a position, not what it took from there, nor whether the score
would change without it: very different weights can give the same output (Jain and Wallace,
"Attention is not Explanation", arXiv 1902.10186), and residual streams carry what other positions
hold anyway. Look at a map to see what a head has learned; to learn what a score rests on, use
:func:`~domainformer.inference.attribution.explain.explain`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from domainformer.data import EventTable
from domainformer.inference.attribution.explain import ask
from domainformer.inference.bundle import Bundle

NOT_AN_EXPLANATION = (
    "Attention is not an explanation: it shows where heads look, not what the score rests on."
)


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Where the last token of a history looks.

    Args:
        tokens: ``position``, ``event``, ``distance``, ``field`` (null for BOS), ``token``.
        weights: Attention of the last token, float32 [layers, heads, tokens].
        label: What has to be said wherever it is shown.
    """

    tokens: pl.DataFrame
    weights: npt.NDArray[np.float32]
    label: str = NOT_AN_EXPLANATION

    @property
    def by_field(self) -> pl.DataFrame:
        """Mean over layers and heads, summed per field: ``field`` and ``attention``."""
        mean = self.weights.mean(axis=(0, 1)).astype(np.float64)
        named = self.tokens.select("field").with_columns(attention=pl.Series(mean))
        return named.group_by("field", maintain_order=True).agg(pl.col("attention").sum())


def attention_map(
    bundle: Bundle, entity: Any, events: EventTable, *, context: int | None = None
) -> AttentionMap:
    """Attention from the last token of one entity's newest window.

    Args:
        bundle: A classifier or a causal language model.
        entity: Whose history.
        events: Its events.
        context: Longest window in tokens; the model's own by default.

    Raises:
        InputError: There is no such entity.
    """
    question = ask(bundle, [entity], events, context=context)
    engine, row = question.engine, question.engine.rows[0]
    assert engine.reader is not None
    backbone = bundle.model.base_model
    before = backbone.config._attn_implementation
    try:
        backbone.set_attn_implementation("eager")  # fused kernels keep no weights
        with torch.no_grad():
            output = backbone(
                input_ids=torch.from_numpy(row.ids)[None].to(bundle.device),
                output_attentions=True,
                use_cache=False,
            )
    finally:
        backbone.set_attn_implementation(before)
    weights = torch.stack([layer[0, :, -1] for layer in output.attentions]).float().cpu().numpy()
    fields = [engine.reader.fields[f] if f >= 0 else None for f in row.field]
    tokens = pl.DataFrame(
        {
            "position": np.arange(len(row.ids)),
            "event": row.event,
            "distance": row.n_events - 1 - row.event,
            "field": pl.Series(fields, dtype=pl.String),
            "token": [bundle.tokenizer.vocab[i] for i in row.ids],
        }
    )
    return AttentionMap(tokens, np.asarray(weights, np.float32))
