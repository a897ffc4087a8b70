"""Strict, typed configuration: the base class, safe YAML, dotted overrides, teaching errors.

Every configuration class lives beside the thing that it configures and derives from
:class:`StrictConfig`. An unknown key is an error that names the nearest known one, and all errors
of a file are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from domainformer.artifacts import fingerprint, write_text
from domainformer.errors import ConfigError, nearest

MAX_YAML_BYTES = 1 << 20
# YAML takes these for line breaks, and a break inside a plain value reads back as a blank.
_YAML_BREAKS = "\x85\u2028\u2029"


class StrictConfig(BaseModel):
    """Base of all configuration classes: frozen, typed, no unknown keys.

    Example:
        >>> class Bins(StrictConfig):
        ...     count: int = 21
        >>> build(Bins, {"cuont": 5})
        Traceback (most recent call last):
        ...
        domainformer.errors.ConfigError: the configuration has 1 error
          why:   cuont: unknown key (did you mean 'count'?)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def hash(self) -> str:
        """A short name of the resolved values: equal configurations have equal hashes."""
        return fingerprint(self.model_dump(mode="json"))

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The resolved configuration as YAML text, also written to ``path`` where one is given."""
        text = dump_yaml(self.model_dump(mode="json"))
        if path is not None:
            write_text(Path(path), text)
        return text


ConfigT = TypeVar("ConfigT", bound=StrictConfig)


class _NoAliasLoader(yaml.SafeLoader):
    """A safe loader without aliases: a few nested ones can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse ``*alias`` nodes, compose everything else."""
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"aliases are not allowed (line {mark.line + 1})")
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping from a file of at most 1 MiB, without aliases and without code.

    Raises:
        ConfigError: The file is missing, too large, no text, not YAML, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", next_step="check the path")
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ConfigError(f"{path} is larger than 1 MiB", why="a configuration is a small text")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is no text", why=str(error), next_step="give a YAML file, saved as UTF-8"
        ) from error
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str = "the YAML text") -> dict[str, Any]:
    """Parse a YAML mapping from a string, as strictly as :func:`read_yaml`."""
    try:
        value = yaml.load(text, Loader=_NoAliasLoader)  # noqa: S506 - derives from SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError("the YAML cannot be read", where=where, why=str(error)) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            "a mapping of keys to values is expected", where=where, why=f"found {type(value)}"
        )
    return value


def dump_yaml(values: Any) -> str:
    """Plain data as readable YAML that reads back as it was.

    Example:
        >>> parse_yaml(dump_yaml({"name": "caf\u00e9\u2028bar"}))["name"] == "caf\u00e9\u2028bar"
        True
    """
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    if any(char in text for char in _YAML_BREAKS):
        text = yaml.safe_dump(values, sort_keys=False, width=100)
    return text


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply dotted ``key.key=value`` overrides (values are YAML) to nested mappings.

    Example:
        >>> apply_overrides({"training": {"seed": 0}}, ["training.seed=3", "model.preset=tiny"])
        {'training': {'seed': 3}, 'model': {'preset': 'tiny'}}
    """
    result = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"the override {override!r} is not of the form key.key=value",
                next_step="for example training.max_steps=200",
            )
        *parents, leaf = key.strip().split(".")
        node: dict[str, Any] = result
        for parent in parents:
            child = node.get(parent)
            node[parent] = dict(child) if isinstance(child, Mapping) else {}
            node = node[parent]
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the override {override!r} cannot be read", why=str(error)) from None
    return result


def build(cls: type[ConfigT], values: Mapping[str, Any], *, where: str | None = None) -> ConfigT:
    """Validate plain values into a configuration; every problem is told in one error."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        lines = [_describe(cls, problem) for problem in error.errors(include_url=False)]
        count = f"{len(lines)} error" + ("s" if len(lines) > 1 else "")
        raise ConfigError(
            f"the configuration has {count}", where=where, why="\n         ".join(lines)
        ) from None


def load_config(
    cls: type[ConfigT], path: str | Path | None = None, overrides: Sequence[str] = ()
) -> ConfigT:
    """Read a configuration file (none: all defaults), apply overrides, and validate."""
    values = read_yaml(path) if path is not None else {}
    return build(cls, apply_overrides(values, overrides), where=str(path) if path else None)


def _is_section(annotation: Any) -> bool:
    """Whether a field holds a configuration of its own (it may be optional)."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _describe(cls: type[BaseModel], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        owner: Any = cls
        for part in location[:-1]:
            annotation = owner.model_fields[part].annotation if part in owner.model_fields else None
            sections = [one for one in (annotation, *get_args(annotation)) if _is_section(one)]
            if len(sections) != 1:
                return f"{key}: unknown key"
            owner = sections[0]
        return f"{key}: unknown key ({nearest(location[-1], owner.model_fields)})"
    given = "" if problem["type"] == "missing" else f" (given: {problem['input']!r})"
    return f"{key}: {problem['msg'].lower()}{given}"
