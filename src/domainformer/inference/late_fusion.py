"""Late fusion: embeddings as columns beside tabular features, for another kind of model."""

from __future__ import annotations

import polars as pl

from domainformer.errors import DataError, nearest


def late_fusion_frame(frame: pl.DataFrame, embeddings: pl.DataFrame, key: str) -> pl.DataFrame:
    """Tabular features beside an embedding's numbers, for a gradient-boosting model.

    Args:
        frame: One row per example.
        embeddings: With the key and ``embedding`` (of :func:`~domainformer.embed` or
            :meth:`FusionPredictor.embed`), one row per key.
        key: The column that joins them.

    Returns:
        The frame with ``embedding_0`` … added, in its order; null where a key has no embedding.

    Raises:
        DataError: A column is missing, or a key has several embeddings.

    Example:
        >>> vectors = pl.Series([[0.5, 1.0]], dtype=pl.Array(pl.Float32, 2))
        >>> late_fusion_frame(pl.DataFrame({"who": [1, 2], "income": [3, 4]}),
        ...     pl.DataFrame({"who": [2], "embedding": vectors}), "who").rows()
        [(1, 3, None, None), (2, 4, 0.5, 1.0)]
    """
    for name, table, columns in (
        ("frame", frame, [key]),
        ("embeddings", embeddings, [key, "embedding"]),
    ):
        for column in columns:
            if column not in table.columns:
                raise DataError(
                    f"there is no column {column!r}",
                    where=f"the {name}",
                    next_step=nearest(column, table.columns),
                )
    if embeddings[key].is_duplicated().any():
        raise DataError(
            "a key has several embeddings",
            where=f"column {key!r} of the embeddings",
            next_step="give one embedding per key",
        )
    width = embeddings.schema["embedding"].shape[0]  # type: ignore[attr-defined]
    names = [f"embedding_{place}" for place in range(width)]
    spread = embeddings.select(
        pl.col(key), *(pl.col("embedding").arr.get(i).alias(name) for i, name in enumerate(names))
    )
    return frame.join(spread, on=key, how="left", maintain_order="left")
