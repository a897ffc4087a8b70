"""The tests of transformers itself, from the source distribution of exactly the installed version.

They are fetched when they are asked for, kept outside of the project, and never become part of it.
The distribution lacks the folders below ``tests``, from which its common tests import
(``generation``, ``exporters``, ``utils``): there empty mixins stand in, so that everything else
runs. A checkout of the same version (``TRANSFORMERS_CHECKOUT``) has these, too, and is then used
as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers

NAME = "transformers_tests"
MISSING = {
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "fixtures/sample_text.txt": "A line of text.\nAnother one, with 12 numbers: 3.\n" * 20,
}


def folder() -> Path:
    """The folder that holds the package ``transformers_tests``; fetched where it is not there.

    Raises:
        RuntimeError: The distribution cannot be fetched, or is of another version.
    """
    version = transformers.__version__
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "domainformer"
    root = cache / f"transformers-{version}"
    checkout = os.environ.get("TRANSFORMERS_CHECKOUT")
    if checkout is None and not (root / "tests" / "test_modeling_common.py").is_file():
        _fetch(version, cache)
    if checkout is None:
        _stand_in(root / "tests")
    # Under its own name: pytest knows the tests of this project as `tests`.
    named = cache / f"conformance-{version}" / NAME
    named.parent.mkdir(parents=True, exist_ok=True)
    named.unlink(missing_ok=True)
    named.symlink_to((Path(checkout) if checkout else root) / "tests", target_is_directory=True)
    return named.parent


def has_generation(root: Path) -> bool:
    """Whether the mixin of generation tests is the real one."""
    return (root / NAME / "generation" / "test_utils.py").stat().st_size > 1000


def _fetch(version: str, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    command = (
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"),
        *("--no-build-isolation", "--quiet", "--dest", str(cache), f"transformers=={version}"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = cache / f"transformers-{version}.tar.gz"
    if not archive.is_file():
        raise RuntimeError(
            f"the source distribution of transformers {version} cannot be fetched: "
            f"{done.stderr.strip().splitlines()[-1:]}"
        )
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar.getmembers() if m.name.startswith(f"transformers-{version}/tests")]
        tar.extractall(cache, members=wanted, filter="data")


def _stand_in(tests: Path) -> None:
    """Empty mixins in place of the folders that the distribution lacks."""
    (tests / "__init__.py").touch()
    for name, text in MISSING.items():
        path = tests / name
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        if not path.is_file():
            path.write_text(text)
