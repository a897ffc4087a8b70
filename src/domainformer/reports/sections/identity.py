"""Run identity: everything that one needs to make, or to refuse to compare, this run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from domainformer.reports.markup import Content, Markup, code, facts, more, tag
from domainformer.reports.numbers import count
from domainformer.run import RunRecord


class Identified(Protocol):
    """Whatever was collected of a run."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        ...

    @property
    def record(self) -> RunRecord:
        """Its identity."""
        ...

    @property
    def config_text(self) -> str:
        """The resolved configuration as YAML."""
        ...


def identity_section(run: Identified) -> Markup:
    """The section."""
    record = run.record
    version = record.code_version
    revision = version.get("git_revision")
    rows: list[tuple[Content, Content]] = [
        ("run", code(record.id)),
        ("folder", code(str(run.folder))),
        ("status", record.status),
        ("created", record.created),
        ("finished", record.finished),
        ("taken up again at steps", ", ".join(map(count, record.resumed)) or None),
        ("config hash", code(record.config_hash)),
        ("domainformer", version.get("domainformer")),
        ("git revision", _revision(revision, version.get("git_modified"))),
        ("code hash", _code(record.identity.code) if record.identity else None),
        ("data fingerprint", _code(record.data_fingerprint)),
        ("schema fingerprint", _code(record.schema_fingerprint)),
        ("tokenizer fingerprint", _code(record.tokenizer_fingerprint)),
        ("seeds", _seeds(record.config)),
        ("learning rules", ", ".join(record.rules) or "none (plain training)"),
        ("rules hash", _code(record.identity.rules) if record.identity else None),
        ("parent model", _code(record.parent_id)),
    ]
    environment = record.environment
    packages: dict[str, Any] = environment.get("packages") or {}
    machine: list[tuple[Content, Content]] = [
        (key, environment.get(key)) for key in ("python", "platform", "machine", "cores")
    ]
    machine += [(name, version or "not installed") for name, version in packages.items()]
    return tag(
        "section",
        tag("h2", "Run identity"),
        facts(rows),
        more("environment", facts(machine)),
        more("full configuration", tag("pre", run.config_text)) if run.config_text else None,
        id="identity",
    )


def _code(value: str | None) -> Markup | None:
    return None if value is None else code(value)


def _revision(revision: Any, modified: Any) -> Content:
    if not revision:
        return None
    return [code(str(revision)[:12]), " with uncommitted changes" if modified else ""]


def _seeds(config: dict[str, Any]) -> str:
    found = []
    for section in ("split", "training"):
        seed = (config.get(section) or {}).get("seed")
        if seed is not None:
            found.append(f"{section} {seed}")
    return ", ".join(found)
