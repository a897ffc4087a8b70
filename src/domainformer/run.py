"""A run is an identity: one folder that says what was done, with what, and how it ended.

Before the first step a run folder holds everything that decides its result::

    runs/cards/
      run.json       id, status, config hash, code version, fingerprints, split, rules, environment
      config.yaml    the resolved configuration
      …              what the run itself adds: store, checkpoints, metrics, model

``run.json`` is replaced atomically whenever something becomes known, so a reader sees one state or
the next, also when the process is killed between two of them.

What the run *is* stands in ``identity``: a hash for each part that can change the result, and none
of what cannot::

    config      settings, without folders, verbosity, logging (`INERT_KEYS`) and rules
    code        source of the packages that training may import (`source_hash`)
    data        the events or texts that were read
    tokenizer   the fitted tokenizer
    rules       learning rules, with the source of those that users bring

Equal identities mean equal results on equal machines; :func:`result_hash` makes one name of them.
"""

from __future__ import annotations

import fcntl
import fnmatch
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import yaml
from pydantic import Field

from domainformer.artifacts import fingerprint, write_json, write_text
from domainformer.config import StrictConfig, build
from domainformer.errors import ArtifactError, ConfigError
from domainformer.version import __version__

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
Status = Literal["preparing", "running", "finished", "failed", "interrupted"]
# Dotted patterns of settings that cannot change a result: where it is written, what is told of it.
INERT_KEYS = (
    "output.*",
    "*.keep",
    "*.log_every",
    "*.quiet",
    "*.report_to",
    "*.resume",
    # How the sums of a result are divided among processors and passes stands in ``resolved``.
    "*.memory_budget",
    "*.threads",
)
# Known by its content: another path to the same thing is the same thing.
_KNOWN_BY_CONTENT = {"data.path": "data_fingerprint", "schema": "schema_fingerprint"}
# Seeds of a training; runs that differ in these alone are repetitions.
SEED_KEYS = frozenset({"seed", "training.seed"})
# Packages that training never imports, as the layers contract holds: they cannot change a result.
_ABOVE_TRAINING = ("cli", "quickstart", "reports", "evaluation", "__main__")
_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "polars", "numpy", "pyarrow")


class Identity(StrictConfig):
    """A hash of each part that can change a result; None where a part is not known yet.

    Args:
        config: Settings, without inert ones (`INERT_KEYS`) and without rules.
        code: Source of the library; two hashes joined where a run was taken up with other code.
        data: Fingerprint of what was read.
        tokenizer: Fingerprint of the fitted tokenizer.
        rules: Learning rules with their settings and the source of those that users bring.
    """

    config: str
    code: str
    data: str | None = None
    tokenizer: str | None = None
    rules: str


class RunRecord(StrictConfig):
    """Everything that identifies a run, as it stands in ``run.json``.

    Args:
        id: Time of the start and a random part, unique among runs.
        name: The folder's name.
        kind: What was done: ``pretrain``, ``finetune``, …
        status: ``preparing`` before step 0, then ``running``, and one of three ends.
        created: UTC time of the start (ISO 8601).
        finished: UTC time of the end.
        config: The resolved configuration.
        config_hash: Its short name: equal configurations have equal hashes.
        code_version: Version of domainformer and, in a work tree, the git revision.
        data_fingerprint: Of the events that were read.
        schema_fingerprint: Of the schema, given or inferred.
        tokenizer_fingerprint: Of the fitted tokenizer.
        split: How the events were divided (cuts, counts, seed).
        rules: Learning rules attached to the model, outermost first; empty for plain training.
        rule_sources: Hash of the source of each rule that is no part of the library, by its name.
        resolved: Values chosen on this machine (batch size, precision, steps).
        environment: Python, packages, processor.
        resumed: Steps at which the run was taken up again.
        results: What came out.
        error: Why it failed.
        identity: Hashes of what can change the result; None in records of older versions.
    """

    id: str
    name: str
    kind: str
    status: Status = "preparing"
    created: str
    finished: str | None = None
    config: dict[str, Any]
    config_hash: str
    code_version: dict[str, str | bool | None]
    data_fingerprint: str | None = None
    schema_fingerprint: str | None = None
    tokenizer_fingerprint: str | None = None
    split: dict[str, Any] | None = None
    rules: list[str] = Field(default_factory=list)
    rule_sources: dict[str, str] = Field(default_factory=dict)
    resolved: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any]
    resumed: list[int] = Field(default_factory=list)
    results: dict[str, Any] | None = None
    error: str | None = None
    identity: Identity | None = None


