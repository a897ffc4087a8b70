"""A configuration as YAML with comments: what each value does, and where it came from.

::

    # How text becomes tokens, and …            the class's own words
    training:
      # Tokens of a row.                        the field's own words
      # from: as quickstart takes it            where the value came from
      context: 512

The words are those of the reference (``docs/configuration.md``), read from the classes. What is
written is parsed and validated before any file is touched.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.config import StrictConfig, build, dump_yaml, parse_yaml
from domainformer.errors import ConfigError
from domainformer.schema import InferredSchema
from domainformer.start.plan import Plan
from domainformer.training.config_reference import KINDS, config_schema

WIDTH = 96
_reference = functools.cache(config_schema)  # read here, never changed
CONFIG_FILE, SCHEMA_FILE = "run.yaml", "schema.yaml"


def config_text(plan: Plan, command: str, *, schema: str | None = None) -> str:
    """The configuration of a plan, with comments.

    Args:
        plan: What to write.
        command: The command that runs it, for the head.
        schema: File of the schema; None for text, which has none.

    Raises:
        ConfigError: The values are no configuration.
    """
    kind = "a model of events" if plan.kind == "pretrain" else "a language model"
    head = [
        f"The run of {kind}, from {plan.found}.",
        "",
        command,
        "",
        "Paths are seen from the folder in which that command is run. Every value may be edited;",
        f"what is not here has its default: `domainformer config schema {plan.kind}` tells all.",
        "None is written null.",
    ]
    reference = _reference(plan.kind)
    lines = [line for text in head for line in _wrapped(text) or ["#"]]
    for name, values in plan.values.items():
        lines += ["", *_section(name, values, reference, plan.sources)]
        if name == "data" and schema is not None:
            words = reference["properties"]["schema"].get("description", "")
            lines += [
                "",
                *_comments(words, "inferred from the training part of the table"),
            ]
            lines.append(dump_yaml({"schema": schema}).rstrip("\n"))
    text = "\n".join(lines) + "\n"
    extra = {} if schema is None else {"schema": schema}
    _proven(KINDS[plan.kind], text, {**plan.values, **extra})
    return text


def schema_text(inferred: InferredSchema) -> str:
    """The schema of a table, headed by the reason for each of its columns."""
    lines = ["# How columns become tokens, and why. Edit it as you like.", "#"]
    for row in inferred.evidence:
        becomes = ", ".join(row.fields) or row.role
        lines += _wrapped(f"{row.column} → {becomes}: {row.reason}")
    return "\n".join(lines) + "\n\n" + inferred.schema.to_yaml()


def write_files(files: Mapping[Path, str], *, overwrite: bool = False) -> None:
    """Write all of some files, or none: whatever interrupts it, things are as they were.

    Raises:
        ConfigError: One exists, and may not be replaced.
        ArtifactError: The disk refuses.
    """
    refuse_existing(tuple(files), overwrite=overwrite)
    with _undone_on_failure(tuple(files)):
        for path, text in files.items():
            write_text(path, text)


def refuse_existing(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Stop before anything that exists would be replaced unasked.

    Raises:
        ConfigError: A file exists, or a folder stands in its place.
    """
    for path in paths:
        if path.is_dir() or (path.exists() and not overwrite):
            raise ConfigError(
                f"{path} exists already",
                next_step="choose another folder"
                + ("" if path.is_dir() else ", or pass --overwrite to replace it"),
            )


@contextlib.contextmanager
def _undone_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    before = {path: path.read_bytes() if path.is_file() else None for path in paths}
    folders = [folder for path in paths for folder in path.parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for path, content in before.items():
            path.with_name(f".{path.name}.staging-{os.getpid()}").unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            else:
                path.unlink(missing_ok=True)
        for folder in sorted(set(folders), key=lambda one: -len(one.parts)):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _section(
    name: str,
    values: Mapping[str, Any],
    reference: Mapping[str, Any],
    sources: Mapping[str, str],
) -> list[str]:
    title = reference["properties"][name].get("$ref", "").rpartition("/")[2]
    about = reference["$defs"].get(title, {})
    lines = [*_comments(about.get("description", ""), None), f"{name}:"]
    for key, value in values.items():
        words = about.get("properties", {}).get(key, {}).get("description", "")
        comment = _comments(words, sources.get(f"{name}.{key}"))
        plain = dump_yaml({key: value}).rstrip("\n").split("\n")
        lines += [f"  {line}" for line in (*comment, *plain)]
    return lines


def _comments(words: str, source: str | None) -> list[str]:
    # Sphinx roles are for the reference; here their last word says it.
    plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", words).replace("``", "")
    return _wrapped(plain) + (_wrapped(f"from: {source}") if source else [])


def _wrapped(text: str) -> list[str]:
    """Lines of comment; names of columns and files may hold anything, a comment may not."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return [f"# {line}" for line in textwrap.wrap(plain, WIDTH, break_on_hyphens=False)]


def _proven(cls: type[StrictConfig], text: str, values: Mapping[str, Any]) -> None:
    """What was written reads back as what was meant, and is a configuration."""
    meant = build(cls, values)
    if build(cls, parse_yaml(text)) != meant:
        raise ConfigError(
            "the configuration cannot be written as YAML",
            why="a name of a file or column holds characters that do not survive it",
            next_step="rename it",
        )
