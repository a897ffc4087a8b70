"""A value for arguments that must be passed and are never read: it raises when it is touched."""

from __future__ import annotations

from typing import Any, NoReturn

from domainformer.errors import AdapterError


class Untouchable:
    """Stands for an argument that is dead, so that a wrong "dead" is an error and not a number.

    Args:
        name: The argument.
        where: File and line at which it was found dead.

    Raises:
        AdapterError: On any use: an attribute, arithmetic, a comparison, a truth value, a torch
            function.

    Example:
        >>> Untouchable("mhsa_0_output") + 1
        Traceback (most recent call last):
        ...
        domainformer.errors.AdapterError: mhsa_0_output was used, though no way through forward \
reads it
          why:   it was found dead, so nothing was computed for it
          next:  declare where it comes from: bind(model, providers={'mhsa_0_output': …})
    """

    __slots__ = ("_name", "_where")

    def __init__(self, name: str, where: str | None = None) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_where", where)

    def __repr__(self) -> str:
        return f"Untouchable({object.__getattribute__(self, '_name')!r})"

    def __getattribute__(self, name: str) -> Any:
        # isinstance asks for the class, and copying a call's arguments for nothing else.
        if name == "__class__":
            return Untouchable
        # torch looks for this before it refuses a value that is no tensor.
        if name == "__torch_function__":
            return object.__getattribute__(self, name)
        return _refuse(self)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> NoReturn:
        """Refuse every operation of torch."""
        values = [*args, *(kwargs or {}).values()]
        found = next((value for value in values if type(value) is cls), None)
        _refuse(found if found is not None else cls("an argument"))


def _refuse(value: Untouchable, *_: Any, **__: Any) -> NoReturn:
    name = object.__getattribute__(value, "_name")
    raise AdapterError(
        f"{name} was used, though no way through forward reads it",
        where=object.__getattribute__(value, "_where"),
        why="it was found dead, so nothing was computed for it",
        next_step=f"declare where it comes from: bind(model, providers={{{name!r}: …}})",
    )


# Python looks operators up on the class, past __getattribute__: each one is named.
_OPERATORS = [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "lshift",
    "rshift",
    "and",
    "or",
    "xor",
    "radd",
    "rsub",
    "rmul",
    "rmatmul",
    "rtruediv",
    "rfloordiv",
    "rmod",
    "rdivmod",
    "rpow",
    "rlshift",
    "rrshift",
    "rand",
    "ror",
    "rxor",
    "iadd",
    "isub",
    "imul",
    "imatmul",
    "itruediv",
    "ifloordiv",
    "imod",
    "ipow",
    "ilshift",
    "irshift",
    "iand",
    "ior",
    "ixor",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "neg",
    "pos",
    "abs",
    "invert",
    "round",
    "trunc",
    "floor",
    "ceil",
    "bool",
    "int",
    "float",
    "complex",
    "index",
    "len",
    "iter",
    "next",
    "reversed",
    "contains",
    "getitem",
    "setitem",
    "delitem",
    "call",
    "enter",
    "exit",
    "str",
    "bytes",
    "format",
    "hash",
    "copy",
    "deepcopy",
    "setattr",
    "delattr",
    "array",
]
for _operator in _OPERATORS:
    setattr(Untouchable, f"__{_operator}__", _refuse)
