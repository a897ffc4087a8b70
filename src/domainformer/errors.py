"""Every error that domainformer raises on purpose.

Each says what is wrong, where it is (file, row, column), why, and the next step::

    DomainformerError
    ├── InputError (ValueError)         what the user gave cannot be used as it is
    │   ├── ConfigError                 a configuration file, override or argument
    │   ├── SchemaError                 a schema that contradicts itself or the table
    │   ├── DataError                   a table, file, row or column
    │   ├── TokenizerError              a tokenizer that cannot do what was asked
    │   ├── RuleError                   a learning rule, its site, or what it gave back
    │   └── SurgeryError                a change of a model that it does not allow
    ├── ArtifactError                   something on disk is missing, incomplete or damaged
    │   ├── StoreError                  a token store
    │   ├── CheckpointError             a training checkpoint
    │   ├── RegistryError               a registry of models, or a model folder for one
    │   └── FingerprintError            parts that were not made for each other
    ├── AdapterError                    a model of the user's own cannot be adapted as it is
    │   └── UnresolvedInput             an argument of its forward has no source
    ├── VisionError                     a vision-language model, or inputs of one, for compression
    ├── ExportError                     a model that another format cannot hold as it is
    ├── ComparisonError                 runs that cannot be set beside each other
    └── MissingExtraError (ImportError) an optional dependency is not installed
        └── MissingProgramError         a program that it runs on is not installed

The command line turns each of them into a short message and exit code 2; anything else that
escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DomainformerError(Exception):
    """Base of all deliberate errors; its message is built from four parts.

    Args:
        what: One sentence that names the problem.
        where: The file, row, column or key concerned.
        why: What was found, or what follows from it.
        next_step: What the reader can do now.

    Example:
        >>> print(DataError("the column 'amonut' does not exist", where="cards.parquet",
        ...                 next_step="did you mean 'amount'?"))
        the column 'amonut' does not exist
          where: cards.parquet
          next:  did you mean 'amount'?
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        why: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.what, self.where, self.why, self.next_step = what, where, why, next_step
        parts = (("where: ", where), ("why:   ", why), ("next:  ", next_step))
        super().__init__("\n".join([what, *(f"  {label}{text}" for label, text in parts if text)]))


class InputError(DomainformerError, ValueError):
    """What the user gave cannot be used as it is."""


class ConfigError(InputError):
    """A configuration file, override or argument is wrong."""


class SchemaError(InputError):
    """A schema contradicts itself or does not fit the table."""


class DataError(InputError):
    """A table, file, row or column cannot be used."""


class TokenizerError(InputError):
    """A tokenizer cannot do what was asked."""


class RuleError(InputError):
    """A learning rule cannot be attached, or gave back what it must not."""


class SurgeryError(InputError):
    """A model cannot be changed as it was asked."""


class ArtifactError(DomainformerError):
    """Something on disk is missing, incomplete or damaged."""


class StoreError(ArtifactError):
    """A token store is missing, incomplete or damaged."""


class CheckpointError(ArtifactError):
    """A training checkpoint is missing, incomplete or damaged."""


class RegistryError(ArtifactError):
    """A registry of models, or a model folder, is missing, damaged, unsafe or in use."""


class FingerprintError(ArtifactError):
    """Two parts were put together that were not made for each other."""


class AdapterError(DomainformerError):
    """A model of the user's own cannot be adapted as it is."""


class UnresolvedInput(AdapterError):  # noqa: N818 - the name says what it is
    """An argument of a model's ``forward`` has no source; nothing is put in its place.

    Args:
        what: One sentence that names the argument.
        names: The arguments that have none.
        candidates: What could provide them, best first.
        where: File and line.
        why: Why none of them was taken.
        next_step: What the reader can do now; the candidates by default.
    """

    def __init__(
        self,
        what: str,
        *,
        names: Iterable[str] = (),
        candidates: Iterable[str] = (),
        where: str | None = None,
        why: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.names, self.candidates = tuple(names), tuple(candidates)
        if next_step is None and self.candidates:
            next_step = f"candidates: {', '.join(self.candidates)}"
        super().__init__(what, where=where, why=why, next_step=next_step)


class VisionError(DomainformerError):
    """A vision-language model, or what it was given, does not allow its tokens to be compressed."""


class ExportError(DomainformerError):
    """A model cannot be written in another format, or its file answers something else."""


class ComparisonError(DomainformerError):
    """Runs differ in more than was named, so that a difference in their results tells nothing."""


class MissingExtraError(DomainformerError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of domainformer that brings it.
        purpose: What it is needed for, as it completes "… needs lightgbm".
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed",
            next_step=f"pip install 'domainformer[{extra}]'",
        )


class MissingProgramError(MissingExtraError):
    """A program outside Python, which an optional dependency runs on, is not installed.

    Args:
        program: What was not found.
        purpose: What it is needed for, as it completes "… needs Java 17".
        next_step: How to get it.
    """

    def __init__(self, program: str, *, purpose: str, next_step: str) -> None:
        DomainformerError.__init__(
            self, f"{purpose} needs {program}, which is not installed", next_step=next_step
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A "did you mean" sentence, or a list of what exists where nothing is near.

    Example:
        >>> nearest("amonut", ["amount", "date"])
        "did you mean 'amount'?"
        >>> nearest("zzz", ["amount", "date"])
        'choose one of: amount, date'
    """
    options = sorted(set(known))
    if not options:
        return None
    folded = {option.lower(): option for option in options}
    match = difflib.get_close_matches(name.lower(), folded, n=1)
    if match:
        return f"did you mean {folded[match[0]]!r}?"
    shown = ", ".join(options[:12]) + (", …" if len(options) > 12 else "")
    return f"choose one of: {shown}"
