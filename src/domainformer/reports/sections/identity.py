"""Run identity: everything that one needs to make, or to refuse to compare, this run."""

from __future__ import annotations

from typing import Any

from domainformer.reports.collect import Collected
from domainformer.reports.markup import Content, Markup, code, facts, more, tag


def identity_section(run: Collected) -> Markup:
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
        ("config hash", code(record.config_hash)),
        ("domainformer", version.get("domainformer")),
        ("git revision", _revision(revision, version.get("git_modified"))),
        ("data fingerprint", _code(record.data_fingerprint)),
        ("schema fingerprint", _code(record.schema_fingerprint)),
        ("tokenizer fingerprint", _code(record.tokenizer_fingerprint)),
        ("seeds", _seeds(record.config)),
        ("learning rules", ", ".join(record.rules) or "none (plain training)"),
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
