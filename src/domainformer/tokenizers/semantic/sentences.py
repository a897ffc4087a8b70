"""Texts as vectors of a sentence-embedding model that lies in a folder.

The model is any that `transformers.AutoModel` loads. A text's vector is the mean of the last hidden
states of its tokens, as sentence-transformers has it by default (Reimers & Gurevych 2019,
"Sentence-BERT", section 3). torch and transformers are imported inside the function that needs
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ArtifactError, DataError
from domainformer.tokenizers.semantic.sparse import Floats

_BATCH = 64
_MOST_TOKENS = 256


class SentenceBlock:
    """One column of texts, read by a sentence-embedding model; zeros for null.

    Args:
        column: A column of strings.
        model: Folder of the model; it has to be there whenever entities are read.
    """

    kind: str = "text"
    columnwise: ClassVar[bool] = True

    def __init__(self, column: str, model: str) -> None:
        self.column, self.model = column, model

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def read(self, frame: pl.DataFrame) -> Floats:
        """The vectors of the texts, ``[n, width of the model]``.

        Raises:
            ArtifactError: The model cannot be loaded.
        """
        return embed_texts(frame[self.column].to_list(), self.model)

    def state(self) -> dict[str, Any]:
        """Column and folder."""
        return {"kind": "sentences", "column": self.column, "model": self.model}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """None: the model stays where it is."""
        return {}


def embed_texts(texts: Sequence[str | None], model: str | Path) -> Floats:
    """Mean-pooled vectors of texts, float64 ``[n, width]``; zeros for None and for "".

    Texts are read up to 256 tokens, in batches of like length.

    Args:
        texts: The texts.
        model: Folder of a model and its tokenizer; nothing is downloaded.

    Raises:
        ArtifactError: The folder holds no such model.
        DataError: The model gives what is no finite number.
    """
    import torch

    tokenizer, network = _load(Path(model))
    width = int(network.config.hidden_size)
    vectors = np.zeros((len(texts), width))
    filled = [row for row, text in enumerate(texts) if text]
    filled.sort(key=lambda row: (-len(texts[row] or ""), row))
    for start in range(0, len(filled), _BATCH):
        rows = filled[start : start + _BATCH]
        batch = tokenizer(
            [texts[row] for row in rows],
            padding=True,
            truncation=True,
            max_length=_MOST_TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden_BLD = network(**batch).last_hidden_state
        mask_BL1 = batch["attention_mask"][:, :, None].to(hidden_BLD.dtype)
        pooled_BD = (hidden_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp(min=1)
        vectors[rows] = pooled_BD.double().numpy()
    if not np.isfinite(vectors).all():
        raise DataError(
            "the sentence-embedding model gives what is no finite number", where=str(model)
        )
    return vectors


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{folder} cannot be loaded as a sentence-embedding model",
            why=str(error).splitlines()[0],
            next_step="give the folder of a model that transformers.AutoModel loads, such as one "
            "written by save_pretrained",
        ) from error
    return tokenizer, network.eval()
