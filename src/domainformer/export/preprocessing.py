"""What must lie beside the weights for raw data to become the model's inputs.

A model without its tokenizer answers nonsense without any error, so an export without it is
refused.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from domainformer.artifacts import MANIFEST
from domainformer.errors import ExportError
from domainformer.inference.bundle import is_bundle
from domainformer.inference.fusion import FUSION_FILE
from domainformer.tokenizers import hub
from domainformer.weights import INDEX_FILE, SUFFIX, is_pickle

# Any one of them is a whole tokenizer to transformers.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_NOT_CARRIED = frozenset({MANIFEST, INDEX_FILE, "README.md", "trainer_state.json"})


def check_preprocessing(folder: Path, *, fusion: bool = False, events: bool = True) -> None:
    """Refuse a model folder that cannot turn raw data into the model's inputs.

    Args:
        folder: The model folder.
        fusion: Whether a fusion model is in it.
        events: Whether the model reads tokens at all.

    Raises:
        ExportError: A file is missing.
    """
    needed: list[tuple[str, ...]] = []
    if fusion:
        needed.append((FUSION_FILE,))
    if events:
        own = fusion or is_bundle(folder)
        needed += [(name,) for name in hub.FILES] if own else [TOKENIZERS]
    missing = [names for names in needed if not any((folder / name).is_file() for name in names)]
    if missing:
        shown = "; ".join(" or ".join(names) for names in missing)
        raise ExportError(
            "the folder lacks the preprocessing that the model needs",
            where=str(folder),
            why=f"missing: {shown}",
            next_step="save the tokenizer into the folder, or export the model in Python "
            "(export_model(model, …)) and keep its preprocessing yourself",
        )


def carry(folder: Path, staging: Path) -> list[str]:
    """Copy what is not weights from a model folder.

    Args:
        folder: The model folder.
        staging: An existing folder.

    Returns:
        The names that were copied.
    """
    carried = []
    for path in sorted(folder.iterdir()):
        weights = path.name.endswith(SUFFIX) or is_pickle(path.name)
        if path.is_file() and not weights and path.name not in _NOT_CARRIED:
            shutil.copyfile(path, staging / path.name)
            carried.append(path.name)
    return carried
