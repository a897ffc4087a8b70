"""What can change the result of a run, as hashes; what cannot, as patterns of keys.

Equal identities mean equal results on equal machines. To say that a new setting cannot change a
result, add its pattern to `INERT_KEYS`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from domainformer.artifacts import fingerprint
from domainformer.config import StrictConfig
from domainformer.run.record import Identity, RunRecord

# Dotted patterns of settings that cannot change a result: where it is written, what is told of it.
INERT_KEYS = (
    "output.*",
    "*.keep",
    "*.log_every",
    "*.quiet",
    "*.report_to",
    "*.resume",
    # How the sums of a result are divided among processors and passes stands in ``resolved``.
    "*.device",
    "*.memory_budget",
    "*.threads",
    # Texts are written with generators of their own, and models are registered after the training.
    "sampling.*",
    "registry.*",
    # A permission; what is permitted is told by its source.
    "allow_rule_code",
)
# Known by its content, which is a part of the identity: another path to it is the same thing.
_IN_OTHER_PARTS = {
    "data.path": "data_fingerprint",
    "schema": "tokenizer_fingerprint",
    "tokenizer.path": "tokenizer_fingerprint",
}
_PARENT = "model_name"
_RULE_CODE = "rule_code"
# Seeds of a training; runs that differ in these alone are repetitions.
SEED_KEYS = frozenset({"seed", "training.seed"})


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The settings that can change a result, by dotted key, without learning rules.

    What another part of the identity knows by its content (the table, the schema) is left out, so
    that a file that was moved is the same file; a registered model is told by its id.

    Example:
        >>> import tempfile
        >>> from domainformer.run import start_run
        >>> config = {"training": {"seed": 1, "quiet": True}, "output": {"root": "runs"}}
        >>> settings_of(start_run(tempfile.mkdtemp(), "a", kind="pretrain", config=config).record)
        {'training.seed': 1}
    """
    settings = _decisive(record.config)
    for key, known in _IN_OTHER_PARTS.items():
        if getattr(record, known) is not None:
            settings.pop(key, None)
    if record.parent_id is not None:
        settings[_PARENT] = record.parent_id
    return settings


def rules_of(record: RunRecord) -> dict[str, Any]:
    """The learning rules of a run: asked for, attached, and the source of those of users."""
    asked = {key: value for key, value in flatten(record.config).items() if rules_key(key)}
    if record.rule_sources or not asked.get(_RULE_CODE):
        asked.pop(_RULE_CODE, None)
    sources = sorted(record.rule_sources.values())
    return {"settings": asked, "attached": record.rules, "sources": sources}


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


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in flatten(config).items()
        if not is_inert(key) and not rules_key(key)
    }


def rules_key(key: str) -> bool:
    """Whether a dotted key belongs to the learning rules, which stand apart from settings.

    Example:
        >>> rules_key("rules"), rules_key("training.rules"), rules_key("training.seed")
        (True, True, False)
    """
    return key == _RULE_CODE or "rules" in key.split(".")[:2]
