"""What a model's ``forward`` takes, and what each argument is for.

::

    name ─▶ the user's word ─▶ alias table ─▶ what forward does with it ─▶ annotation ─▶ unknown

Each argument keeps the reason of its role. Nothing is guessed: what no line of that chain decides
is ``Role.UNKNOWN``, and ``bind`` refuses a required one.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from domainformer.errors import AdapterError, nearest
from domainformer.models.universal.aliases import NEUTRAL, Role, as_role, role_of
from domainformer.models.universal.evidence import embedding_consumers, keys_of
from domainformer.models.universal.forward import (
    ForwardSource,
    find_forward,
    forward_of,
    unwrapped,
)
from domainformer.models.universal.layouts import recognise

REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class ForwardParameter:
    """One argument of ``forward``.

    Attributes:
        name: As it is written.
        kind: ``positional-only``, ``positional or keyword``, ``variadic positional``,
            ``keyword-only``, ``variadic keyword``, or ``key of **NAME`` for a key that ``forward``
            reads from its keywords.
        default: Its default; ``REQUIRED`` where it has none.
        annotation: As text, empty where there is none.
        role: What it is for.
        why: How that was found out.
    """

    name: str
    kind: str
    default: Any
    annotation: str
    role: Role
    why: str

    @property
    def required(self) -> bool:
        """Whether a call without it fails."""
        return self.default is REQUIRED and not self.kind.startswith("variadic")


class ModelSignatureInspector:
    """Reads what ``forward`` takes, without calling it.

    Args:
        model: A module, or a class of modules (less is known then: no submodules).
        roles: What the user says arguments are for, by their names; it goes before everything.

    Raises:
        AdapterError: A role or a name in ``roles`` does not exist, or ``forward`` has no signature.

    Example:
        >>> class Tiny(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.emb = nn.Embedding(10, 4)
        ...     def forward(self, idx, attention_mask=None, *, scale: float = 1.0):
        ...         return self.emb(idx) * scale
        >>> inspector = ModelSignatureInspector(Tiny())
        >>> [(p.name, p.role.value) for p in inspector.parameters]
        [('idx', 'tokens'), ('attention_mask', 'mask'), ('scale', 'option')]
        >>> inspector.of("tokens"), inspector.requires_intermediate_outputs()
        (('idx',), False)
    """

    def __init__(
        self,
        model: nn.Module | type[nn.Module],
        roles: Mapping[str, Role | str] | None = None,
    ) -> None:
        self.model = model if isinstance(model, type) else unwrapped(model)
        self.source: ForwardSource = find_forward(self.model)
        signature = _signature(self.model, self.source)
        self._read(signature, dict(roles or {}))

    @classmethod
    def of_source(
        cls, source: ForwardSource, *, roles: Mapping[str, Role | str] | None = None
    ) -> ModelSignatureInspector:
        """Inspect a ``forward`` that was read from a file and never run."""
        if source.tree is None:
            raise AdapterError("forward cannot be read", where=source.file, why=source.reason)
        self = cls.__new__(cls)
        self.model, self.source = nn.Module, source
        self._read(_signature_of_tree(source), dict(roles or {}))
        return self

    def _read(self, signature: inspect.Signature, roles: dict[str, Role | str]) -> None:
        given = {name: as_role(role, where=f"roles[{name!r}]") for name, role in roles.items()}
        found = [self._parameter(parameter, given) for parameter in signature.parameters.values()]
        keywords = [p for p in found if p.kind == "variadic keyword"]
        for parameter in keywords:
            found.extend(self._keys(parameter, {p.name for p in found}, given))
        names = {parameter.name for parameter in found}
        for name in given.keys() - names:
            if not keywords:
                raise AdapterError(
                    f"forward has no argument {name!r}",
                    where=self.source.at(),
                    next_step=nearest(name, names),
                )
            found.append(
                ForwardParameter(
                    name, f"key of **{keywords[0].name}", None, "", given[name], "the user says so"
                )
            )
        self.parameters: tuple[ForwardParameter, ...] = _one_by_evidence(self, tuple(found), given)
        self.layout, self.layout_why = recognise(self.model, self.parameters)

    def _parameter(
        self, parameter: inspect.Parameter, given: Mapping[str, Role]
    ) -> ForwardParameter:
        annotation = _text(parameter.annotation)
        role, why = self._role(parameter, annotation, given)
        return ForwardParameter(
            name=parameter.name,
            kind=parameter.kind.description,
            default=parameter.default,
            annotation=annotation,
            role=role,
            why=why,
        )

    def _role(
        self, parameter: inspect.Parameter, annotation: str, given: Mapping[str, Role]
    ) -> tuple[Role, str]:
        if parameter.name in given:
            return given[parameter.name], "the user says so"
        role, why = role_of(parameter.name)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return Role.OPTION, "takes further keywords"
        if role is not Role.UNKNOWN:
            return role, why
        if parameter.name.lower() in NEUTRAL:
            seen = embedding_consumers(self.model, parameter.name)
            if seen:
                return Role.TOKENS, f"forward looks it up in {seen[0]}"
            return Role.UNKNOWN, "the name says nothing, and no embedding is seen that reads it"
        return _by_annotation(parameter, annotation) or (role, why)

    def _keys(
        self, parameter: ForwardParameter, taken: set[str], given: Mapping[str, Role]
    ) -> list[ForwardParameter]:
        """Keys that ``forward`` reads from its ``**keywords`` are arguments like others."""
        found = []
        for key, required in keys_of(self.source.tree, parameter.name).items():
            if key in taken:
                continue
            role, why = (given[key], "the user says so") if key in given else role_of(key)
            default = REQUIRED if required else None
            kind = f"key of **{parameter.name}"
            found.append(ForwardParameter(key, kind, default, "", role, why))
        return found

    def of(self, role: Role | str) -> tuple[str, ...]:
        """Names of the arguments with this role, in order."""
        wanted = as_role(role)
        return tuple(p.name for p in self.parameters if p.role is wanted)

    def requires_intermediate_outputs(self) -> bool:
        """Whether ``forward`` wants outputs of the model's own parts as arguments."""
        return any(p.required for p in self.parameters if p.role is Role.INTERMEDIATE)

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs."""
        return {
            "file": self.source.file,
            "line": self.source.line,
            "layout": self.layout,
            "layout_why": self.layout_why,
            "requires_intermediate_outputs": self.requires_intermediate_outputs(),
            "parameters": [
                {
                    "name": p.name,
                    "kind": p.kind,
                    "required": p.required,
                    "default": None if p.default is REQUIRED else repr(p.default),
                    "annotation": p.annotation,
                    "role": p.role.value,
                    "why": p.why,
                }
                for p in self.parameters
            ],
        }

    def render(self) -> str:
        """A table for people."""
        lines = [f"forward at {self.source.at()}", f"layout {self.layout}: {self.layout_why}"]
        rows = [
            (p.name, "required" if p.required else "optional", p.role.value, p.why)
            for p in self.parameters
        ]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            + f"  {row[3]}"
            for row in rows
        ]  # fmt: skip
        return "\n".join(lines)


def _one_by_evidence(
    inspector: ModelSignatureInspector,
    found: Sequence[ForwardParameter],
    given: Mapping[str, Role],
) -> tuple[ForwardParameter, ...]:
    """The single argument that an embedding reads holds the tokens, whatever its name is.

    With two such arguments neither is taken: one may be segments, a user's id or an action.
    """
    unknown = [p for p in found if p.role is Role.UNKNOWN and p.name not in given]
    if any(p.role is Role.TOKENS for p in found) or isinstance(inspector.model, type):
        return tuple(found)
    seen = {p.name: embedding_consumers(inspector.model, p.name) for p in unknown}
    read = [name for name, consumers in seen.items() if consumers]
    if len(read) != 1:
        return tuple(found)
    why = f"the only argument that forward looks up in an embedding: {seen[read[0]][0]}"
    return tuple(
        dataclasses.replace(p, role=Role.TOKENS, why=why) if p.name == read[0] else p for p in found
    )


def _signature(model: nn.Module | type[nn.Module], source: ForwardSource) -> inspect.Signature:
    if isinstance(model, torch.jit.ScriptModule):
        return _scripted(model)
    function = forward_of(model)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise AdapterError(
            "forward has no signature that can be read", where=source.at(), why=str(error)
        ) from error
    own = isinstance(model, type) or "forward" not in vars(model)
    parameters = list(signature.parameters.values())
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    # A method that was taken from its class still shows `self`; `forward(*args)` shows none.
    if own and parameters and parameters[0].kind in positional:
        parameters = parameters[1:]
    return signature.replace(parameters=parameters)


def _scripted(model: nn.Module) -> inspect.Signature:
    """TorchScript keeps names and defaults in a schema of its own."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else kind,
                default=argument.default_value if argument.has_default_value() else REQUIRED,
                annotation=str(argument.type),
            )
            for argument in model.forward.schema.arguments[1:]
        ]
    )


