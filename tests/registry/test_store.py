"""registry.json: many writers lose nothing, a damaged file is told and kept."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from domainformer.errors import RegistryError
from domainformer.registry import Registry
from domainformer.registry.store import LOCK_FILE, PREVIOUS_FILE, REGISTRY_FILE, Store

WRITERS = """
import contextlib, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import write_plain
from domainformer.registry import Registry, store
assert "torch" not in sys.modules
os.fsync = lambda descriptor: None  # who wins is tested here, not what a power cut leaves
root, writers, entries, broken = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
if broken == "unlocked":
    store.locked = lambda path, timeout: contextlib.nullcontext()
for number in range(writers * entries):
    folder = root / "made" / str(number)
    folder.mkdir(parents=True)
    write_plain(folder, number)
children = []
for writer in range(writers):
    child = os.fork()
    if not child:
        code = 0
        try:
            registry = Registry(root / "models", timeout=120)
            for entry in range(entries):
                folder = root / "made" / str(writer * entries + entry)
                registry.publish(folder, f"model-{writer}-{entry}", move=True)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            code = 1
        os._exit(code)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(max(codes))
"""


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: hundreds of renames on a busy disk take long."""
    shared = Path("/dev/shm")
    usable = shared.is_dir() and os.access(shared, os.W_OK)
    with tempfile.TemporaryDirectory(dir=shared if usable else tmp_path) as folder:
        yield Path(folder)


def write_at_once(root, writers, entries, broken="no"):
    # The writers make their models with a helper of the tests that needs no torch.
    helper = root / "helper"
    helper.mkdir()
    source = (Path(__file__).parent / "conftest.py").read_text()
    start = source.index("def write_plain")
    (helper / "conftest.py").write_text("import json\n\n\n" + source[start:])
    command = [sys.executable, "-c", WRITERS, helper, root, writers, entries, broken]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.mark.integration
def test_sixteen_writers_at_once_lose_nothing(memory):
    done = write_at_once(memory, writers=16, entries=40)
    assert done.returncode == 0, done.stderr
    registry = Registry(memory / "models")
    assert len(registry.list()) == 640
    assert sorted(entry.model_name for entry in registry.list()) == sorted(
        f"model-{writer}-{entry}" for writer in range(16) for entry in range(40)
    )
    assert not any(registry.verify().values())
    assert not [path for path in registry.root.iterdir() if "staging" in path.name]


def test_the_check_would_notice_a_missing_lock(memory):
    done = write_at_once(memory, writers=8, entries=8, broken="unlocked")
    try:
        kept = len(Registry(memory / "models").list())
    except RegistryError:
        kept = 0
    assert done.returncode != 0 or kept < 64


def test_a_locked_registry_is_told_and_who_holds_it(registry, plain):
    registry.publish(plain("a"), "a")
    with (registry.root / LOCK_FILE).open("r+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        started = time.monotonic()
        with pytest.raises(RegistryError, match="the registry is locked") as caught:
            Registry(registry.root, timeout=0.1).publish(plain("b", 2), "b")
        assert time.monotonic() - started < 5
        # Readers do not wait.
        assert registry.resolve("a").model_name == "a"
    assert f"process {os.getpid()}" in caught.value.why
    registry.publish(plain("c", 2), "b")


def test_the_lock_goes_with_its_process(registry, plain):
    registry.publish(plain("a"), "a")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from domainformer.registry.store import locked\n"
        "with locked(Path(sys.argv[1]), 5):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(registry.root / LOCK_FILE)])
    assert done.returncode == -9
    assert (registry.root / LOCK_FILE).read_text().startswith("process ")
    Registry(registry.root, timeout=0.1).publish(plain("b", 2), "b")


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"format": 1, "models": {"a"',
        "[]",
        '{"format": 1}',
        '{"format": 1, "models": {"a": 3}}',
    ],
)
def test_a_damaged_file_is_told_and_never_written_over(registry, plain, content):
    registry.publish(plain("a"), "a")
    registry.publish(plain("b", 2), "b")
    path = registry.root / REGISTRY_FILE
    path.write_text(content)
    for ask in (registry.list, lambda: registry.resolve("a"), lambda: registry.rename("a", "c")):
        with pytest.raises(RegistryError, match="registry.json is damaged") as caught:
            ask()
        assert PREVIOUS_FILE in caught.value.next_step
    with pytest.raises(RegistryError, match="is damaged"):
        registry.publish(plain("c", 3), "c")
    assert path.read_text() == content
    assert (registry.root / "a").is_dir()
    (registry.root / PREVIOUS_FILE).replace(path)
    assert [entry.model_name for entry in registry.list()] == ["a"]


def test_without_a_previous_state_a_copy_is_asked_for(registry):
    registry.root.mkdir()
    (registry.root / REGISTRY_FILE).write_text("{")
    with pytest.raises(RegistryError, match="restore it from a copy"):
        registry.list()


def test_another_format_is_not_guessed_at(registry):
    registry.root.mkdir()
    (registry.root / REGISTRY_FILE).write_text('{"format": 2, "models": {}}')
    with pytest.raises(RegistryError, match="format 2"):
        registry.list()


def test_an_unchanged_registry_is_not_written_and_an_error_changes_nothing(tmp_path):
    store = Store(tmp_path, 1)
    with store.change() as entries:
        entries["a"] = {"x": "ü"}
    before = store.path.stat().st_mtime_ns
    with store.change():
        pass
    with pytest.raises(KeyError), store.change() as entries:
        entries.clear()
        raise KeyError
    assert store.path.stat().st_mtime_ns == before
    assert store.read() == {"a": {"x": "ü"}}
    assert json.loads(store.path.read_text(encoding="utf-8"))["format"] == 1


def test_a_root_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot be made"), Store(tmp_path / "file", 1).change():
        pass
