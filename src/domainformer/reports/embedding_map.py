"""Embeddings in a plane: the two directions in which entities differ most.

Principal components by numpy: centre, then the two leading eigenvectors of the covariance
(Pearson 1901). A linear map distorts nothing and needs no seed but that of the drawn sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ArtifactError

MOST_POINTS = 2000
_MOST_CLASSES = 5
OTHERS, UNLABELLED = "other values", "no label"


@dataclass(frozen=True)
class EmbeddingMap:
    """Entities as points.

    Args:
        x: First component ``[n]``.
        y: Second component ``[n]``.
        explained: Shares of the variance along x and y.
        colour: What colours the points ``[n]``: numbers or names.
        colour_name: What that is.
        width: Numbers per embedding.
        entities: Entities in all, of which ``n`` are shown.
        outside: Points that lie far out and are drawn at the border.
    """

    x: list[float]
    y: list[float]
    explained: tuple[float, float]
    colour: list[Any]
    colour_name: str
    width: int
    entities: int
    outside: int


def map_embeddings(
    path: str | Path, labels: pl.DataFrame | None, *, most: int = MOST_POINTS, seed: int = 0
) -> EmbeddingMap | None:
    """Project a file of embeddings.

    Args:
        path: Parquet with the entity first and a column ``embedding``.
        labels: Entity column and label column; None colours by the length of the history.
        most: Points at most, drawn at random.
        seed: Of the draw.

    Returns:
        None where fewer than three entities have an embedding.

    Raises:
        ArtifactError: The file cannot be read, or is none of embeddings.
    """
    try:
        lazy = pl.scan_parquet(path)
        names = lazy.collect_schema().names()
        total = int(lazy.select(pl.len()).collect().item())
        rows = np.random.default_rng(seed).permutation(total)[:most]
        frame = lazy.with_row_index("row").filter(pl.col("row").is_in(np.sort(rows).tolist()))
        chosen = frame.collect()
        vectors = _vectors(chosen["embedding"])
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} holds no embeddings",
            why=str(error),
            next_step="write it again with `domainformer embed`",
        ) from error
    if total < 3:
        return None
    points, explained = principal_plane(vectors)
    points, outside = _framed(points)
    colour, name = _colour(chosen, names[0], labels)
    return EmbeddingMap(
        x=points[:, 0].round(5).tolist(),
        y=points[:, 1].round(5).tolist(),
        explained=explained,
        colour=colour,
        colour_name=name,
        width=vectors.shape[1],
        entities=total,
        outside=outside,
    )


def principal_plane(
    vectors: npt.NDArray[np.floating[Any]],
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Coordinates along the first two principal components, and the variance that they explain.

    Signs are fixed (the largest loading of each component is positive), so that the picture does
    not flip between two machines.

    Args:
        vectors: ``[n, width]``; rows with values that are not finite count as zero.

    Example:
        >>> line = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
        >>> points, explained = principal_plane(line)
        >>> [round(share, 6) for share in explained]
        [1.0, 0.0]
    """
    centred = np.nan_to_num(vectors.astype(np.float64), posinf=0.0, neginf=0.0)
    centred = centred - centred.mean(axis=0)
    covariance = centred.T @ centred
    values, directions = np.linalg.eigh(covariance)
    top = directions[:, ::-1][:, :2]
    if top.shape[1] < 2:
        top = np.hstack([top, np.zeros((len(top), 2 - top.shape[1]))])
    strongest = np.abs(top).argmax(axis=0)
    top = top * np.where(top[strongest, np.arange(2)] < 0, -1.0, 1.0)
    spectrum = np.clip(values[::-1], 0.0, None)
    shares = np.append(spectrum / max(float(spectrum.sum()), 1e-30), 0.0)
    return centred @ top, (float(shares[0]), float(shares[1]))


def _framed(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int]:
    """Points with outliers moved to the border: a few would shrink all the others to a dot."""
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    margin = (high - low) / 2
    framed = np.clip(points, low - margin, high + margin)
    return framed, int((framed != points).any(axis=1).sum())


def _vectors(column: pl.Series) -> npt.NDArray[np.float32]:
    if column.dtype == pl.List:
        column = column.list.to_array(len(column[0]) if len(column) else 0)
    return np.asarray(column.to_numpy(), dtype=np.float32).reshape(len(column), -1)


def _colour(frame: pl.DataFrame, entity: str, labels: pl.DataFrame | None) -> tuple[list[Any], str]:
    """The label of each entity where it is known, else how long its history is."""
    if labels is None:
        if "n_events" not in frame.columns:
            return [""] * frame.height, ""
        lengths = frame["n_events"].cast(pl.Float64).clip(lower_bound=1)
        return lengths.log10().round(3).to_list(), "log10 events"
    own, label = labels.columns[:2]
    known = labels.select(pl.col(own).cast(pl.String).alias("entity"), pl.col(label).alias("label"))
    joined = frame.select(pl.col(entity).cast(pl.String).alias("entity")).join(
        known, on="entity", how="left", maintain_order="left"
    )
    values = joined["label"]
    if values.dtype.is_numeric() and values.n_unique() > _MOST_CLASSES + 1:
        return values.cast(pl.Float64).to_list(), label
    texts = values.cast(pl.String)
    frequent = texts.drop_nulls().value_counts(sort=True).head(_MOST_CLASSES)[texts.name].to_list()
    named = [
        UNLABELLED if text is None else text if text in frequent else OTHERS
        for text in texts.to_list()
    ]
    return named, label
