"""The folder of an `AdaptiveTokenizer`, and opening whatever text tokenizer a path holds.

::

    tokenizer.json, tokenizer_config.json, …   as the tokenizer's own class writes them
    adaptive_tokenizer.json                    the tier, the reasons, a fingerprint
    manifest.json                              size and SHA-256 of each, written last
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from domainformer.artifacts import (
    fingerprint,
    read_facts,
    staged_directory,
    verify_directory,
    write_json,
)
from domainformer.errors import ArtifactError, DataError, FingerprintError
from domainformer.tokenizers.language import backed, files
from domainformer.tokenizers.language.backed import TextTokenizerBase
from domainformer.tokenizers.language.bpe import TrainedBPE
from domainformer.tokenizers.language.character import CharacterTokenizer
from domainformer.tokenizers.language.character_level import CharacterLevelTokenizer
from domainformer.tokenizers.language.own_files import open_own_file
from domainformer.tokenizers.language.pretrained import load_pretrained
from domainformer.tokenizers.language.tiers import Choice
from domainformer.tokenizers.language.view import view_of
from domainformer.version import __version__

STATE_FILE = "adaptive_tokenizer.json"
FORMAT = 1
_HUB = "transformers"
_OURS: dict[str, type[TextTokenizerBase]] = {
    kind.KIND: kind for kind in (TrainedBPE, CharacterLevelTokenizer)
}
_OF_A_CALL = ("padding", "truncation")
_REMEDY = "give a folder that AdaptiveTokenizer.save_pretrained has written"


def save(folder: Path, tokenizer: Any, choice: Choice, *, overwrite: bool) -> None:
    """Write the folder, whole or not at all."""
    name = fingerprint_of(tokenizer)
    ours = isinstance(tokenizer, TextTokenizerBase)
    state = {
        "format": FORMAT,
        "domainformer": __version__,
        "kind": tokenizer.KIND if ours else _HUB,
        "fingerprint": name,
        "choice": choice.to_json(),
    }
    meta = {"kind": "domainformer.adaptive_tokenizer", "fingerprint": name}
    with staged_directory(folder, overwrite=overwrite, meta=meta) as staging:
        if ours:
            tokenizer.write_files(staging)
        else:
            tokenizer.save_pretrained(str(staging))
        write_json(staging / STATE_FILE, state)


def load(folder: Path) -> tuple[Any, Choice]:
    """Read the folder.

    Raises:
        ArtifactError: It is missing, incomplete, damaged or something else.
        FingerprintError: The tokenizer is not the one that was saved.
    """
    state = read_facts(
        folder, STATE_FILE, kind="adaptive tokenizer", version=FORMAT, remedy=_REMEDY
    )
    verify_directory(folder)
    try:
        kind, expected = state["kind"], state["fingerprint"]
        choice = Choice.from_json(state["choice"])
    except (KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ArtifactError(
            f"{folder / STATE_FILE} cannot be read", why=why, next_step=_REMEDY
        ) from error
    tokenizer = _OURS[kind].read_files(folder) if kind in _OURS else _hub_folder(folder)
    found = fingerprint_of(tokenizer)
    if found != expected:
        raise FingerprintError(
            "the tokenizer is not the one that was saved",
            where=str(folder),
            why=f"it was {expected}, and is {found} as this transformers reads it",
            next_step="restore the folder, or use the versions that wrote it",
        )
    return tokenizer, choice


def fingerprint_of(tokenizer: Any) -> str:
    """Short name of all that decides the ids of a tokenizer of any kind."""
    if isinstance(tokenizer, TextTokenizerBase):
        return tokenizer.fingerprint
    view = view_of(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        # A Python tokenizer: its code is transformers', its data the vocabulary.
        facts: Any = sorted(view.vocab().items())
    else:
        facts = json.loads(backend.to_str())
        # Settings of the last call, which transformers leaves in the backend.
        facts = {key: value for key, value in facts.items() if key not in _OF_A_CALL}
    text = json.dumps(facts, sort_keys=True)
    return fingerprint(
        {
            "kind": _HUB,
            "content": hashlib.sha256(text.encode()).hexdigest(),
            "special_tokens": {role: token for role, (token, _) in view.specials().items()},
            "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        }
    )


def as_hf(tokenizer: Any) -> Any:
    """The tokenizer of transformers that gives its ids."""
    return tokenizer.to_hf() if isinstance(tokenizer, TextTokenizerBase) else tokenizer


def open_text_tokenizer(path: str | Path) -> tuple[Any, int | None]:
    """Open whatever text tokenizer a path holds.

    Args:
        path: A folder written by this library or by transformers, or a file of one's own.

    Returns:
        The tokenizer, and the rows of the embedding of the model beside it, or None.

    Raises:
        DataError: There is nothing.
        DomainformerError: It is no tokenizer, or a damaged one.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"there is no file or folder {path}", next_step="check the path")
    if place.is_file():
        return open_own_file(place).to_hf(), None
    if (place / STATE_FILE).is_file():
        tokenizer, choice = load(place)
        return tokenizer, choice.rows
    if (place / files.STATE_FILE).is_file():
        return CharacterTokenizer.read_files(place), _rows(place)
    if (place / backed.STATE_FILE).is_file():
        said = json.loads((place / backed.STATE_FILE).read_text(encoding="utf-8"))
        if isinstance(said, dict) and said.get("kind") in _OURS:
            return _OURS[said["kind"]].read_files(place), _rows(place)
    if (place / "tokenizer_config.json").is_file():
        found = load_pretrained(place)
        return found.tokenizer, found.rows
    return open_own_file(place).to_hf(), _rows(place)


def is_text_tokenizer(path: Path) -> bool:
    """Whether a path may hold a tokenizer of plain text, and is none of events."""
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        # Either of them is of a tokenizer of events, whole or not.
        return not names & {"domain_tokenizer.json", "schema.yaml"} and bool(
            names & {STATE_FILE, "tokenizer.json", "tokenizer_config.json", "vocab.json"}
            or any(name.endswith((".model", ".tiktoken")) for name in names)
        )
    return path.is_file()


def _hub_folder(folder: Path) -> Any:
    return load_pretrained(folder, offline=True).tokenizer


def _rows(folder: Path) -> int | None:
    """``vocab_size`` of a model's configuration in the same folder."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(said["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
