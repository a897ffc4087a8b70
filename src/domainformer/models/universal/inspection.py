"""All that can be said of a model's class in a file, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainformer.errors import AdapterError
from domainformer.models.universal.liveness import analyse
from domainformer.models.universal.repair import Repair, propose_repair
from domainformer.models.universal.signature import ModelSignatureInspector
from domainformer.models.universal.source import load_source, read_source


@dataclasses.dataclass(frozen=True)
class FileInspection:
    """What a class's ``forward`` takes, its wrong names, and what could be corrected.

    Attributes:
        signature: As :meth:`ModelSignatureInspector.to_json`.
        names: As :meth:`Liveness.to_json`.
        repair: A proposal, where ``forward`` can be read.
        ran: Whether the model was made (in a subprocess), so that its parts are known.
        text: For people.
    """

    signature: dict[str, Any]
    names: dict[str, Any]
    repair: Repair | None
    ran: bool
    text: str

    @property
    def clean(self) -> bool:
        """Whether the names are known and none is undefined."""
        return self.names["unknown"] is None and not self.names["undefined"]

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs."""
        proposal = None
        if self.repair is not None:
            left = [str(finding) for finding in self.repair.left]
            changes = list(self.repair.changes)
            proposal = {"changes": changes, "left": left, "diff": self.repair.diff}
        return {
            "signature": self.signature,
            "names": self.names,
            "clean": self.clean,
            "ran": self.ran,
            "repair": proposal,
        }

    def render(self) -> str:
        """Lines for people: the arguments, the names, and the diff of the proposal."""
        lines = [self.text]
        if not self.ran:
            lines.append("the file was read and not run: whether self.NAME exists is not known")
        if self.repair is not None and self.repair.diff:
            lines += ["proposed repair:", self.repair.diff.rstrip()]
        return "\n".join(lines)


def inspect_file(
    path: str | Path,
    class_name: str,
    *,
    run: bool = False,
    arguments: Mapping[str, Any] | None = None,
    seconds: float = 60.0,
    write_repair: str | Path | None = None,
    overwrite: bool = False,
) -> FileInspection:
    """Inspect a class in a file, without running it unless asked to.

    Args:
        path: A Python file.
        class_name: A class in it.
        run: Make the model in a limited subprocess: then its parts are known too.
        arguments: Keywords of its constructor, for ``run``.
        seconds: How long the subprocess may take.
        write_repair: Where to write the corrected file.
        overwrite: Replace ``write_repair`` if it exists.

    Raises:
        AdapterError: The file, the class or its ``forward`` cannot be read, or it fails when run.
    """
    if arguments is not None and not run:
        raise AdapterError(
            "arguments of the constructor are given, and it is not called",
            where=str(path),
            next_step="run it as well (run=True, or --run on the command line)",
        )
    source = read_source(path, class_name)
    repair = propose_repair(source)
    if run:
        told = load_source(path, class_name, arguments=arguments, seconds=seconds).inspection
        signature, names, text = told["signature"], told["names"], told["rendered"]
    else:
        inspector, liveness = ModelSignatureInspector.of_source(source), analyse(source)
        signature, names = inspector.to_json(), liveness.to_json()
        text = f"{inspector.render()}\n{liveness.render()}"
    if write_repair is not None:
        repair.write(write_repair, overwrite=overwrite)
    return FileInspection(signature, names, repair, run, text)
