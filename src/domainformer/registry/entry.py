"""What the registry knows of a model: one entry of ``registry.json``."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from domainformer.config import StrictConfig
from domainformer.errors import RegistryError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Sizes(StrictConfig):
    """How large a model is.

    Args:
        parameters: Numbers in the weight files (tied weights count once).
        bytes: Bytes of all of its files.
    """

    parameters: int = Field(ge=0)
    bytes: int = Field(ge=0)


class Entry(StrictConfig):
    """A registered model.

    Args:
        model_name: Its name and its folder in the registry; it can be changed.
        model_id: Short name of the content of all files: the same wherever the model lies and
            whatever it is called.
        architecture_type: Class of the model, as ``config.json`` has it.
        source: Where it came from: a repository of the hub, or a folder.
        revision: Commit of the repository that was fetched; None for folders.
        license: As the model card says, or as its parent has it; None: not known.
        fine_tuned_from: Name of the registered model that it was trained further from, or what
            its model card names as such; None: it was trained from nothing, or nobody says.
        parent_id: The ``model_id`` of that model; None where it is not registered.
        created_at: UTC time of the registration (ISO 8601).
        sizes: Parameters and bytes.
        files: SHA-256 of every file, by its path in the folder.
        config_hash: Of ``config.json``, without what says nothing of the architecture.
        metrics: Numbers that were measured of it.
        rules: Learning rules that it was trained with, outermost first.
        run: The run that made it, where one of ours did.
    """

    model_name: str
    model_id: str
    architecture_type: str
    source: str
    revision: str | None = None
    license: str | None = None
    fine_tuned_from: str | None = None
    parent_id: str | None = None
    created_at: str
    sizes: Sizes
    files: dict[str, str]
    config_hash: str
    metrics: dict[str, Any] = Field(default_factory=dict)
    rules: tuple[str, ...] = ()
    run: str | None = None

    @field_validator("model_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot name a model")
        return value

    @field_validator("files")
    @classmethod
    def _stay_in_the_folder(cls, value: dict[str, str]) -> dict[str, str]:
        # A registry may come from elsewhere: it must not make us read outside its folder.
        for name in value:
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise ValueError(f"{name!r} is no path inside the model's folder")
        return value

    @property
    def reference(self) -> dict[str, str]:
        """What a descendant notes of its parent, as plain data."""
        return {"model_name": self.model_name, "model_id": self.model_id}


def check_name(name: str) -> str:
    """A name that is also one plain folder name.

    Raises:
        RegistryError: It is empty, has slashes or blanks, or starts with a dot.

    Example:
        >>> check_name("qwen-tiny")
        'qwen-tiny'
        >>> check_name("../elsewhere")
        Traceback (most recent call last):
        ...
        domainformer.errors.RegistryError: '../elsewhere' cannot name a model
          why:   a name is one folder name of letters, digits, '.', '_' and '-'
    """
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"{name!r} cannot name a model",
            why="a name is one folder name of letters, digits, '.', '_' and '-'",
        )
    return name
