"""Learning rules of users: from a file or an installed module, where that is allowed.

::

    rule_code: [my_rules.py]                 a file: every rule that it defines
    rule_code: [lab.rules:Surprise]          one class of an importable module
    rule_code: [domainformer.rules]          all installed entry points of this group
    rule_code: [domainformer.rules:surprise] the one entry point of that name

Code is never executed without permission: looking it up, hashing it and saying what would run
needs none of it. What is hashed is what is executed: the file, or all Python files of the package
that a module belongs to.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import sys
import traceback
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.errors import RuleError, nearest
from domainformer.training.rules.base import LearningRule
from domainformer.training.rules.table import RULES

GROUP = "domainformer.rules"
_MODULE = "domainformer_rules_"


def load_rules(
    sources: Sequence[str], *, allow: bool
) -> tuple[dict[str, type[LearningRule]], dict[str, str]]:
    """The rules of a user, by name, and the SHA-256 of each source.

    Args:
        sources: As above; paths are relative to the working directory.
        allow: Whether their code may be executed (``allow_rule_code`` of the configuration).

    Raises:
        RuleError: It may not, and there is code; a source is missing, has a wrong syntax, fails
            or defines no rule; a rule has no name, or that of another rule.

    Example:
        >>> load_rules([], allow=False)
        ({}, {})
        >>> load_rules(["lab.rules:Surprise"], allow=False)
        Traceback (most recent call last):
        ...
        domainformer.errors.RuleError: these learning rules need permission to execute code
          where: lab.rules:Surprise
          why:   it would import the module lab.rules
          next:  read the code, then set allow_rule_code: true
    """
    places = [place for source in sources for place in _places(source)]
    if places and not allow:
        raise RuleError(
            "these learning rules need permission to execute code",
            where=", ".join(sources),
            why="it would " + ", and ".join(place.does for place in places),
            next_step="read the code, then set allow_rule_code: true",
        )
    rules: dict[str, type[LearningRule]] = {}
    parts: dict[str, list[str]] = {}
    for place in places:
        found, digest = _from_file(place) if place.path else _from_module(place)
        parts.setdefault(place.source, []).append(digest)
        for rule in found:
            _admit(rule, place.source, rules)
    return rules, {source: _joined(digests) for source, digests in parts.items()}


@dataclass(frozen=True)
class _Place:
    """Where code lies: a file, or a class of a module."""

    source: str
    path: Path | None = None
    module: str = ""
    attribute: str = ""

    @property
    def does(self) -> str:
        """What loading it does."""
        if self.path is None:
            return f"import the module {self.module}"
        return f"run {self.path} (SHA-256 {hashlib.sha256(_read(self)).hexdigest()})"


def _places(source: str) -> list[_Place]:
    group, _, name = source.partition(":")
    if group == GROUP:
        return _installed(source, name)
    if source.endswith(".py") or "/" in source or Path(source).is_file():
        path = Path(source).expanduser().resolve()
        if not path.is_file():
            raise RuleError(f"there is no file {source!r} with learning rules", where=str(path))
        return [_Place(source, path)]
    if not name or not all(part.isidentifier() for part in [*group.split("."), name]):
        raise RuleError(
            f"{source!r} names no learning rules",
            next_step=f"give a file (rules.py), a class (lab.rules:Surprise) or {GROUP}",
        )
    return [_Place(source, None, group, name)]


def _installed(source: str, name: str) -> list[_Place]:
    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if not points or (name and name not in points):
        raise RuleError(
            f"no installed package offers {'the learning rule ' + repr(name) if name else 'rules'}"
            f" under the entry points {GROUP!r}",
            where=source,
            next_step=nearest(name, points) if name and points else "install the package",
        )
    chosen = [points[name]] if name else [points[key] for key in sorted(points)]
    return [_Place(source, None, point.module, point.attr) for point in chosen]


def _read(place: _Place) -> bytes:
    try:
        return Path(str(place.path)).read_bytes()
    except OSError as error:
        raise RuleError(
            "the file with learning rules cannot be read", where=place.source, why=str(error)
        ) from None


# Files


def _from_file(place: _Place) -> tuple[list[type[LearningRule]], str]:
    code = _read(place)
    digest = hashlib.sha256(code).hexdigest()
    name = _MODULE + hashlib.sha256(f"{place.path}\0{digest}".encode()).hexdigest()[:16]
    module = sys.modules.get(name)
    if module is None:  # the same file again gives the same classes
        module = types.ModuleType(name)
        module.__file__ = str(place.path)
        # Classes look up their annotations in the module of their name.
        sys.modules[name] = module
        try:
            _execute(code, place, module)
        except BaseException:
            del sys.modules[name]
            raise
    rules = [value for value in vars(module).values() if _is_rule(value, name)]
    if not rules:
        raise RuleError(
            "the file defines no learning rule",
            where=place.source,
            next_step="derive a class from domainformer.training.rules.LearningRule in it",
        )
    return rules, digest


def _execute(code: bytes, place: _Place, module: types.ModuleType) -> None:
    try:
        compiled = compile(code, str(place.path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise RuleError(
            "the file with learning rules is no Python",
            where=f"{place.source}, line {error.lineno}",
            why=f"{error.msg}: {error.text.strip()}" if error.text else error.msg,
        ) from None
    except ValueError as error:  # null bytes
        raise RuleError(
            "the file with learning rules is no Python", where=place.source, why=str(error)
        ) from None
    try:
        exec(compiled, vars(module))  # noqa: S102 - allowed by the user, and hashed
    except (Exception, SystemExit) as error:
        raise _failed(place, error, str(place.path)) from error


def _is_rule(value: Any, module: str) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, LearningRule)
        and value.__module__ == module
        and not value.__name__.startswith("_")
    )


# Modules


def _from_module(place: _Place) -> tuple[list[type[LearningRule]], str]:
    try:
        module = importlib.import_module(place.module)
    except (Exception, SystemExit) as error:
        raise _failed(place, error, None) from error
    value: Any = module
    for part in place.attribute.split("."):
        value = getattr(value, part, None)
    if not (isinstance(value, type) and issubclass(value, LearningRule)):
        names = [key for key, item in vars(module).items() if _is_rule(item, module.__name__)]
        raise RuleError(
            f"{place.attribute!r} is no learning rule of the module {place.module}",
            where=place.source,
            next_step=nearest(place.attribute, names)
            if names
            else "derive it from domainformer.training.rules.LearningRule",
        )
    return [value], _package_hash(place, module)


def _package_hash(place: _Place, module: types.ModuleType) -> str:
    top = sys.modules[module.__name__.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", [])]
    if folders:
        files = [(f, f.relative_to(root)) for root in folders for f in sorted(root.rglob("*.py"))]
    else:
        files = [(Path(module.__file__), Path())] if module.__file__ else []
    if not files:
        raise RuleError(
            f"the module {place.module} has no Python source to hash",
            where=place.source,
            why="a run names the source of its rules, so that it can be told from others",
        )
    parts = (f"{name}\0{hashlib.sha256(f.read_bytes()).hexdigest()}" for f, name in files)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# Both


def _failed(place: _Place, error: BaseException, path: str | None) -> RuleError:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if path is not None and frame.filename == path]
    return RuleError(
        "the code of learning rules failed",
        where=place.source + (f", line {lines[-1]}" if lines else ""),
        why=f"{type(error).__name__}: {error}",
    )


def _admit(rule: type[LearningRule], source: str, rules: dict[str, type[LearningRule]]) -> None:
    where = f"{source}: class {rule.__name__}"
    name = vars(rule).get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise RuleError(
            "a learning rule has no name of its own",
            where=where,
            why="the configuration could not name it",
            next_step=f'write name: ClassVar[str] = "{rule.__name__.lower()}" into the class',
        )
    if name in RULES:
        raise RuleError(
            f"the name {name!r} is that of a built-in learning rule",
            where=where,
            next_step="choose another name",
        )
    if rules.setdefault(name, rule) is not rule:
        raise RuleError(
            f"two learning rules have the name {name!r}", where=where, next_step="rename one"
        )


def _joined(digests: Iterable[str]) -> str:
    first, *rest = digests
    return hashlib.sha256("\n".join([first, *rest]).encode()).hexdigest() if rest else first
