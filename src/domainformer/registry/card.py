"""The model card: what a model folder tells of itself, as the page that the hub shows.

::

    config.json, weights, schema.yaml, lineage.json, run.json
      └─▶ README.md: metadata for the hub; what it is, what it reads, figures, how to use it

Everything in it was read from the folder; nothing is made up, and what is not known is left out.

Source: https://huggingface.co/docs/hub/model-cards; Mitchell et al., "Model Cards for Model
Reporting", arXiv 1810.03993.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from domainformer.registry.contents import (
    BUNDLE_FILE,
    CARD_FILE,
    FUSION_FILE,
    Contents,
    model_folder,
    read_card,
    read_contents,
)
from domainformer.schema import DomainSchema
from domainformer.tokenizers.hub import SCHEMA_FILE
from domainformer.version import __version__
from domainformer.weights import check_weights, parameter_count, read_model_config

_UNIVERSAL = "UniversalForCausalLM"
_PIPELINES = {"CausalLM": "text-generation", "LMHeadModel": "text-generation"}


def model_card(
    folder: str | Path,
    name: str | None = None,
    *,
    license: str | None = None,  # noqa: A002 - the entry's name for it
    notes: str = "",
) -> str:
    """The card of a model folder.

    Args:
        folder: A model folder, or the run folder that holds it.
        name: Its title; None: the folder's name.
        license: Such as ``apache-2.0``; None: as a card in the folder says.
        notes: Markdown that the card begins with: what the model is for, and what it is not.

    Raises:
        RegistryError: It is no model folder.

    Example:
        >>> import tempfile
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=9, num_hidden_layers=1)
        >>> DomainTransformerForCausalLM(config).save_pretrained(folder)
        >>> [line for line in model_card(folder, "letters").splitlines() if "| par" in line]
        ['| parameters | ... |']
    """
    folder = model_folder(Path(folder))
    contents = read_contents(folder)
    said = read_card(folder / CARD_FILE)
    title = name or folder.resolve().name
    sections = [
        _metadata(folder, contents, license or contents.license, said),
        f"# {title}",
        notes.strip(),
        _about(folder, contents),
        _fields(folder),
        _figures(contents.metrics),
        _use(folder, title, contents),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _metadata(folder: Path, contents: Contents, terms: str | None, said: Mapping[str, Any]) -> str:
    own = (folder / BUNDLE_FILE).is_file() or (folder / FUSION_FILE).is_file()
    universal = contents.architecture == _UNIVERSAL
    kind = next((v for k, v in _PIPELINES.items() if contents.architecture.endswith(k)), None)
    values = {
        **said,
        "library_name": "domainformer" if own or universal else "transformers",
        "license": terms,
        "base_model": contents.base_model,
        # Events are no text, and a module's code is not in the folder: the hub's own widget could
        # not use such a model.
        "pipeline_tag": None if own or universal else kind,
        "tags": sorted(
            {*(said.get("tags") or ()), "domainformer"} | ({"events"} if own else set())
        ),
    }
    kept = {key: value for key, value in values.items() if value not in (None, "", [])}
    return f"---\n{yaml.safe_dump(kept, sort_keys=True, allow_unicode=True)}---"


def _about(folder: Path, contents: Contents) -> str:
    parent = contents.parent or {}
    rows = {
        "architecture": contents.architecture,
        "parameters": f"{parameter_count(folder, check_weights(folder)):,}",
        "trained further from": parent.get("model_name") or contents.base_model,
        "run": contents.run,
        "learning rules": ", ".join(contents.rules),
        "configuration": contents.config_hash,
    }
    return _table(("", ""), [(key, value) for key, value in rows.items() if value])


def _fields(folder: Path) -> str:
    """What the model reads of each event."""
    if not (folder / SCHEMA_FILE).is_file():
        return ""
    schema = DomainSchema.from_yaml(folder / SCHEMA_FILE)
    rows = [(field.name, field.source, field.field_type.value) for field in schema.fields]
    return f"## What it reads\n\n{_table(('field', 'column', 'kind'), rows)}"


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = [
        (key.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return f"## Figures of its training run\n\n{_table(('figure', 'value'), rows)}" if rows else ""


def _use(folder: Path, title: str, contents: Contents) -> str:
    if (folder / FUSION_FILE).is_file():
        code = [
            "from domainformer import pipeline",
            f'predict = pipeline("event-classification", model="{title}")',
            "predict(frame, events=events)",
        ]
    elif (folder / BUNDLE_FILE).is_file():
        classifies = contents.architecture.endswith("Classification")
        task = "event-classification" if classifies else "next-event"
        code = [
            "from domainformer import pipeline",
            f'pipeline("{task}", model="{title}")(events)',
        ]
    elif contents.architecture == _UNIVERSAL:
        where, _, module = str(read_model_config(folder).get("module_name")).rpartition(".")
        code = [
            "from domainformer import given_module, pipeline",
            f"from {where} import {module}  # its code is not in the folder",
            f"with given_module({module}):",
            f'    generate = pipeline("text-generation", model="{title}")',
            'generate("Once upon a time")',
        ]
    elif contents.architecture.endswith(tuple(_PIPELINES)):
        code = [
            "from domainformer import pipeline",
            f'pipeline("text-generation", model="{title}")("Once upon a time")',
        ]
    else:
        code = ["from transformers import AutoModel", f'AutoModel.from_pretrained("{title}")']
    body = "\n".join(code)
    return f"## Use\n\n```python\n{body}\n```\n\nWritten by domainformer {__version__}."


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
