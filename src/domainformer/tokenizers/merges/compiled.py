"""The same loops as machine code (extra ``fast``), compiled when first asked for."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from domainformer.errors import MissingExtraError
from domainformer.tokenizers.merges import chain, learning, ledger, loops

_MODULES = (chain, ledger, loops, learning)
"""The files of loops, each after those whose functions it calls."""


class Machine(NamedTuple):
    """The loops that are called from outside, and the arrays they run on.

    Args:
        learn: `learning.learn`.
        rule_table: `loops.rule_table`.
        encode_chain: `loops.encode_chain`.
        encode_flat: `loops.encode_flat`.
        compiled: Whether they take numpy arrays (else lists).
    """

    learn: Callable[..., Any]
    rule_table: Callable[..., Any]
    encode_chain: Callable[..., int]
    encode_flat: Callable[..., int]
    compiled: bool


@cache
def machine(*, compiled: bool) -> Machine:
    """The loops, compiled or as they stand.

    Raises:
        MissingExtraError: ``compiled`` was asked for and numba is not installed.
    """
    names = vars(loops) | vars(learning)
    if compiled:
        names = {}
        for module in _MODULES:
            names |= _compile(module, names)
    return Machine(
        learn=names["learn"],
        rule_table=names["rule_table"],
        encode_chain=names["encode_chain"],
        encode_flat=names["encode_flat"],
        compiled=compiled,
    )


def _compile(module: ModuleType, known: dict[str, Any]) -> dict[str, Any]:
    """The functions of a module, bound to names among which the functions are compiled, too.

    A compiled function can call only compiled ones, so the module's own names cannot serve.
    """
    try:
        import numba
    except ImportError:
        raise MissingExtraError("numba", extra="fast", purpose="compiled merging") from None
    names = dict(vars(module))
    for name, value in vars(module).items():
        if inspect.isfunction(value) and name in known:
            names[name] = known[name]
        elif inspect.isfunction(value) and value.__module__ == module.__name__:
            bound = FunctionType(value.__code__, names, name, value.__defaults__)
            bound.__qualname__ = f"{name}_{_sources()}"
            names[name] = numba.njit(cache=True, nogil=True)(bound)
    return names


@cache
def _sources() -> str:
    """A name for the source of all loops.

    numba finds what it has compiled before by a function's own file, although the file of a
    function that it calls may have changed; by this name it finds nothing that is out of date.
    """
    digest = hashlib.sha256()
    for module in _MODULES:
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()[:8]
