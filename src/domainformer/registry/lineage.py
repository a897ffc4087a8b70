"""Which model came from which: a tree from the oldest known ancestor down.

::

    Qwen/Qwen2.5-0.5B (not registered)
    └── qwen  Qwen2ForCausalLM  494.0 M  5f0c…
        ├── letters  Qwen2ForCausalLM  494.0 M  91ab…  ◀
        │   └── letters-2  Qwen2ForCausalLM  494.0 M  c07d…
        └── stories  Qwen2ForCausalLM  494.0 M  33e1…
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from rich.tree import Tree

from domainformer.errors import RegistryError
from domainformer.registry.entry import Entry
from domainformer.registry.parents import parent_of


@dataclass(frozen=True)
class LineageNode:
    """A model in the tree.

    Args:
        name: Its name; for one that is not registered, what its descendants call it.
        entry: Its entry; None where it is not registered.
        children: The models that were trained further from it, by name.
    """

    name: str
    entry: Entry | None
    children: tuple[LineageNode, ...]

    def walk(self) -> Iterator[LineageNode]:
        """This model and all of its descendants."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "model_name": self.name,
            "model_id": self.entry.model_id if self.entry else None,
            "registered": self.entry is not None,
            "children": [child.to_json() for child in self.children],
        }


@dataclass(frozen=True)
class Lineage:
    """The family of one model.

    Args:
        name: The model that was asked for.
        ancestors: From the oldest to its parent.
        root: The oldest, with all that came from it.
    """

    name: str
    ancestors: tuple[str, ...]
    root: LineageNode

    def render(self) -> Tree:
        """A tree for the terminal; the model that was asked for is marked."""
        tree = Tree(self._label(self.root))
        self._grow(tree, self.root)
        return tree

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "model_name": self.name,
            "ancestors": list(self.ancestors),
            "tree": self.root.to_json(),
        }

    def _grow(self, branch: Tree, node: LineageNode) -> None:
        for child in node.children:
            self._grow(branch.add(self._label(child)), child)

    def _label(self, node: LineageNode) -> Text:
        asked = node.name == self.name and node.entry is not None
        label = Text(node.name, style="bold" if asked else "")
        if node.entry is None:
            return label.append(" (not registered)", style="dim")
        details = [node.entry.architecture_type, readable(node.entry.sizes.parameters)]
        details += [
            node.entry.model_id,
            *([", ".join(node.entry.rules)] if node.entry.rules else []),
        ]
        label.append("  " + "  ".join(filter(None, details)), style="dim")
        return label.append("  ◀") if asked else label


def lineage_of(name: str, entries: Mapping[str, Entry]) -> Lineage:
    """The family of a registered model.

    Args:
        name: A name among the entries.
        entries: All entries by name.

    Raises:
        RegistryError: A model descends from itself, which only an edited registry can say.
    """
    chain = [name]
    while (parent := parent_of(entries[chain[-1]], entries)) is not None:
        if parent in chain:
            raise RegistryError(
                f"the model {parent!r} descends from itself",
                why=" ← ".join([*chain, parent]),
                next_step="publish one of them again with the right fine_tuned_from",
            )
        chain.append(parent)
    children: dict[str, list[str]] = {}
    for entry in entries.values():
        above = parent_of(entry, entries)
        if above is not None:
            children.setdefault(above, []).append(entry.model_name)

    def grow(of: str) -> LineageNode:
        below = tuple(grow(child) for child in sorted(children.get(of, [])))
        return LineageNode(of, entries[of], below)

    root, ancestors = grow(chain[-1]), chain[:0:-1]
    named = entries[chain[-1]].fine_tuned_from
    if named is not None:
        # Whoever else names the same model, which is not registered, is of the same family.
        others = [
            grow(entry.model_name)
            for entry in sorted(entries.values(), key=lambda entry: entry.model_name)
            if entry.fine_tuned_from == named and parent_of(entry, entries) is None
        ]
        root, ancestors = LineageNode(named, None, tuple(others)), [named, *ancestors]
    return Lineage(name, tuple(ancestors), root)


def readable(count: int) -> str:
    """A number of parameters as people say it.

    Example:
        >>> readable(803_712), readable(494_032_768), readable(120)
        ('803.7 k', '494.0 M', '120')
    """
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)
