"""Knowing a module again: its name, the hash of its source, and who may give it for a folder."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeAlias

from torch import nn

from domainformer.errors import AdapterError, FingerprintError
from domainformer.models.universal.configuration import UniversalConfig

Given: TypeAlias = nn.Module | Callable[..., nn.Module]
"""A module, or what makes one: its class, or any function."""

_FOREIGN = ("torch.", "transformers.")
_GIVEN: ContextVar[Given | None] = ContextVar("domainformer_given_module", default=None)


def qualified_name(module: nn.Module) -> str:
    """Where the class of a module is from.

    Example:
        >>> qualified_name(nn.Linear(1, 1))
        'torch.nn.modules.linear.Linear'
    """
    return f"{type(module).__module__}.{type(module).__qualname__}"


def source_hash(module: nn.Module) -> str | None:
    """SHA-256 of the source of a module's classes, its parts included, those of libraries not.

    None where a class has no source, as those typed into a shell.
    """
    classes = {type(part) for part in module.modules()}
    own = [one for one in classes if not f"{one.__module__}.".startswith(_FOREIGN)]
    digest = hashlib.sha256()
    for one in sorted(own, key=lambda found: found.__qualname__):
        try:
            digest.update(inspect.getsource(one).encode())
        except (OSError, TypeError):
            return None
    return digest.hexdigest()


def check_identity(module: nn.Module, config: UniversalConfig, *, where: str) -> None:
    """Refuse a module whose code is not that which the weights were saved with.

    Raises:
        FingerprintError: The source differs; or, where there is none, the name does.
    """
    found, name = source_hash(module), qualified_name(module)
    if found is not None and config.module_source is not None:
        same = found == config.module_source
        why = f"the source of {name} is not that which the model was saved with"
    else:
        same = name.rsplit(".", 1)[-1] == config.module_name.rsplit(".", 1)[-1]
        why = f"the folder was saved from {config.module_name}, and {name} was given"
    if not same:
        raise FingerprintError(
            "the module and the weights do not belong together",
            where=where,
            why=why,
            next_step="restore the source, or say that the change does not matter: "
            "allow_changed_source=True",
        )


def made(given: Given, config: UniversalConfig) -> nn.Module:
    """The module itself, or a new one with the constructor's arguments that were kept.

    Raises:
        AdapterError: It cannot be made, or is no module.
    """
    if isinstance(given, nn.Module):
        return given
    try:
        module = given(**(config.module_arguments or {}))
    except TypeError as error:
        raise AdapterError(
            f"{getattr(given, '__name__', 'the function')} does not make the module",
            why=str(error),
            next_step="give the module itself, or a function without arguments",
        ) from error
    if not isinstance(module, nn.Module):
        raise AdapterError(f"a {type(module).__name__} is no module")
    return module


@contextlib.contextmanager
def given_module(given: Given) -> Iterator[None]:
    """Inside, folders of wrapped modules can be opened by whoever opens model folders.

    The registry, resumed runs and ``adapter_for`` know no module of yours; this tells them.

    Args:
        given: The module (each loading gets a copy of its own), its class, or a function.

    Example:
        >>> with given_module(nn.Linear(1, 1)):
        ...     type(current_module()).__name__
        'Linear'
        >>> current_module() is None
        True
    """
    token = _GIVEN.set(given)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def current_module() -> Given | None:
    """What :func:`given_module` was given; of a module, a copy that is nobody else's."""
    given = _GIVEN.get()
    return copy.deepcopy(given) if isinstance(given, nn.Module) else given
