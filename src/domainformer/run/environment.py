"""What a run stands on: the code, the packages, the machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from domainformer.version import __version__

# Packages that training never imports, as the layers contract holds: they cannot change a result.
_ABOVE_TRAINING = ("cli", "quickstart", "reports", "evaluation", "distributed", "__main__")
_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "polars", "numpy", "pyarrow")
_PACKAGE = Path(__file__).resolve().parents[1]


def code_version() -> dict[str, str | bool | None]:
    """The installed version and, where the package lies in a git work tree, its revision."""
    here = _PACKAGE
    # An installed copy may lie inside somebody else's repository (a venv in a project): only a
    # work tree that holds this very package tells its revision.
    tracked = _git(here, "ls-files", "--error-unmatch", "version.py")
    if tracked is None:
        return {"domainformer": __version__, "git_revision": None, "git_modified": None}
    return {
        "domainformer": __version__,
        "git_revision": _git(here, "rev-parse", "HEAD"),
        "git_modified": bool(_git(here, "status", "--porcelain", "--", str(here))),
    }


@functools.cache
def source_hash() -> str:
    """A hash of the source that can change a result: all of the library below evaluation.

    It is narrower than a git revision, which changes with every line of documentation, and wider:
    it tells edits that were not committed, and copies that lie outside of git. Taken once per
    process, which goes on with what it has imported.

    Example:
        >>> len(source_hash()), source_hash() == source_hash()
        (16, True)
    """
    return _hash_of_source(_PACKAGE)


def _hash_of_source(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0].removesuffix(".py") in _ABOVE_TRAINING:
            continue
        content = path.read_bytes()
        digest.update(f"{name.as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Python, the packages that decide results, and the machine's kind."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": packages,
        "command": Path(sys.argv[0]).name if sys.argv else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
