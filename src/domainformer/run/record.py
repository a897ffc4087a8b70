"""What ``run.json`` holds: plain data, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from domainformer.config import StrictConfig, build
from domainformer.errors import ArtifactError

RUN_FILE = "run.json"
Status = Literal["preparing", "running", "finished", "failed", "interrupted"]


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
        parent_id: Of the registered model that is trained further, by its content.
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
    parent_id: str | None = None
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
