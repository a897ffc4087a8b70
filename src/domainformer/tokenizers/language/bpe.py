"""FastBPETrainer: a byte-level BPE of your own text, from a list, a stream or files.

::

    texts, files ─pieces─▶ words (GPT-2's pattern), counted ─merges─▶ TrainedBPE ─▶ AutoTokenizer

Every byte has a token, so that any text can be encoded and comes back as it was. Words are counted
by the Rust library ``tokenizers`` on all cores, and merged by it on one, which is faster.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; byte level:
Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.fields.bytepair import BYTES, byte_level
from domainformer.tokenizers.language.backed import (
    TextTokenizerBase,
    check_entries,
    specials_of,
)
from domainformer.tokenizers.language.specials import SpecialTokens
from domainformer.tokenizers.language.streams import TextSource, batches
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

LEAST, MOST = 5_000, 100_000
_PARALLEL = "TOKENIZERS_PARALLELISM"
WhenShort = Literal["tell", "error", "reserve"]


class TrainingProgress(NamedTuple):
    """How far a training is.

    Args:
        stage: ``reading`` for every batch, ``merging`` once all is read, ``done``.
        texts: Read so far.
        characters: Read so far.
        seconds: Since the start.
    """

    stage: Literal["reading", "merging", "done"]
    texts: int
    characters: int
    seconds: float


@dataclass(frozen=True)
class TrainingFacts:
    """What a BPE was trained on, and whether it has the size that was asked for.

    Args:
        requested: Entries asked for.
        learned: Merges that the text gave.
        texts: That were read.
        characters: In these.
        words: Distinct words in these.
        min_frequency: Times that a pair had to occur to be merged.
        reserved: Entries that fill the vocabulary up and that no text makes.
        shortfall: Why the text cannot give the size that was asked for; None where it did.
    """

    requested: int
    learned: int
    texts: int
    characters: int
    words: int
    min_frequency: int
    reserved: int = 0
    shortfall: str | None = None


class TrainedBPE(TextTokenizerBase):
    """A byte-level BPE that `FastBPETrainer` has trained; see there.

    Args:
        backend: Made by the trainer.
        special_tokens: Their roles.
        facts: What it was trained on.
        parse_special_tokens: As in the trainer.
    """

    KIND: ClassVar[str] = "domainformer.bpe_tokenizer"

    def __init__(
        self,
        backend: Tokenizer,
        special_tokens: SpecialTokens,
        facts: TrainingFacts,
        *,
        parse_special_tokens: bool = False,
    ) -> None:
        super().__init__(backend, special_tokens, parse_special_tokens=parse_special_tokens)
        self.facts = facts

    @property
    def is_exact(self) -> bool:
        """Whether it has as many entries as were asked for."""
        return self.vocab_size == self.facts.requested

    def to_json(self) -> dict[str, Any]:
        """Size, special tokens, and what it was trained on."""
        return super().to_json() | {"training": asdict(self.facts)}

    def render(self) -> str:
        """Size and origin in a few lines, and why it is smaller where it is."""
        facts = self.facts
        read = f"{facts.characters:,} characters of {facts.texts:,} texts"
        made = f"{facts.learned:,} merges, {BYTES} bytes, {len(self.special_tokens.tokens)} special"
        lines = [
            f"{self.vocab_size:,} of {facts.requested:,} entries: {made}"
            + (f", {facts.reserved:,} reserved" if facts.reserved else ""),
            f"from {read}, {facts.words:,} distinct words",
        ]
        return "\n".join([*lines, *([facts.shortfall] if facts.shortfall else [])])

    @classmethod
    def _restore(cls, backend: Tokenizer, state: dict[str, Any]) -> Self:
        facts = TrainingFacts(**state["training"])
        parse = bool(state["parse_special_tokens"])
        return cls(backend, specials_of(state), facts, parse_special_tokens=parse)

    def __repr__(self) -> str:
        return f"TrainedBPE(vocab_size={self.vocab_size}, requested={self.facts.requested})"


class FastBPETrainer:
    """Trains a byte-level BPE of a wanted size; equal texts and settings give equal tokenizers.

    ::

        id    0 …                special tokens, in the order of `SpecialTokens.tokens`
              … + 255            the bytes
              … vocab_size - 1   merges, the most frequent pair first

    Args:
        vocab_size: Entries in all, special tokens and bytes included: 5,000 to 100,000.
        special_tokens: Their roles; none is ever a word of the text.
        min_frequency: Times that a pair must occur to be merged. 1 learns words that occur once.
        max_token_length: Most bytes of a token; None for no limit. Something like 32 keeps rows
            of ``=`` from becoming tokens.
        when_short: What happens where the text has too few different words for the size: ``tell``
            gives a smaller tokenizer whose `facts` say why, ``error`` raises, and ``reserve``
            fills the vocabulary up with ``<|reserved_0|>``, …, which no text makes.
        parse_special_tokens: Whether ``<|endoftext|>`` inside a text is the special token, as chat
            templates need it. As it is, a text stays text.

    Raises:
        TokenizerError: A setting is out of range, or a special token looks like a word.

    Example:
        >>> texts = ["the cat sat on the mat"] * 9
        >>> trained = FastBPETrainer(5_000).train(texts)
        >>> ids = trained.encode("the cat 🐈")
        >>> trained.decode(ids), trained.vocab_size, trained.is_exact
        ('the cat 🐈', 270, False)
        >>> print(trained.facts.shortfall)  # doctest: +ELLIPSIS
        the text cannot give 5,000 entries: ...
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        special_tokens: SpecialTokens | None = None,
        min_frequency: int = 2,
        max_token_length: int | None = None,
        when_short: WhenShort = "tell",
        parse_special_tokens: bool = False,
    ) -> None:
        self.vocab_size, self.min_frequency = vocab_size, min_frequency
        self.special_tokens = special_tokens or SpecialTokens()
        self.max_token_length, self.when_short = max_token_length, when_short
        self.parse_special_tokens = parse_special_tokens
        self._check()

    def train(
        self,
        texts: TextSource,
        *,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> TrainedBPE:
        """Train on texts, which are read once and never held all at the same time.

        Args:
            texts: An iterable of texts, such as a list or a generator; a `Path` in it, or in its
                place, stands for the texts of a file, a folder (its ``.txt`` files) or a pattern.
            progress: Called for each batch that was read, when merging begins, and at the end.
                Merging runs in one piece and has no steps to tell.

        Raises:
            TokenizerError: There is no text, something is no text, or it is too little and
                `when_short` is ``error``.
            DataError: A file cannot be read.
        """
        reading = _Reading(progress)
        trainer = self._rust_trainer()
        backend = byte_level(models.BPE())
        with _merging_on_one_core() as merge:
            backend.train_from_iterator(reading.batches(texts, merge), trainer)
        if not reading.texts:
            raise TokenizerError(
                "there is no text to train on", next_step="give texts, or Path('folder') of texts"
            )
        made = int(backend.get_vocab_size(with_added_tokens=True))
        facts = TrainingFacts(
            requested=self.vocab_size,
            learned=made - BYTES - len(self.special_tokens.tokens),
            texts=reading.texts,
            characters=reading.characters,
            words=int(trainer.get_word_count()),
            min_frequency=self.min_frequency,
            reserved=self.vocab_size - made if self.when_short == "reserve" else 0,
            shortfall=self._shortfall(made),
        )
        if facts.shortfall and self.when_short == "error":
            raise TokenizerError(facts.shortfall, next_step=self._remedy())
        if facts.reserved:
            backend = self._filled_up(backend, facts.reserved)
        reading.tell("done")
        parse = self.parse_special_tokens
        return TrainedBPE(backend, self.special_tokens, facts, parse_special_tokens=parse)

    def _rust_trainer(self) -> trainers.BpeTrainer:
        length = self.max_token_length
        limit: dict[str, Any] = {} if length is None else {"max_token_length": length}
        return trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=added(self.special_tokens.tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            **limit,
        )

    def _shortfall(self, made: int) -> str | None:
        if made >= self.vocab_size:
            return None
        times = "once" if self.min_frequency <= 1 else f"{self.min_frequency} times"
        return (
            f"the text cannot give {self.vocab_size:,} entries: after {made:,} no two neighbours "
            f"within a word occur {times} or more"
        )

    def _remedy(self) -> str:
        less = ", min_frequency=1" if self.min_frequency > 1 else ""
        return f"give more text, ask for fewer entries{less}, or take when_short='reserve'"

    def _filled_up(self, backend: Tokenizer, count: int) -> Tokenizer:
        """The same tokenizer with entries that no merge makes."""
        model = json.loads(backend.to_str())["model"]
        vocab: dict[str, int] = model["vocab"]
        # A special token may have such a name already: an entry is one more in any case.
        numbered = (f"<|reserved_{number}|>" for number in range(count + len(vocab)))
        names = [name for name in numbered if name not in vocab]
        for number in range(count):
            vocab[names[number]] = len(vocab)
        merges = [(left, right) for left, right in model["merges"]]
        filled = byte_level(models.BPE(vocab=vocab, merges=merges))
        filled.add_special_tokens(added(self.special_tokens.tokens))
        return filled

    def _check(self) -> None:
        check_entries(self.vocab_size, LEAST, MOST, less="take CharacterLevelTokenizer for less")
        special = len(self.special_tokens.tokens)
        if special + BYTES > self.vocab_size:
            raise TokenizerError(
                f"{self.vocab_size:,} entries have no room for the special tokens",
                why=f"these are {special:,}, and {BYTES} bytes need an entry each",
                next_step="ask for more entries, or name fewer special tokens",
            )
        for name in ("min_frequency", "max_token_length"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise TokenizerError(f"{name} is at least 1, but is {value}")
        if self.when_short not in get_args(WhenShort):
            raise TokenizerError(
                f"there is no when_short={self.when_short!r}",
                next_step=nearest(self.when_short, get_args(WhenShort)),
            )
        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
        for token in self.special_tokens.tokens:
            if len(splitter.pre_tokenize_str(token)) < 2:
                raise TokenizerError(
                    f"the special token {token!r} looks like a word",
                    why="the text could make it, with the same id",
                    next_step=f"spell it <|{token.strip('<|>[]') or 'name'}|>",
                )


class _Reading:
    """Counts what passes on its way to the trainer."""

    def __init__(self, progress: Callable[[TrainingProgress], None] | None) -> None:
        self.texts = self.characters = 0
        self._progress, self._start = progress, time.monotonic()

    def batches(self, texts: TextSource, when_read: Callable[[], None]) -> Iterator[list[str]]:
        for batch in batches(texts):
            self.texts += batch.texts
            self.characters += batch.characters
            yield batch.pieces
            self.tell("reading")
        when_read()
        self.tell("merging")

    def tell(self, stage: Literal["reading", "merging", "done"]) -> None:
        if self._progress is not None:
            seconds = time.monotonic() - self._start
            self._progress(TrainingProgress(stage, self.texts, self.characters, seconds))


@contextlib.contextmanager
def _merging_on_one_core() -> Iterator[Callable[[], None]]:
    """Let ``tokenizers`` count on all cores, but merge on one; yields what changes over.

    It parts the work of every merge, mostly some microseconds, among all cores, and waits for them.
    Merging on one core takes about half of the processor's time, and on a busy machine a fraction
    of the seconds; the merges are the same. Its only switch is a variable of the environment, which
    is there from the start, so that no thread meets an environment that grows.
    """
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true" if before is None else before

    def change_over() -> None:
        os.environ[_PARALLEL] = "false"

    try:
        yield change_over
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before


def added(tokens: Iterable[str]) -> list[AddedToken]:
    """Special tokens as ``tokenizers`` takes them."""
    return [AddedToken(token, special=True, normalized=False) for token in tokens]
