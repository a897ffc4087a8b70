"""How each tier of `AdaptiveTokenizer` makes its tokenizer, or refuses and says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.data.text import Document
from domainformer.errors import DomainformerError, TokenizerError, nearest
from domainformer.tokenizers.language import bpe, character_level
from domainformer.tokenizers.language.bpe import FastBPETrainer, TrainedBPE
from domainformer.tokenizers.language.character_level import CharacterLevelTokenizer
from domainformer.tokenizers.language.own_files import open_own_file
from domainformer.tokenizers.language.pretrained import load_pretrained
from domainformer.tokenizers.language.specials import SpecialTokens
from domainformer.tokenizers.language.text_cache import cached
from domainformer.tokenizers.language.text_checks import check_size
from domainformer.tokenizers.language.tiers import Tier
from domainformer.tokenizers.language.validator import TokenizerValidator
from domainformer.tokenizers.language.view import ROLES, view_of


@dataclass(frozen=True)
class Asked:
    """What `AdaptiveTokenizer.fit` was asked for; see there."""

    texts: Path | Sequence[str | Path | Document]
    vocab_size: int | None
    model: str | Path | None
    own: str | Path | None
    offline: bool
    cache: Path | None
    special_tokens: Mapping[str, str]
    min_frequency: int
    pattern: str | None


@dataclass(frozen=True)
class Found:
    """A tokenizer of one tier.

    Args:
        tokenizer: Of transformers or of this library.
        why: Why this tier, as a sentence.
        rows: Rows of the embedding of its model.
        notes: What a user should know.
    """

    tokenizer: Any
    why: str
    rows: int | None = None
    notes: tuple[str, ...] = ()


def try_tier(tier: Tier, asked: Asked) -> Found:
    """The tokenizer of a tier.

    Raises:
        DomainformerError: The tier cannot give what was asked for.
    """
    makers: dict[Tier, Callable[[Asked], Found]] = {
        "pretrained": _pretrained,
        "bpe": _bpe,
        "characters": _characters,
        "own": _own,
    }
    found = makers[tier](asked)
    report = TokenizerValidator.validate(found.tokenizer)
    if not report.passed:
        failures = report.failures
        raise TokenizerError(
            f"its tokenizer breaks {len(failures)} of its promises",
            why="; ".join(f"{check.name}: {check.reason}" for check in failures),
            next_step="look at it with `domainformer tokenizer validate`",
        )
    return found


def describe_refusal(error: DomainformerError) -> str:
    """An error as one sentence for the list of reasons."""
    return error.what + (f" ({error.why})" if error.why else "")


def _pretrained(asked: Asked) -> Found:
    assert asked.model is not None
    loaded = load_pretrained(asked.model, offline=asked.offline)
    _check_size(loaded.tokenizer, asked, loaded.rows, f"the tokenizer of {loaded.name}")
    sizes = f"{loaded.size:,} tokens"
    sizes += f", {loaded.rows:,} rows" if loaded.rows else ""
    why = f"{loaded.name} was named, and found in the {loaded.origin}: {sizes}"
    if loaded.origin == "hub":
        why = why.replace("found in the hub", "downloaded")
    return Found(loaded.tokenizer, why, loaded.rows, loaded.notes)


def _own(asked: Asked) -> Found:
    assert asked.own is not None
    own = open_own_file(asked.own, pattern=asked.pattern, special_tokens=asked.special_tokens)
    tokenizer = own.to_hf()
    _check_size(tokenizer, asked, None, f"the {own.kind} {own.path}")
    return Found(tokenizer, f"{own.path} was named: a {own.kind}", None, own.notes)


def _check_size(tokenizer: Any, asked: Asked, rows: int | None, subject: str) -> None:
    check = check_size(view_of(tokenizer), asked.vocab_size, rows)
    if check.status == "fail":
        raise TokenizerError(
            f"{subject} does not have the size",
            why=check.reason + (f"; its model has {rows:,} rows" if rows else ""),
            next_step="leave vocab_size out to take it as it is",
        )


def _bpe(asked: Asked) -> Found:
    size = _within("a BPE", asked, bpe.LEAST, bpe.MOST)
    trainer = FastBPETrainer(
        size, special_tokens=specials_named(asked.special_tokens), min_frequency=asked.min_frequency
    )
    settings = _settings(asked) | {"min_frequency": asked.min_frequency}
    trained, kept = cached(
        TrainedBPE, asked.cache, "bpe", settings, asked.texts, lambda: trainer.train(asked.texts)
    )
    if not trained.is_exact:
        less = trained.vocab_size
        step = f"vocab_size={less} for a BPE" if less >= bpe.LEAST else "give more text"
        raise TokenizerError(str(trained.facts.shortfall), next_step=step)
    facts = trained.facts
    why = (
        f"the text gives {size:,} entries: {facts.words:,} distinct words in {facts.texts:,} texts"
    )
    return Found(trained, why, None, (kept,) if kept else ())


def _characters(asked: Asked) -> Found:
    size = _within("a vocabulary of characters", asked, character_level.LEAST, character_level.MOST)
    specials = specials_named(asked.special_tokens)
    made, kept = cached(
        CharacterLevelTokenizer,
        asked.cache,
        "characters",
        _settings(asked),
        asked.texts,
        lambda: CharacterLevelTokenizer(size, asked.texts, special_tokens=specials),
    )
    how = "become their bytes" if made.unknown == "bytes" else "become the unknown token"
    why = f"{size:,} characters by their frequency, then Unicode's blocks; others {how}"
    return Found(made, why, None, (kept,) if kept else ())


def _within(what: str, asked: Asked, least: int, most: int) -> int:
    size = asked.vocab_size
    if size is None or not least <= size <= most:
        given = "no size was given" if size is None else f"{size:,} were asked for"
        raise TokenizerError(f"{what} has {least:,} to {most:,} entries, and {given}")
    return size


def specials_named(named: Mapping[str, str]) -> SpecialTokens:
    """The special tokens that are named by their roles, beside the usual ones.

    Raises:
        TokenizerError: There is no such role, or something is no special token.
    """
    for role in named:
        if role not in ROLES:
            raise TokenizerError(
                f"there is no special token {role!r}", next_step=nearest(role, ROLES)
            )
    roles: dict[str, Any] = dict(named)
    return SpecialTokens(**roles)


def _settings(asked: Asked) -> dict[str, object]:
    return {"vocab_size": asked.vocab_size, "special_tokens": dict(asked.special_tokens)}
