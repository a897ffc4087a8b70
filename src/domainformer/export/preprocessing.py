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

# Any one is a whole tokenizer to transformers (merges.txt has its vocab.json beside it).
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "merges.txt",
)
_NOT_CARRIED = frozenset(
    {MANIFEST, INDEX_FILE, "README.md", "generation_config.json", "trainer_state.json"}
)
# Weights of other runtimes, and the code of models: a folder of the hub has all of them.
_NOT_CARRIED_KINDS = frozenset({".data", ".gguf", ".onnx", ".ot", ".pt2", ".py"})


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
    """Copy what turns raw data into inputs: all files of the folder but weights and code.

    Args:
        folder: The model folder.
        staging: An existing folder.

    Returns:
        The names that were copied.
    """
    carried = []
    for path in sorted(folder.iterdir()):
        weights = path.name.endswith(SUFFIX) or is_pickle(path.name)
        left = weights or path.suffix in _NOT_CARRIED_KINDS or path.name in _NOT_CARRIED
        if path.is_file() and not left:
            shutil.copyfile(path, staging / path.name)
            carried.append(path.name)
    return carried
