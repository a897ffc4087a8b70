"""Which registered model another one was trained further from."""

from __future__ import annotations

from collections.abc import Mapping

from domainformer.errors import RegistryError
from domainformer.registry.contents import Contents
from domainformer.registry.entry import Entry


def parent_of(entry: Entry, entries: Mapping[str, Entry]) -> str | None:
    """The registered model that an entry was trained further from; None: none of these.

    The content decides where it is known, so that a rename cuts nothing and another model under
    the parent's old name is not taken for it. Else it is the model that came from the repository
    or run which is named.
    """
    if entry.parent_id is not None:
        alike = [one.model_name for one in entries.values() if one.model_id == entry.parent_id]
        named = entry.fine_tuned_from
        return named if named in alike else min(alike, default=None)
    if entry.fine_tuned_from is None:
        return None
    return min(
        (
            one.model_name
            for one in entries.values()
            if entry.fine_tuned_from in (one.source, one.run) and one.model_id != entry.model_id
        ),
        default=None,
    )


def children_of(name: str, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    """The models that were trained further from this one."""
    return tuple(
        sorted(one.model_name for one in entries.values() if parent_of(one, entries) == name)
    )


def with_parent(
    entry: Entry, contents: Contents, entries: Mapping[str, Entry], parent: Entry | None
) -> Entry:
    """A new entry with its parent, and with the parent's license where it has none of its own.

    Args:
        entry: Of the model that is being registered.
        contents: What its folder says: a parent's content (``lineage.json``), the run of a bundle
            that it was trained further from, or the card's base model.
        entries: All others by name.
        parent: What the caller names, which wins.

    Raises:
        RegistryError: The model would be its own parent.
    """
    noted = contents.parent or {}
    named = noted.get("model_name") or contents.parent_run or contents.base_model
    if parent is None:
        parent = _noted(entry, noted.get("model_id"), named, entries)
    if parent is not None and parent.model_id == entry.model_id:
        raise RegistryError(
            f"{parent.model_name!r} cannot be the parent of {entry.model_name!r}",
            why="both are the same model, file by file",
            next_step="leave fine_tuned_from out",
        )
    return entry.model_copy(
        update={
            "fine_tuned_from": parent.model_name if parent else named,
            "parent_id": parent.model_id if parent else noted.get("model_id"),
            "license": entry.license or (parent.license if parent else None),
        }
    )


def _noted(
    entry: Entry, wanted: str | None, named: str | None, entries: Mapping[str, Entry]
) -> Entry | None:
    """The registered model of that content, else the one from that run or repository."""
    others = [one for one in entries.values() if one.model_id != entry.model_id]
    if wanted is not None:
        alike = [one for one in others if one.model_id == wanted]
    else:
        alike = [one for one in others if named is not None and named in (one.run, one.source)]
    alike.sort(key=lambda one: (one.model_name != named, one.model_name))
    return alike[0] if alike else None