def _signature_of_tree(source: ForwardSource) -> inspect.Signature:
    """The signature of a function that was never run: its defaults stay text."""
    tree = source.tree
    assert tree is not None
    arguments, kinds = tree.args, inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    rows: list[tuple[ast.arg, Any, ast.expr | None]] = [
        (a, kinds.POSITIONAL_ONLY if a in arguments.posonlyargs else kinds.POSITIONAL_OR_KEYWORD, d)
        for a, d in zip(positional, [*padding, *arguments.defaults], strict=True)
    ]
    rows = rows[1:] if source.owner else rows
    if arguments.vararg:
        rows.append((arguments.vararg, kinds.VAR_POSITIONAL, None))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        rows.append((argument, kinds.KEYWORD_ONLY, default))
    if arguments.kwarg:
        rows.append((arguments.kwarg, kinds.VAR_KEYWORD, None))
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.arg,
                kind,
                default=REQUIRED if default is None else _literal(default),
                annotation=REQUIRED if a is None else ast.unparse(a),
            )
            for argument, kind, default in rows
            for a in (argument.annotation,)
        ]
    )


def _literal(default: ast.expr) -> Any:
    try:
        return ast.literal_eval(default)
    except ValueError:
        return ast.unparse(default)


def _text(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _by_annotation(parameter: inspect.Parameter, annotation: str) -> tuple[Role, str] | None:
    """Switches and numbers show themselves; a cache by the class that it must have."""
    words = set(annotation.replace("Optional[", " ").replace("]", " ").replace("|", " ").split())
    kinds = {word.rpartition(".")[2] for word in words} - {"None"}
    if kinds and kinds <= {"bool", "int", "float", "str"}:
        return Role.OPTION, f"annotated as {annotation}"
    if kinds and all(kind.endswith("Cache") for kind in kinds):
        return Role.CACHE, f"annotated as {annotation}"
    if isinstance(parameter.default, (bool, int, float, str)):
        return Role.OPTION, f"its default is {parameter.default!r}"
    return None
