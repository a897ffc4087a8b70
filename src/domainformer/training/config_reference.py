"""Configurations told to editors and readers: JSON Schema, and a page of reference.

Both are made from the classes themselves: types and ranges from the fields, the words from the
``Args`` of the docstrings, learning rules from their table. Point an editor at the schema with a
first line such as ``# yaml-language-server: $schema=train.schema.json``.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from domainformer.config import StrictConfig
from domainformer.errors import ConfigError, nearest
from domainformer.training.config import RunConfig
from domainformer.training.language.config import TextRunConfig
from domainformer.training.rules.table import RULES, rule_class
from domainformer.training.vision.config import VisionRunConfig

KINDS: dict[str, type[StrictConfig]] = {
    "train": TextRunConfig,
    "pretrain": RunConfig,
    "vision": VisionRunConfig,
}
_COMMANDS = {"vision": "vision train"}  # of kinds that the command calls otherwise


def config_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a configuration, with a description of every key.

    Args:
        kind: ``train`` (language models), ``pretrain`` (models of events) or ``vision``
            (compressors of image tokens).

    Raises:
        ConfigError: There is no such kind.

    Example:
        >>> schema = config_schema("train")
        >>> schema["properties"]["training"]["$ref"]
        '#/$defs/TextTrainingConfig'
        >>> schema["$defs"]["TextTrainingConfig"]["properties"]["context"]["description"]
        'Tokens that a prediction sees at most, and predictions of a row.'
    """
    cls = _class_of(kind)
    schema = cls.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"domainformer {_COMMANDS.get(kind, kind)}"
    sections = _sections(cls)
    for found in (schema, *schema.get("$defs", {}).values()):
        owner = cls if found is schema else sections.get(found.get("title", ""))
        if owner is not None:
            _describe(found, owner)
    if "rules" in schema["properties"]:
        schema["properties"]["rules"] = _rules_schema(schema["properties"]["rules"])
    return schema


def config_reference() -> str:
    """The page of reference: every section and key of all kinds, and every learning rule."""
    lines = [
        "# Configuration reference",
        "",
        "Made from the classes by `domainformer config reference`; edit those, not this page.",
        "`domainformer config schema train` writes the JSON Schema that editors complete from.",
    ]
    for kind, cls in KINDS.items():
        lines += ["", f"## `domainformer {_COMMANDS.get(kind, kind)}`", "", _summary(cls)]
        for name, field in cls.model_fields.items():
            section = _section_of(field.annotation)
            if section is not None:
                lines += _section_lines(name, section)
        plain = [n for n, f in cls.model_fields.items() if _section_of(f.annotation) is None]
        lines += ["", "### At the top", "", *_table(cls, plain)]
    lines += ["", "## Learning rules", "", "Names for `rules:`; docs/rules.md explains them."]
    for name in RULES:
        rule = rule_class(name)
        lines += ["", f"### {name}", "", _summary(rule), "", *_table(rule)]
    return "\n".join(lines) + "\n"


def _section_lines(path: str, section: type[BaseModel]) -> list[str]:
    """A section with its keys, and the sections in it."""
    heading = "#" * (3 + path.count("."))
    lines = ["", f"{heading} {path}", "", _summary(section), "", *_table(section)]
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is not None:
            lines += _section_lines(f"{path}.{name}", inner)
    return lines


def _class_of(kind: str) -> type[StrictConfig]:
    if kind not in KINDS:
        raise ConfigError(
            f"there is no configuration of kind {kind!r}", next_step=nearest(kind, KINDS)
        )
    return KINDS[kind]


def _sections(cls: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The configuration classes below a class, by name."""
    found: dict[str, type[BaseModel]] = {}
    for field in cls.model_fields.values():
        section = _section_of(field.annotation)
        if section is not None and section.__name__ not in found:
            found[section.__name__] = section
            found |= _sections(section)
    return found


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _describe(schema: dict[str, Any], owner: type[BaseModel]) -> None:
    schema["description"] = _summary(owner)
    words = _arguments(owner)
    for name, found in schema.get("properties", {}).items():
        if name in words:
            found["description"] = words[name]


def _rules_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Names, or one name with the settings that this rule has."""
    choices: list[dict[str, Any]] = [{"enum": list(RULES), "description": "With its defaults."}]
    for name in RULES:
        rule = rule_class(name)
        settings = rule.model_json_schema()
        _describe(settings, rule)
        choices.append(
            {
                "type": "object",
                "properties": {name: _inlined(settings)},
                "required": [name],
                "additionalProperties": False,
            }
        )
    # Rules of the user's own have names that no schema knows.
    own = {"type": "object", "minProperties": 1, "maxProperties": 1}
    unknown = {"not": {"enum": list(RULES)}, "type": "string"}
    others = {**own, "propertyNames": unknown}
    return {**schema, "items": {"anyOf": [*choices, unknown, others]}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, since it will stand inside another."""
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, Mapping):
            reference = value.get("$ref")
            if isinstance(reference, str):
                return inline(definitions[reference.rpartition("/")[2]])
            return {key: inline(item) for key, item in value.items()}
        return [inline(item) for item in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = inline(schema)
    return inlined


def _summary(cls: type[BaseModel]) -> str:
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def _arguments(cls: type[BaseModel]) -> dict[str, str]:
    """What the ``Args`` of a class and its bases say of each field.

    Example:
        >>> _arguments(TextRunConfig)["output"]
        'Where the run is written.'
    """
    words: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, StrictConfig):
            continue
        section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", _doc(base), re.MULTILINE | re.DOTALL)
        for entry in re.finditer(
            r"^ {4}(\w+): (.*?)(?=^ {4}\S|\Z)", section[1] if section else "", re.M | re.DOTALL
        ):
            words[entry[1]] = " ".join(entry[2].split())
    return words


def _doc(cls: type) -> str:
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "")


def _table(cls: type[BaseModel], names: list[str] | None = None) -> list[str]:
    words = _arguments(cls)
    properties = _inlined(cls.model_json_schema()).get("properties", {})
    chosen = [name for name in names or cls.model_fields if name in properties]
    if not chosen:
        return ["No settings."]
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    for name in chosen:
        field = cls.model_fields[name]
        value = field.get_default(call_default_factory=True)
        default = "" if field.is_required() else _code(_plain(value))
        kind = _code(_type_of(properties[name]))
        lines.append(f"| `{name}` | {kind} | {default} | {_cell(words.get(name, ''))} |")
    return lines


def _type_of(schema: Mapping[str, Any]) -> str:
    """A short name of a type, with its range."""
    if "anyOf" in schema:
        return " or ".join(_type_of(one) for one in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_type_of(items)}"
    signs = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
    }
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([kind, *limits])


def _plain(value: Any) -> str:
    dump: Callable[[], Any] | None = getattr(value, "model_dump", None)
    return json.dumps(dump() if dump else value, default=str, ensure_ascii=False)


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)  # :class:`~package.Name`
    return plain.replace("|", "\\|").replace("``", "`")
