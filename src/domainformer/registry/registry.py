"""``Registry``: models by name, each with where it came from and what it is made of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainformer.artifacts import fingerprint, fsync_path
from domainformer.config import build
from domainformer.errors import RegistryError, nearest
from domainformer.registry.contents import (
    Contents,
    differences,
    model_folder,
    read_contents,
    sizes_of,
)
from domainformer.registry.entry import Entry, check_name
from domainformer.registry.lineage import Lineage, lineage_of
from domainformer.registry.parents import children_of, with_parent
from domainformer.registry.staging import stage_files, undone_on_error
from domainformer.registry.store import Entries, Store

if TYPE_CHECKING:
    import torch

    from domainformer.models.families import BaseAdapter


class Registry:
    """A folder of models, described by ``registry.json``.

    ::

        models/
          registry.json            an entry for each model: sha256 of its files, origin, parent
          registry.previous.json   the state before the last change
          qwen/                    a model folder: config.json, *.safetensors, tokenizer.json, …
          letters/

    Any number of processes may read and change it at once.

    Args:
        root: The folder; it is made when the first model comes.
        timeout: Seconds to wait for another process that is changing it.

    Example:
        >>> import tempfile
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> from domainformer.models.families import CustomTransformerAdapter
        >>> place = Path(tempfile.mkdtemp())
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=50, num_hidden_layers=1)
        >>> adapter = CustomTransformerAdapter(DomainTransformerForCausalLM(config))
        >>> registry = Registry(place / "models")
        >>> registry.publish(adapter.save_checkpoint(place / "first"), "letters").sizes.parameters
        203776
        >>> again = registry.load("letters")
        >>> _ = registry.publish(again.save_checkpoint(place / "second"), "letters-2")
        >>> registry.lineage("letters-2").ancestors
        ('letters',)
    """

    def __init__(self, root: str | Path = "models", *, timeout: float = 30.0) -> None:
        self.root = Path(root)
        self._store = Store(self.root, timeout)

    def publish(
        self,
        folder: str | Path,
        name: str | None = None,
        *,
        fine_tuned_from: str | None = None,
        source: str | None = None,
        revision: str | None = None,
        license: str | None = None,  # noqa: A002 - the entry's name for it
        metrics: Mapping[str, Any] | None = None,
        rules: Sequence[str] | None = None,
        move: bool = False,
        overwrite: bool = False,
    ) -> Entry:
        """Copy a model folder into the registry and enter it, whole or not at all.

        Pickles, hidden files and code stay behind (a bundle's own code comes along). What the
        caller does not say is read from the folder: ``lineage.json``, a bundle's record, the run
        around it, the model card.

        Args:
            folder: A model folder, or the run folder that holds it.
            name: Its name; None takes the folder's (or the run's).
            fine_tuned_from: Name of the registered model that it was trained further from.
            source: Where it came from; None: the folder's path.
            revision: Commit of the repository that it was fetched from.
            license: Its license; None: the card's, else the parent's.
            metrics: Numbers that were measured of it.
            rules: Learning rules that it was trained with, outermost first.
            move: Take the files away from the folder rather than copy them.
            overwrite: Replace a model of that name, provided that none descends from it.

        Raises:
            RegistryError: The name is taken or no name, the parent is not registered, the folder
                is no model folder or has only pickles, or the registry is locked or damaged.
            ArtifactError: The folder is damaged, or the disk is full.
        """
        given = Path(folder)
        place = model_folder(given)
        name = check_name(given.resolve().name if name is None else name)
        self._refuse_taken(name, self._store.read(), place, overwrite)
        contents = read_contents(place)
        said = {
            "source": source or str(given.resolve()),
            "revision": revision,
            "license": license or contents.license,
            "metrics": dict(contents.metrics if metrics is None else metrics),
            "rules": contents.rules if rules is None else tuple(rules),
        }
        target = self.root / name
        in_place = place.resolve() == target.resolve()
        staging = place if in_place else self.root / f".{name}.staging-{os.getpid()}"
        try:
            files = stage_files(place, staging, link=move)
            entry = _describe(name, staging, files, contents, said)
            with undone_on_error(staging, target) as swap, self._store.change() as entries:
                self._refuse_taken(name, entries, place, overwrite)
                entry = self._with_parent(entry, entries, contents, fine_tuned_from)
                if not in_place:
                    swap()
                entries[name] = entry.model_dump(mode="json")
        finally:
            if not in_place:
                shutil.rmtree(staging, ignore_errors=True)
        if move and not in_place:
            for path in files:
                (place / path).unlink(missing_ok=True)
        return entry

    def resolve(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            RegistryError: No model has that name; the nearest is told.
        """
        return self._entry(name, self._store.read())

    def folder(self, name: str) -> Path:
        """Where a registered model lies; ``transformers`` opens it as it is."""
        return self.root / self.resolve(name).model_name

    def load(
        self, name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> BaseAdapter:
        """Verify a model's files, then load it with the adapter of its family.

        What the adapter saves later names this model as its parent.

        Args:
            name: A registered name.
            device: Where the weights shall go.
            dtype: Cast the weights; as they were saved by default.

        Raises:
            RegistryError: The name is not known, files are not as they were registered, or the
                model is of no family that is known.
        """
        from domainformer.models.families import adapter_for

        entry = self.resolve(name)
        folder = self.root / name
        changed = differences(folder, entry.files)
        if changed:
            raise RegistryError(
                f"the files of {name!r} are not those that were registered",
                where=str(folder),
                why="\n         ".join(changed),
                next_step="restore them from a copy; or, if the change is meant, publish the "
                "folder under another name",
            )
        adapter = adapter_for(folder, device=device, dtype=dtype)
        adapter.descend_from(entry.reference)
        return adapter

    def verify(self, name: str | None = None) -> dict[str, tuple[str, ...]]:
        """Compare files with their SHA-256.

        Args:
            name: One model; None: all of them.

        Returns:
            What is wrong with each model, one line per file; empty where nothing is.

        Raises:
            RegistryError: No model has that name, or the registry is damaged.
        """
        entries = self._all() if name is None else {name: self.resolve(name)}
        return {one: differences(self.root / one, entry.files) for one, entry in entries.items()}

    def rename(self, old: str, new: str) -> Entry:
        """Give a model another name; its descendants follow.

        Raises:
            RegistryError: No model has the old name, or the new one is taken or no name.
        """
        check_name(new)
        with self._store.change() as entries:
            moved = self._entry(old, entries).model_copy(update={"model_name": new})
            self._refuse_taken(new, entries, None, overwrite=False)
            children = children_of(old, self._validated(entries))
            if (self.root / old).is_dir():
                (self.root / old).rename(self.root / new)
                fsync_path(self.root)
            del entries[old]
            entries[new] = moved.model_dump(mode="json")
            for child in children:
                entries[child]["fine_tuned_from"] = new
        return moved

    def remove(self, name: str, *, force: bool = False) -> Entry:
        """Take a model out of the registry and delete its files.

        Args:
            name: The model.
            force: Also where others descend from it; they keep its name as that of an ancestor
                which is not registered.

        Raises:
            RegistryError: No model has that name, or others descend from it.
        """
        with self._store.change() as entries:
            removed = self._entry(name, entries)
            if not force:
                self._refuse_parents(name, entries, "removed", "pass force=True (--force)")
            del entries[name]
        # The entry goes first: what a crash leaves is a folder without a name, not a name
        # without a folder.
        shutil.rmtree(self.root / name, ignore_errors=True)
        return removed

    def lineage(self, name: str) -> Lineage:
        """Ancestors and descendants of a model, as a tree.

        Raises:
            RegistryError: No model has that name.
        """
        self.resolve(name)
        return lineage_of(name, self._all())

    def list(self) -> tuple[Entry, ...]:
        """All entries, by name."""
        return tuple(entry for _, entry in sorted(self._all().items()))

    def check_free(self, name: str) -> None:
        """Refuse a name that is taken, before much work is done for it.

        Raises:
            RegistryError: A model, or a folder in the registry, has that name.
        """
        self._refuse_taken(name, self._store.read(), None, overwrite=False)

    def _all(self) -> dict[str, Entry]:
        return self._validated(self._store.read())

    def _validated(self, entries: Entries) -> dict[str, Entry]:
        return {name: self._entry(name, entries) for name in entries}

    def _entry(self, name: str, entries: Entries) -> Entry:
        if name not in entries:
            raise RegistryError(
                f"no model is called {name!r}",
                where=str(self._store.path),
                why=None if entries else "the registry is empty",
                next_step=nearest(name, entries)
                or "domainformer models publish FOLDER, or domainformer import-model SOURCE",
            )
        try:
            return build(Entry, {**entries[name], "model_name": name})
        except ValueError as error:
            raise RegistryError(
                f"the entry of {name!r} is damaged",
                where=str(self._store.path),
                why=str(getattr(error, "why", error)),
                next_step=f"restore it from {self.root / 'registry.previous.json'}, or from a copy",
            ) from error

    def _with_parent(
        self, entry: Entry, entries: Entries, contents: Contents, named: str | None
    ) -> Entry:
        parent = None if named is None else self._entry(named, entries)
        if parent is None and not contents.names_parent:
            return entry
        return with_parent(entry, contents, self._validated(entries), parent)

    def _refuse_taken(
        self, name: str, entries: Entries, place: Path | None, overwrite: bool
    ) -> None:
        """Refuse a name that is registered, or whose folder lies there unregistered."""
        target = self.root / name
        if name in entries:
            if not overwrite:
                raise RegistryError(
                    f"there is a model {name!r} already",
                    where=str(self._store.path),
                    next_step="choose another name, or remove it first: "
                    f"domainformer models remove {name}",
                )
            self._refuse_parents(name, entries, "replaced", "choose another name")
        elif target.exists() and (place is None or place.resolve() != target.resolve()):
            raise RegistryError(
                f"the folder {target} lies in the registry, but is not registered",
                next_step=f"register it (domainformer models publish {target}), or move it away",
            )

    def _refuse_parents(self, name: str, entries: Entries, what: str, remedy: str) -> None:
        children = children_of(name, self._validated(entries))
        if children:
            raise RegistryError(
                f"{name!r} cannot be {what}: other models descend from it",
                why=f"trained further from it: {', '.join(children)}",
                next_step=remedy,
            )


def _describe(
    name: str, folder: Path, files: dict[str, str], contents: Contents, said: Mapping[str, Any]
) -> Entry:
    """The entry of a staged folder, as yet without its parent."""
    return Entry(
        model_name=name,
        model_id=fingerprint(files),
        architecture_type=contents.architecture,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sizes=sizes_of(folder, files),
        files=files,
        config_hash=contents.config_hash,
        run=contents.run,
        **said,
    )
