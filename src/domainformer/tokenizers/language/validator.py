"""TokenizerValidator: whether a text tokenizer keeps its promises, and fits the model.

::

    tokenizer, or its file ─▶ view ─▶ seven checks ─▶ TokenizerValidation
                                      on a corpus        ├─▶ render()   a table
                                      from all of        ├─▶ to_json()
                                      Unicode            └─▶ or one error that lists all failures

For tokenizers of events, which promise other things, there is ``tokenizers/inspection``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainformer.errors import TokenizerError
from domainformer.tokenizers.language import text_checks as checks
from domainformer.tokenizers.language.text_checks import TextCheck
from domainformer.tokenizers.language.unicode_corpus import UNICODE_CORPUS
from domainformer.tokenizers.language.view import TextView, view_of

_MARKS = {
    "pass": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "bold red"),
    "skip": ("–", "dim"),
}


@dataclass(frozen=True)
class TokenizerValidation:
    """What was checked of a text tokenizer, and what was found.

    Args:
        tokenizer: Its class.
        size: ``len(tokenizer)``.
        checks: One per promise, in the order of their tables.
        strict: Whether warnings counted as failures.
    """

    tokenizer: str
    size: int
    checks: tuple[TextCheck, ...]
    strict: bool = False

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def exit_code(self) -> int:
        """0, or 1 where a check failed."""
        return 0 if self.passed else 1

    @property
    def failures(self) -> tuple[TextCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "passed": self.passed,
            "tokenizer": self.tokenizer,
            "size": self.size,
            "strict": self.strict,
            "checks": [asdict(check) for check in self.checks],
        }

    def render(self) -> RenderableType:
        """A table for a terminal."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("found", overflow="fold")
        for check in self.checks:
            told = Text(check.reason)
            for example in check.examples:
                told.append(f"\n{example}", style="dim")
            if check.remedy and check.status in ("warn", "fail"):
                told.append(f"\nnext: {check.remedy}")
            mark, style = _MARKS[check.status]
            table.add_row(Text(check.name), Text(mark, style=style), told)
        count = len(self.failures)
        verdict = f"{count} of {len(self.checks)} checks failed" if count else "no check failed"
        return Group(Text(f"{self.tokenizer}, {self.size:,} ids: {verdict}"), table)


class TokenizerValidator:
    """Checks any text tokenizer: of transformers (both backends), `tokenizers`, or our own.

    Example:
        >>> from domainformer.tokenizers import CharacterTokenizer
        >>> report = TokenizerValidator.validate(CharacterTokenizer.ascii(), 98)
        >>> report.passed, [check.name for check in report.checks if check.status == "warn"]
        (True, ['special tokens', 'round trip'])
        >>> TokenizerValidator.validate(CharacterTokenizer.ascii(), 60, strict=True)
        Traceback (most recent call last):
        ...
        domainformer.errors.TokenizerError: the tokenizer fails 3 of 7 checks
          where: CharacterTokenizer, 98 ids
          why:   vocabulary size: it has 98 ids, expected were 60; special tokens: ...
    """

    @classmethod
    def validate(
        cls,
        tokenizer: Any,
        expected_vocab_size: int | None = None,
        *,
        strict: bool = False,
        rows: int | None = None,
        model: Any = None,
        texts: Sequence[str] = (),
        raises: bool = True,
    ) -> TokenizerValidation:
        """Check size, special tokens, round trip, id range, offsets, batches and embedding rows.

        Args:
            tokenizer: Of transformers, `tokenizers` or this library.
            expected_vocab_size: Of the model's configuration; None takes any size.
            strict: Count warnings (a lossy round trip, no padding token, unused ids) as failures,
                and raise an error that lists all failures instead of returning the table.
            rows: Rows of the input embedding, where they are known.
            model: Asked for its input embedding where ``rows`` is None.
            texts: Looked at beside the Unicode corpus; your own, best of all.
            raises: Whether strictness raises; otherwise it returns the table, too.

        Raises:
            TokenizerError: This is no text tokenizer; or, strictly, a check failed or warned.
        """
        view = view_of(tokenizer)
        rows = rows if rows is not None or model is None else embedding_rows(model)
        corpus = {**UNICODE_CORPUS, **{f"text {i}": text for i, text in enumerate(texts)}}
        promises: dict[str, Callable[[], TextCheck]] = {
            "vocabulary size": lambda: checks.check_size(view, expected_vocab_size, rows),
            "special tokens": lambda: checks.check_specials(view),
            "round trip": lambda: checks.check_round_trip(view, corpus),
            "id range": lambda: checks.check_id_range(view, corpus),
            "offsets": lambda: checks.check_offsets(view, corpus),
            "batch equals single": lambda: checks.check_batch(view, corpus),
            "embedding rows": lambda: checks.check_rows(view, rows),
        }
        found = [_told(name, check) for name, check in promises.items()]
        if strict:
            found = [
                replace(check, status="fail") if check.status == "warn" else check
                for check in found
            ]
        report = TokenizerValidation(view.name, view.size, tuple(found), strict)
        if strict and raises and not report.passed:
            raise _error(view, report)
        return report


def _told(name: str, check: Callable[[], TextCheck]) -> TextCheck:
    """What a check found; a foreign tokenizer may raise anything, which is a finding, too."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001
        return TextCheck(name, "fail", f"it raised {type(error).__name__}: {error}")


def embedding_rows(model: Any) -> int:
    """Rows of a model's input embedding.

    Raises:
        TokenizerError: The model does not say what its input embedding is.
    """
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError) as error:
        raise TokenizerError(
            f"{type(model).__name__} does not say which its input embedding is",
            why=f"get_input_embeddings: {type(error).__name__}",
            next_step="give the number of its rows: rows=…",
        ) from error


def _error(view: TextView, report: TokenizerValidation) -> TokenizerError:
    remedies = [check.remedy for check in report.failures if check.remedy]
    return TokenizerError(
        f"the tokenizer fails {len(report.failures)} of {len(report.checks)} checks",
        where=f"{view.name}, {view.size:,} ids",
        why="; ".join(f"{check.name}: {check.reason}" for check in report.failures),
        next_step="; ".join(remedies) or "validate without strict, for a table with examples",
    )
