"""Run folders: made whole, held by one process, continued only as what they were."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from domainformer.artifacts import fingerprint, write_json, write_text
from domainformer.config import StrictConfig, build
from domainformer.errors import ConfigError
from domainformer.run.environment import code_version, environment, source_hash
from domainformer.run.identity import flatten, identity_of
from domainformer.run.record import RUN_FILE, RunRecord, read_run

CONFIG_FILE = "config.yaml"


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


def run_directory(root: str | Path, name: str) -> Path:
    """The folder of a run, for a name that is one plain folder name."""
    if not name.strip(". ") or Path(name).name != name:
        raise ConfigError(
            f"{name!r} cannot name a run", why="a name is one folder name, without slashes"
        )
    return Path(root) / name


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


def _with_present_code(record: RunRecord) -> RunRecord:
    """A record whose identity tells where the code changed in the middle of its run."""
    known, now = record.identity, source_hash()
    if known is None or record.status == "finished" or now in known.code.split("+"):
        return record
    # What stopped before its first step owes nothing to the code that it was begun with.
    code = f"{known.code}+{now}" if record.resolved else now
    return record.model_copy(update={"identity": known.model_copy(update={"code": code})})


def _clear_failed_start(directory: Path) -> None:
    """Remove a run that failed before its first step: it holds nothing that was trained."""
    if (directory / RUN_FILE).is_file():
        record = read_run(directory)
        if record.status == "failed" and not record.resolved:
            shutil.rmtree(directory)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
