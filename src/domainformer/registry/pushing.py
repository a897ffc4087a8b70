"""``push_to_hub``: a model folder with its card to a repository of the hub, in one commit."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from domainformer.errors import RegistryError
from domainformer.registry.card import model_card
from domainformer.registry.contents import CARD_FILE, differences, files_of, model_folder
from domainformer.registry.hub import ask
from domainformer.registry.registry import Registry


def push_to_hub(
    source: str | Path,
    repository: str,
    *,
    registry: Registry | str | Path = "models",
    private: bool = True,
    license: str | None = None,  # noqa: A002 - the entry's name for it
    notes: str = "",
    message: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a model folder, or a registered model, on the hub.

    Only what belongs to the model is sent: weights as safetensors, configuration, tokenizer,
    schema, and a card that is written from them. Pickles, code and a training's leftovers stay.

    Args:
        source: A model folder, a run folder, or a name of the registry.
        repository: ``ORGANISATION/NAME``; it is made where it does not exist.
        registry: The registry, or its folder.
        private: Whether a new repository is private.
        license: Such as ``apache-2.0``.
        notes: Markdown that the card begins with.
        message: Of the commit.
        revision: A branch; None: the main one.
        token: Of the hub; None: as ``hf auth login`` left it.

    Returns:
        The address of the commit.

    Raises:
        RegistryError: There is no such model, a registered one was changed, or the hub refuses.
    """
    from huggingface_hub import HfApi

    folder = _folder(source, registry)
    title = repository.rpartition("/")[2]
    with tempfile.TemporaryDirectory() as temporary:
        staging = Path(temporary)
        for name in files_of(folder):
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, staging / name)
        card = model_card(folder, title, license=license, notes=notes)
        (staging / CARD_FILE).write_text(card.replace(f'model="{title}"', f'model="{repository}"'))
        api: Any = HfApi(token=token)

        def send() -> Any:
            api.create_repo(repository, private=private, exist_ok=True)
            return api.upload_folder(
                repo_id=repository,
                folder_path=staging,
                commit_message=message or f"{title}, by domainformer",
                revision=revision,
            )

        return str(ask(send, repository, revision, deed="sent to").commit_url)


def _folder(source: str | Path, registry: Registry | str | Path) -> Path:
    path = Path(source)
    if path.is_dir():
        return model_folder(path)
    registry = registry if isinstance(registry, Registry) else Registry(registry)
    entry = registry.resolve(str(source))
    folder = registry.folder(entry.model_name)
    changed = differences(folder, entry.files)
    if changed:
        raise RegistryError(
            f"{source} is not as it was registered",
            where=str(folder),
            why="; ".join(changed[:3]),
            next_step="restore it from a copy, or register it again",
        )
    return folder
