"""A question, and how an answer becomes a value: asked again, with the reason, until it is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domainformer.errors import ConfigError, InputError, nearest

MOST_QUESTIONS = 6


@dataclass(frozen=True)
class Question:
    """One question with the answer that was found in the data.

    Args:
        key: Names the question, and the option that answers it beforehand.
        text: What is asked.
        default: What Enter means; None: nothing was found, and an answer is needed.
        why: Where the default comes from, or why there is none.
        parse: An answer to its value; raises an :class:`~domainformer.errors.InputError` that says
            what is wrong with it.
        choices: Answers to show, where there are few.

    Example:
        >>> question = Question("size", "How long?", "2", "it is enough", int)
        >>> question.key, question.parse(question.default)
        ('size', 2)
    """

    key: str
    text: str
    default: str | None
    why: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()


Ask = Callable[[Question, int], str]
"""Puts a question (and its number, from 1) to somebody; "" means the default."""


@dataclass(frozen=True)
class Answer:
    """A value, and where it came from.

    Args:
        value: As the question's ``parse`` made it.
        source: In words, for the comment in the file.
    """

    value: Any
    source: str


class Interview:
    """Asks questions in order and keeps count.

    Args:
        ask: Who is asked; None: nobody, and the defaults are taken.
        tell: Receives the reason where an answer cannot be taken.
        given: Answers that were given beforehand, by the question's key.

    Example:
        >>> words = iter(["many", "3"])
        >>> interview = Interview(lambda question, number: next(words), print)
        >>> question = Question("steps", "How many?", "2", "few are enough", whole_number)
        >>> interview(question).value
        'many' is no whole number
        3
    """

    def __init__(
        self,
        ask: Ask | None,
        tell: Callable[[str], None],
        given: Mapping[str, str | None] | None = None,
    ) -> None:
        self.ask, self.tell = ask, tell
        self.given = {key: value for key, value in (given or {}).items() if value is not None}
        self.count = 0

    def __call__(self, question: Question) -> Answer:
        """The value of an answer that can be taken.

        Raises:
            InputError: What was given beforehand cannot be taken; nobody can be asked and there is
                no default; or the answers ended.
        """
        if question.key in self.given:
            return Answer(question.parse(self.given[question.key]), "you gave it")
        if self.ask is None:
            return self._default(question)
        self.count += 1
        while True:
            text = self._heard(self.ask, question).strip()
            if not text and question.default is None:
                self.tell(f"an answer is needed: {question.why}")
                continue
            try:
                if not text or text == question.default:
                    return self._default(question)
                return Answer(question.parse(text), "your answer")
            except InputError as error:
                self.tell(reason(error))

    def _heard(self, ask: Ask, question: Question) -> str:
        try:
            return ask(question, self.count)
        except EOFError:
            raise ConfigError(
                f"the answers ended at the question {question.text!r}",
                why="nothing was written",
                next_step="answer all questions, or pass --yes to take what is found in the data",
            ) from None

    @staticmethod
    def _default(question: Question) -> Answer:
        if question.default is None:
            raise ConfigError(
                question.text,
                why=question.why,
                next_step=f"pass --{question.key}, or answer in a terminal without --yes",
            )
        return Answer(question.parse(question.default), question.why)


def reason(error: InputError) -> str:
    """An error as one line to answer with."""
    parts = (error.what, error.why, error.next_step)
    return "; ".join(part for part in parts if part)


def one_of(choices: Mapping[str, Any]) -> Callable[[str], Any]:
    """A parser of one of a few words; case does not matter, and a beginning is enough.

    Example:
        >>> one_of({"time": 1, "entity": 2})("Ent")
        2
    """

    def parse(text: str) -> Any:
        fitting = [name for name in choices if name.startswith(text.lower())]
        if text.lower() in choices:
            return choices[text.lower()]
        if len(fitting) == 1:
            return choices[fitting[0]]
        raise ConfigError(f"{text!r} is no answer", next_step=nearest(text, choices))

    return parse


def whole_number(text: str) -> int:
    """A whole number, with or without separators.

    Raises:
        ConfigError: It is none.

    Example:
        >>> whole_number("4,000_000")
        4000000
    """
    plain = text.replace(",", "").replace("_", "")
    # isdecimal takes digits of all scripts, as int does; seventeen of them are more than enough.
    if not plain.isdecimal() or len(plain) > 17:
        raise ConfigError(f"{text!r} is no whole number")
    return int(plain)


def tokens_to_train(sizes: Mapping[str, int]) -> Callable[[str], int]:
    """A parser of a named length of training, or of its number of tokens."""

    def parse(text: str) -> int:
        if text[:1].isdecimal():
            tokens = whole_number(text)
            if tokens < 1:
                raise ConfigError("a training needs at least one token")
            return tokens
        value: int = one_of(sizes)(text)
        return value

    return parse
