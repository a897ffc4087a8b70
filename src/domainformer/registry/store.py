"""``registry.json``: read at any time, changed by one process at a time, replaced whole.

::

    lock (flock on .registry.lock) ─▶ read ─▶ change ─▶ registry.previous.json ─▶ write, fsync,
                                                                                  rename ─▶ unlock

Without the lock two writers read the same state, and the later one takes back what the earlier one
added. The lock is the system's: it is released when its holder ends, however it ends. Readers need
none, since a rename shows them the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.errors import RegistryError

FORMAT_VERSION = 1
REGISTRY_FILE = "registry.json"
PREVIOUS_FILE = "registry.previous.json"
LOCK_FILE = ".registry.lock"
_HOLDER = 160
Entries = dict[str, dict[str, Any]]


class Store:
    """The file of a registry.

    Args:
        root: The registry's folder.
        timeout: Seconds to wait for another process that is changing it.
    """

    def __init__(self, root: Path, timeout: float) -> None:
        self.root = root
        self.timeout = timeout
        self.path = root / REGISTRY_FILE

    def read(self) -> Entries:
        """All entries as plain data, by name; none where there is no registry yet.

        Raises:
            RegistryError: The file is damaged, or of another version.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(content, dict) or not isinstance(content.get("models"), dict):
            raise self._damaged("it holds no table of models")
        if content.get("format") != FORMAT_VERSION:
            raise RegistryError(
                f"the registry has format {content.get('format')!r}",
                where=str(self.path),
                why=f"this version of domainformer reads format {FORMAT_VERSION}",
                next_step="use the version of domainformer that wrote it",
            )
        models: Entries = content["models"]
        if not all(isinstance(entry, dict) for entry in models.values()):
            raise self._damaged("an entry is no object")
        return models

    @contextlib.contextmanager
    def change(self) -> Iterator[Entries]:
        """Hold the registry, hand out its entries, and write them back on a clean exit.

        Raises:
            RegistryError: Another process holds it for longer than the timeout, it is damaged
                (then it is left as it is), or the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryError(
                f"the registry {self.root} cannot be made", why=str(error)
            ) from error
        with locked(self.root / LOCK_FILE, self.timeout):
            entries = self.read()
            yield entries
            self._write(entries)

    def _write(self, entries: Entries) -> None:
        text = _as_text(entries)
        if self.path.exists():
            if self.path.read_text(encoding="utf-8") == text:
                return
            copy = self.root / f".{PREVIOUS_FILE}.staging"
            shutil.copyfile(self.path, copy)
            copy.replace(self.root / PREVIOUS_FILE)
        write_text(self.path, text)

    def _damaged(self, why: str) -> RegistryError:
        previous = self.root / PREVIOUS_FILE
        return RegistryError(
            f"{REGISTRY_FILE} is damaged",
            where=str(self.path),
            why=why,
            next_step=(
                f"copy {previous} over it (the state before the last change)"
                if previous.is_file()
                else "restore it from a copy, or move it away and publish the models again"
            )
            + "; the models' folders are untouched",
        )


def _as_text(entries: Entries) -> str:
    """One line per model: readable, a diff shows the models that changed, quick to write."""
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}"
        for name, entry in sorted(entries.items())
    )
    return f'{{\n  "format": {FORMAT_VERSION},\n  "models": {{\n{lines}\n  }}\n}}\n'


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock file; the system lets go when the process ends, however it ends.

    Raises:
        RegistryError: Another process holds it for longer than the timeout.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RegistryError("the registry cannot be locked", why=str(error)) from error
    try:
        _wait(descriptor, path, timeout)
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        # Of one length, so that it covers what the last holder wrote.
        os.pwrite(descriptor, holder.ljust(_HOLDER).encode()[:_HOLDER], 0)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                break
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    holder = os.pread(descriptor, _HOLDER, 0).decode(errors="replace").strip() or "another process"
    raise RegistryError(
        "the registry is locked",
        where=str(path),
        why=f"{holder} has been changing it for more than {timeout:g} s",
        next_step="wait for it, or stop it; the lock goes when the process ends, the file may stay",
    )