class Run:
    """An open run folder; as a context manager it holds the folder and records how the work ended.

    Args:
        directory: The run folder.
        record: Its identity, also on disk.

    Example:
        >>> import tempfile
        >>> with start_run(tempfile.mkdtemp(), "demo", kind="pretrain", config={"seed": 1}) as run:
        ...     run.update(status="running", data_fingerprint="ab12")
        ...     run.finish({"eval_loss": 2.5})
        >>> read_run(run.directory).status
        'finished'
    """

    def __init__(self, directory: Path, record: RunRecord) -> None:
        self.directory = directory
        self.record = record

    def update(self, **changes: Any) -> None:
        """Change fields of the record, and its identity with them, and replace ``run.json``."""
        record = build(RunRecord, {**self.record.model_dump(), **changes})
        self.record = record.model_copy(update={"identity": identity_of(record)})
        write_json(self.directory / RUN_FILE, self.record.model_dump(mode="json"))

    def finish(self, results: Mapping[str, Any]) -> None:
        """Record the results and the successful end."""
        self.update(status="finished", finished=_now(), results=dict(results), error=None)

    def __enter__(self) -> Self:
        self._lock = lock_directory(self.directory)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)
        if error is None:
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        self.update(
            status="interrupted" if interrupted else "failed",
            finished=_now(),
            error=None if interrupted else f"{type(error).__name__}: {error}",
        )


