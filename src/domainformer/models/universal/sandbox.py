"""The subprocess of `load_source`: limits first, then the user's file; one line of JSON at the end.

Run as ``python -I -m domainformer.models.universal.sandbox`` with a request on stdin. What the
file prints goes to stderr, so that stdout holds the answer alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

# Events of the interpreter (PEP 578) that a model has no need of.
REFUSED = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "shutil.rmtree",
    "ctypes.dlopen",
)


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def limit(seconds: float, memory: int) -> None:
    """Limit this process for good: it cannot lift a hard limit again.

    Args:
        seconds: Of processor time, from now on.
        memory: Bytes of address space.
    """
    try:
        import resource
    except ImportError:  # a system without limits: the audit below holds all the same
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    whole = int(used.ru_utime + used.ru_stime + seconds) + 1
    wanted = {
        resource.RLIMIT_CPU: whole,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def refuse() -> None:
    """Refuse the network, other processes and changes to files, from now on."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if event in REFUSED or writes:
            raise PermissionError(f"refused while a file is inspected: {event} {arguments[:1]}")

    sys.addaudithook(audit)


def main() -> None:
    """Read a request, inspect, and answer."""
    answer, sys.stdout = sys.stdout, sys.stderr
    # Imported before the limits: they hold for the user's file, not for torch.
    from domainformer.models.universal.liveness import analyse
    from domainformer.models.universal.signature import ModelSignatureInspector

    answer.write("ready\n")
    answer.flush()
    request = json.loads(sys.stdin.read())
    limit(request["seconds"], request["memory"])
    refuse()
    path = Path(request["path"])
    outcome: dict[str, Any]
    try:
        model = _made(_run(path), request["class"], request["arguments"])
        names = analyse(model)
        inspected = ModelSignatureInspector(model)
        outcome = {
            "signature": inspected.to_json(),
            "names": names.to_json(),
            "rendered": f"{inspected.render()}\n{names.render()}",
        }
    except BaseException as error:  # noqa: BLE001 - SystemExit of the user's file as well
        outcome = _failure(error, path)
    answer.write(json.dumps(outcome, default=str) + "\n")
    answer.flush()


def _run(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(module: ModuleType, name: str, arguments: dict[str, Any]) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found(**arguments)


def _failure(error: BaseException, path: Path) -> dict[str, Any]:
    """What went wrong, and the last line of the user's file that led there."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]  # fmt: skip
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return {
        "error": "the model cannot be made from this file",
        "why": f"{type(error).__name__}: {error}",
        "line": lines[-1] if lines else None,
        "next": "give its constructor what it needs (arguments=, or --init on the command line)",
    }


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
