"""AdaptiveTokenizer: a tokenizer for a vocabulary size and a text, and the reasons for it.

::

    own file named? ─yes─▶ own                  model named? ─yes─▶ pretrained
           │ no                                       │ no
           └──────────────────────────────────────────┴─▶ bpe, if size and text allow ─▶ characters

Whoever names a file or a model means it: what goes wrong there is an error that names the next
tier, and only ``fallback=True`` takes that instead. A vocabulary size alone never decides for a
pretrained tokenizer; it suggests some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from domainformer.errors import ConfigError, DataError, DomainformerError, TokenizerError, nearest
from domainformer.tokenizers.language import adaptive_files as files
from domainformer.tokenizers.language.adaptive_tiers import (
    Asked,
    Found,
    describe_refusal,
    specials_named,
    try_tier,
)
from domainformer.tokenizers.language.known import suggest
from domainformer.tokenizers.language.streams import TextSource
from domainformer.tokenizers.language.text_cache import repeatable
from domainformer.tokenizers.language.tiers import TIERS, Choice, Considered, Tier
from domainformer.tokenizers.language.view import TextView, view_of

if TYPE_CHECKING:
    from domainformer.tokenizers.hub import HFTokenizer


class AdaptiveTokenizer:
    """A tokenizer of whatever tier, used the same way, which knows why it was chosen.

    Made by `fit`, or read by `from_pretrained`.

    Args:
        tokenizer: What encodes: of transformers, or of this library.
        choice: Why it was chosen.

    Example:
        >>> texts = ["to be or not to be, that is the question"] * 3
        >>> tokenizer = AdaptiveTokenizer.fit(texts, 600)
        >>> tokenizer.choice.tier, tokenizer.vocab_size, tokenizer.decode(tokenizer.encode("to 🐈"))
        ('characters', 600, 'to 🐈')
        >>> print(tokenizer.choice.why_not("bpe"))
        a BPE has 5,000 to 100,000 entries, and 600 were asked for
    """

    def __init__(self, tokenizer: Any, choice: Choice) -> None:
        self.tokenizer, self.choice = tokenizer, choice
        self.view: TextView = view_of(tokenizer)

    @classmethod
    def fit(
        cls,
        texts: TextSource | str,
        vocab_size: int | None = None,
        *,
        model: str | Path | None = None,
        own: str | Path | None = None,
        tier: Tier | None = None,
        fallback: bool = False,
        offline: bool = False,
        cache: str | Path | None = None,
        special_tokens: Mapping[str, str] | None = None,
        min_frequency: int = 2,
        pattern: str | None = None,
    ) -> Self:
        """Choose a tier, make its tokenizer, and check that it keeps its promises.

        Args:
            texts: Of the training data: a path (file, folder or pattern), or texts.
            vocab_size: Of the model; may be left out where a model or a file is named.
            model: A folder with a model's tokenizer, or a hub id.
            own: A tokenizer file of your own (see `open_own_file`).
            tier: This tier or an error; None chooses.
            fallback: Go on with the next tier where the named model or file cannot be used.
            offline: Never ask the hub.
            cache: Folder for trained tokenizers, by the content of the texts.
            special_tokens: Role (pad, bos, eos, unk, sep, cls, mask) → token, for all tiers but
                the pretrained one, which has its own.
            min_frequency: Of pairs that a BPE merges.
            pattern: How an own tiktoken file cuts texts into words.

        Raises:
            ConfigError: Arguments that exclude each other, or too few.
            TokenizerError: No tier can give what was asked for; each says why.
            DataError: A text or file cannot be read.
        """
        _check(vocab_size, model, own, tier, special_tokens)
        if pattern is not None and own is None:
            raise ConfigError("pattern= is of a tiktoken file: name one with own=")
        specials_named(special_tokens or {})
        if not isinstance(min_frequency, int) or min_frequency < 1:
            raise ConfigError(f"min_frequency is at least 1, but is {min_frequency!r}")
        asked = Asked(
            texts=repeatable(texts),
            vocab_size=vocab_size,
            model=model,
            own=own,
            offline=offline,
            cache=None if cache is None else Path(cache),
            special_tokens=dict(special_tokens or {}),
            min_frequency=min_frequency,
            pattern=pattern,
        )
        found, said = _choose(asked, tier, fallback=fallback)
        size = view_of(found.tokenizer).size
        wanted = [] if vocab_size is None or model is not None else suggest(vocab_size)
        choice = Choice(
            considered=tuple(said[one] for one in TIERS),
            vocab_size=vocab_size,
            size=size,
            rows=found.rows,
            suggestions=tuple(suggestion.describe() for suggestion in wanted),
            notes=found.notes,
        )
        return cls(found.tokenizer, choice)

    # ── text and ids ─────────────────────────────────────────────────────────────────────────

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any that begin or end it."""
        return self.view.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts."""
        return self.view.encode_all(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        return self.view.decode(ids)

    @property
    def vocab_size(self) -> int:
        """Number of ids, with those of special tokens."""
        return self.choice.size

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def model_rows(self) -> int:
        """Rows that a model for it needs: those of its own model, or what was asked for.

        Both may exceed the ids, since models are padded; never fewer.
        """
        return max(self.vocab_size, self.choice.rows or self.choice.vocab_size or 0)

    def special_id(self, role: str) -> int | None:
        """The id of a special token by its role (pad, bos, eos, …), or None."""
        return self.view.specials().get(role, ("", None))[1]

    @property
    def fingerprint(self) -> str:
        """Short name of all that decides ids."""
        return files.fingerprint_of(self.tokenizer)

    def to_hf(self) -> HFTokenizer:
        """A tokenizer of transformers with equal ids."""
        return files.as_hf(self.tokenizer)

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder that `AutoTokenizer.from_pretrained` reads, too, with the choice.

        Raises:
            ArtifactError: The folder exists, or cannot be written; nothing partial is left.
        """
        files.save(Path(folder), self.tokenizer, self.choice, overwrite=overwrite)
        return Path(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` has written.

        Raises:
            ArtifactError: The folder is missing, incomplete, damaged or something else.
            FingerprintError: Its files come from different tokenizers.
        """
        return cls(*files.load(Path(folder)))

    def __repr__(self) -> str:
        return f"AdaptiveTokenizer({self.choice.tier!r}, vocab_size={self.vocab_size})"


def _choose(
    asked: Asked, tier: Tier | None, *, fallback: bool
) -> tuple[Found, dict[Tier, Considered]]:
    """The first tier in order that gives what was asked for, and what is said of each."""
    said: dict[Tier, Considered] = {}
    named: Tier | None = "own" if asked.own else "pretrained" if asked.model else None
    order: list[Tier] = [tier] if tier else [*([named] if named else []), "bpe", "characters"]
    found: Found | None = None
    for one in order:
        try:
            found = try_tier(one, asked)
        except DomainformerError as error:
            if isinstance(error, DataError) and one != named:
                raise  # a text that cannot be read: no tier is to blame
            said[one] = Considered(one, "refused", describe_refusal(error))
            if one == named and not (fallback and asked.vocab_size) and tier is None:
                raise _not_as_named(error, asked) from error
            continue
        said[one] = Considered(one, "chosen", found.why)
        break
    if found is None:
        raise _none(asked, said)
    for one in TIERS:
        said.setdefault(one, _left(one, asked, tier))
    return found, said


def _left(one: Tier, asked: Asked, tier: Tier | None) -> Considered:
    """What is said of a tier that was not tried."""
    if tier is not None:
        return Considered(one, "not asked for", f"the tier {tier} was")
    if one == "own" and not asked.own:
        return Considered(one, "not asked for", "no file was named (own=)")
    if one == "pretrained" and not asked.model:
        many = 0 if asked.vocab_size is None else len(suggest(asked.vocab_size))
        size = f"; {many} known ones have the size, and a size alone does not decide"
        return Considered(one, "not asked for", "no model was named (model=)" + size * bool(many))
    longer = " without longer rows" if one == "characters" else ""
    return Considered(one, "not needed", f"what was chosen gives what was asked for{longer}")


def _not_as_named(error: DomainformerError, asked: Asked) -> TokenizerError:
    """The error of a named model or file, with the next tier offered."""
    size = asked.vocab_size
    named = "own" if asked.own else "model"
    if size is None:
        offer = f"leave {named}= out and give a vocab_size, for a tokenizer of your texts"
    else:
        tier = "bpe" if 5_000 <= size <= 100_000 else "characters"
        offer = f"fallback=True (--fallback) for the next tier, {tier}, from your texts"
    step = "; or ".join(part for part in (error.next_step, offer) if part)
    return TokenizerError(error.what, where=error.where, why=error.why, next_step=step)


def _none(asked: Asked, said: Mapping[Tier, Considered]) -> TokenizerError:
    size = "any size" if asked.vocab_size is None else f"{asked.vocab_size:,} entries"
    return TokenizerError(
        f"no tier gives a tokenizer of {size}",
        why="; ".join(f"{one.tier}: {one.why}" for one in said.values()),
        next_step="change vocab_size, or name a model (model=) or a file (own=)",
    )


def _check(
    vocab_size: int | None,
    model: str | Path | None,
    own: str | Path | None,
    tier: Tier | None,
    special_tokens: Mapping[str, str] | None,
) -> None:
    if tier is not None and tier not in get_args(Tier):
        raise ConfigError(f"there is no tier {tier!r}", next_step=nearest(tier, TIERS))
    if model is not None and own is not None:
        raise ConfigError("a model and a file of your own exclude each other: give one of them")
    for name, needed, given in (("pretrained", "model", model), ("own", "own", own)):
        if tier == name and given is None:
            raise ConfigError(f"the tier {name} needs {needed}=")
        if given is not None and tier not in (None, name):
            raise ConfigError(f"{needed}= is of no use for the tier {tier}")
    if vocab_size is None and model is None and own is None:
        raise ConfigError(
            "the size of the vocabulary is missing",
            next_step="give vocab_size, or name a model or a file that has one",
        )
    if vocab_size is not None and (not isinstance(vocab_size, int) or vocab_size < 1):
        raise ConfigError(f"vocab_size must be a whole number of at least 1, but is {vocab_size!r}")
    if model is not None and special_tokens:
        raise ConfigError(
            "a pretrained tokenizer has its own special tokens",
            next_step="leave special_tokens out, or add them to the tokenizer and the model",
        )