def start_run(
    root: str | Path, name: str | None, *, kind: str, config: StrictConfig | Mapping[str, Any]
) -> Run:
    """Create a run folder with its identity, before anything else happens in it.

    Args:
        root: The folder of all runs.
        name: The run's folder name; None takes the run's id. A run of that name that failed
            before its first step is replaced.
        kind: What will be done, such as ``pretrain``.
        config: The resolved configuration.

    Raises:
        ConfigError: The folder exists already, or the name is not one folder name.

    Example:
        >>> import tempfile
        >>> run = start_run(tempfile.mkdtemp(), None, kind="pretrain", config={"seed": 1})
        >>> run.record.status, run.directory.name == run.record.id
        ('preparing', True)
    """
    values = config.model_dump(mode="json") if isinstance(config, StrictConfig) else dict(config)
    identity = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    directory = run_directory(root, name or identity)
    _clear_failed_start(directory)
    record = RunRecord(
        id=identity,
        name=directory.name,
        kind=kind,
        created=_now(),
        config=values,
        config_hash=fingerprint(values),
        code_version=code_version(),
        environment=environment(),
    )
    record = record.model_copy(update={"identity": identity_of(record, code=source_hash())})
    # The folder appears together with its identity: a kill in between leaves no nameless folder.
    staging = directory.with_name(f".{directory.name}.staging-{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        Run(staging, record).update()
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_text(staging / CONFIG_FILE, text)
        if directory.exists():
            raise FileExistsError
        staging.rename(directory)
    except FileExistsError:
        raise ConfigError(
            f"the run {directory} exists already",
            next_step="continue it with training.resume=true, or choose another output.name",
        ) from None
    except OSError as error:
        raise ConfigError(f"the run folder {directory} cannot be made", why=str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Run(directory, record)


def read_run(directory: str | Path) -> RunRecord:
    """Read the identity of a run folder.

    Raises:
        ArtifactError: There is no readable ``run.json``.
    """
    path = Path(directory) / RUN_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return build(RunRecord, values, where=str(path))
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory} is not a run folder", why=f"it has no {RUN_FILE}"
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read", why=str(error)) from error


def resume_run(
    directory: str | Path, config: StrictConfig, *, may_differ: AbstractSet[str] = frozenset()
) -> Run:
    """Open a run folder again, provided that it was started with the same configuration.

    Args:
        directory: The run folder.
        config: The configuration as it is now.
        may_differ: Dotted keys that do not decide the result, such as ``training.quiet``.

    Raises:
        ConfigError: Another key differs; each is listed with both values.
        ArtifactError: The folder is not a run.
    """
    record = read_run(directory)
    now = flatten(config.model_dump(mode="json"))
    then = flatten(record.config)
    changed = [
        f"{key}: {then.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted(now.keys() | then.keys())
        if key not in may_differ and now.get(key) != then.get(key)
    ]
    if changed:
        raise ConfigError(
            f"the run {directory} was started with another configuration",
            why="\n         ".join(changed),
            next_step=f"use the values of {Path(directory) / CONFIG_FILE}, or start another run",
        )
    return Run(Path(directory), _with_present_code(record))


def _with_present_code(record: RunRecord) -> RunRecord:
    """A record whose identity tells where the code changed in the middle of its run."""
    known, now = record.identity, source_hash()
    if known is None or record.status == "finished" or now in known.code.split("+"):
        return record
    both = known.model_copy(update={"code": f"{known.code}+{now}"})
    return record.model_copy(update={"identity": both})


def run_directory(root: str | Path, name: str) -> Path:
    """The folder of a run, for a name that is one plain folder name."""
    if not name.strip(". ") or Path(name).name != name:
        raise ConfigError(
            f"{name!r} cannot name a run", why="a name is one folder name, without slashes"
        )
    return Path(root) / name


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys.

    Example:
        >>> flatten({"training": {"seed": 0}, "schema": None})
        {'training.seed': 0, 'schema': None}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The settings that can change a result, by dotted key, without learning rules.

    What is known by its content (the table, the schema) is told by its fingerprint, so that a file
    that was moved is the same file.

    Example:
        >>> import tempfile
        >>> config = {"training": {"seed": 1, "quiet": True}, "output": {"root": "runs"}}
        >>> settings_of(start_run(tempfile.mkdtemp(), "a", kind="pretrain", config=config).record)
        {'training.seed': 1}
    """
    settings = _decisive(record.config)
    for key, known in _KNOWN_BY_CONTENT.items():
        content = getattr(record, known)
        if key in settings and content is not None:
            settings[key] = content
    return settings


def rules_of(record: RunRecord) -> dict[str, Any]:
    """The learning rules of a run: asked for, attached, and the source of those of users."""
    asked = {key: value for key, value in flatten(record.config).items() if _is_of_rules(key)}
    return {"settings": asked, "attached": record.rules, "sources": record.rule_sources}


def identity_of(record: RunRecord, *, code: str | None = None) -> Identity:
    """The identity of a run; records of older versions get one from what they know.

    Args:
        record: What is known of the run.
        code: Hash of the code; None keeps the one of the record.
    """
    if code is None:
        known = record.identity
        code = known.code if known is not None else fingerprint(record.code_version)
    return Identity(
        config=fingerprint(settings_of(record)),
        code=code,
        data=record.data_fingerprint,
        tokenizer=record.tokenizer_fingerprint,
        rules=fingerprint(rules_of(record)),
    )


def result_hash(
    of: RunRecord | StrictConfig | Mapping[str, Any], may_differ: AbstractSet[str] = frozenset()
) -> str:
    """One name for everything that can change a result, and nothing that cannot.

    Args:
        of: The record of a run (settings, code, data, tokenizer, rules), or a configuration alone.
        may_differ: Further dotted keys to leave out; with ``SEED_KEYS``, repetitions of one
            experiment have one name.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> one = {"training": {"seed": 0, "quiet": True}, "rules": ["lion"]}
        >>> two = {"training": {"seed": 1, "quiet": False}, "rules": ["lion"]}
        >>> result_hash(one) == result_hash(two)
        False
        >>> result_hash(one, SEED_KEYS) == result_hash(two, SEED_KEYS)
        True
    """
    if isinstance(of, RunRecord):
        settings = {k: v for k, v in settings_of(of).items() if k not in may_differ}
        parts = identity_of(of).model_dump(exclude={"config"})
        return fingerprint({"settings": settings, **parts})
    values = of.model_dump(mode="json") if isinstance(of, StrictConfig) else dict(of)
    flat = {key: value for key, value in flatten(values).items() if not is_inert(key)}
    return fingerprint({k: v for k, v in flat.items() if k not in may_differ})


def is_inert(key: str) -> bool:
    """Whether a dotted key names a setting that cannot change a result.

    Example:
        >>> is_inert("output.name"), is_inert("training.quiet"), is_inert("training.seed")
        (True, True, False)
    """
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in INERT_KEYS)


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
    return _hash_of_source(Path(__file__).resolve().parent)


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


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in flatten(config).items()
        if not is_inert(key) and not _is_of_rules(key)
    }


def _is_of_rules(key: str) -> bool:
    return "rules" in key.split(".")[:2]


def code_version() -> dict[str, str | bool | None]:
    """The installed version and, where the package lies in a git work tree, its revision."""
    here = Path(__file__).resolve().parent
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


def lock_directory(directory: Path) -> int:
    """Hold a folder for this process; the system lets go when the process ends, however.

    Returns:
        A descriptor; closing it lets go.

    Raises:
        ConfigError: Another process holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"another process works on the run {directory}",
            next_step="wait for it or stop it; two would write over each other's checkpoints",
        ) from None
    return descriptor


def _clear_failed_start(directory: Path) -> None:
    """Remove a run that failed before its first step: it holds nothing that was trained."""
    if (directory / RUN_FILE).is_file():
        record = read_run(directory)
        if record.status == "failed" and not record.resolved:
            shutil.rmtree(directory)


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
