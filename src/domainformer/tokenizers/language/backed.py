"""TextTokenizerBase: what tokenizers on a Hugging Face ``tokenizers.Tokenizer`` have in common.

::

    backend  ──encode, decode──▶ ids                without transformers: light enough for a worker
       │
       ├─────to_hf─────────────▶ padding, truncation, masks, offset_mapping, word_ids
       └─────save_pretrained───▶ tokenizer.json, tokenizer_config.json, text_tokenizer.json

The folder is what `AutoTokenizer.from_pretrained` reads, with equal ids.
"""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from domainformer.artifacts import fingerprint, staged_directory, write_json, write_text
from domainformer.errors import ArtifactError, FingerprintError, TokenizerError
from domainformer.tokenizers import hub
from domainformer.tokenizers.hub import CONFIG_FILE, TOKENIZER_FILE
from domainformer.tokenizers.language.specials import SpecialTokens
from domainformer.version import __version__
from tokenizers import Encoding, Tokenizer

if TYPE_CHECKING:
    from domainformer.tokenizers.hub import HFTokenizer

VERSION = 1
STATE_FILE = "text_tokenizer.json"
FILES = (TOKENIZER_FILE, CONFIG_FILE, STATE_FILE)
REMEDY = "restore the folder from a copy, or make and save the tokenizer again"


class TextTokenizerBase(abc.ABC):
    """A `tokenizers.Tokenizer` with named special tokens, and a folder of its own.

    Args:
        backend: Its vocabulary begins with the special tokens.
        special_tokens: Their roles.
        parse_special_tokens: Whether ``<|endoftext|>`` *inside a text* is the special token, as
            chat templates need it, or text like all other, which nobody can smuggle in.
    """

    KIND: ClassVar[str]

    def __init__(
        self, backend: Tokenizer, special_tokens: SpecialTokens, *, parse_special_tokens: bool
    ) -> None:
        # The file of a backend does not keep this; tokenizer_config.json does.
        backend.encode_special_tokens = not parse_special_tokens
        self.backend, self.special_tokens = backend, special_tokens
        self.parse_special_tokens = parse_special_tokens

    # ── text and ids ─────────────────────────────────────────────────────────────────────────

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any that begin or end it.

        Raises:
            TokenizerError: The text holds a lone surrogate, which no UTF-8 can spell.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts, on all cores.

        Raises:
            TokenizerError: As `encode`; the text is named by its number.
        """
        return [encoding.ids for encoding in self.encodings(texts)]

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids, offsets in characters and words of several texts.

        Raises:
            TokenizerError: As `encode_batch`.
        """
        if isinstance(texts, str):
            raise TokenizerError("a batch is a list of texts, but this is one", next_step="[text]")
        try:
            found: list[Encoding] = self.backend.encode_batch(list(texts), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise not_text(texts) from error
        return found

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: An id is outside the vocabulary.
        """
        given = [int(index) for index in ids]
        for place, index in enumerate(given):
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(
                    f"the id {index} is outside the vocabulary of {self.vocab_size:,}",
                    where=f"position {place}",
                    next_step="decode with the tokenizer that the model was trained with",
                )
        text: str = self.backend.decode(given, skip_special_tokens=skip_special_tokens)
        return text

    # ── what it knows ────────────────────────────────────────────────────────────────────────

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def __len__(self) -> int:
        return self.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        """Short name of all that decides ids: equal tokenizers have equal fingerprints."""
        return self._fingerprint(self.backend.to_str())

    def _fingerprint(self, backend: str) -> str:
        # Parsed and written again: the spelling of the file must not matter, its meaning does.
        canonical = json.dumps(json.loads(backend), sort_keys=True).encode()
        return fingerprint(
            {
                "kind": self.KIND,
                "backend": hashlib.sha256(canonical).hexdigest(),
                "special_tokens": self.special_tokens.to_json(),
                "parse_special_tokens": self.parse_special_tokens,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data on how it was made, for reports and for the file beside it."""
        return {"vocab_size": self.vocab_size, "special_tokens": self.special_tokens.to_json()}

    def to_hf(self) -> HFTokenizer:
        """A `transformers` tokenizer with equal ids; a copy, so changes to it stay its own.

        Example: ``tokenizer.to_hf()(texts, padding=True, return_offsets_mapping=True)``.
        """
        return hub.fast_tokenizer(self.backend, self._settings())

    def _settings(self) -> dict[str, Any]:
        extra = {"extra_special_tokens": list(self.special_tokens.extra)}
        return {
            **self.special_tokens.by_role,
            **(extra if self.special_tokens.extra else {}),
            "split_special_tokens": not self.parse_special_tokens,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        }

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the tokenizer as a folder that `AutoTokenizer.from_pretrained` reads, too.

        Raises:
            ArtifactError: The folder exists, or cannot be written; nothing partial is left.
        """
        meta = {"kind": self.KIND, "fingerprint": self.fingerprint}
        with staged_directory(Path(folder), overwrite=overwrite, meta=meta) as staging:
            self.write_files(staging)
        return Path(folder)

    def write_files(self, folder: Path) -> None:
        """Write the files into an existing folder, without a manifest."""
        write_text(folder / TOKENIZER_FILE, self.backend.to_str(pretty=True) + "\n")
        write_json(
            folder / CONFIG_FILE,
            {"tokenizer_class": "PreTrainedTokenizerFast", **self._settings()},
        )
        state = {
            "kind": self.KIND,
            "version": VERSION,
            "domainformer": __version__,
            "fingerprint": self.fingerprint,
            "parse_special_tokens": self.parse_special_tokens,
            **self.to_json(),
        }
        write_json(folder / STATE_FILE, state)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read a tokenizer that `save_pretrained` has written.

        Raises:
            ArtifactError: The folder is missing, incomplete, damaged or no such tokenizer.
            FingerprintError: Its files come from different tokenizers.
        """
        hub.verify_files(Path(folder), FILES)
        return cls.read_files(Path(folder))

    @classmethod
    def read_files(cls, folder: Path) -> Self:
        """Read the tokenizer from its files, without a look at the folder's manifest.

        Raises:
            ArtifactError: A file is missing, unreadable or of a newer version.
            FingerprintError: They come from different tokenizers.
        """
        state = read_state(folder, cls.KIND)
        backend = hub.read_backend(folder / TOKENIZER_FILE)
        try:
            tokenizer = cls._restore(backend, state)
            expected = state["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(folder / STATE_FILE, error) from error
        if tokenizer.fingerprint != expected:
            raise FingerprintError(
                "the files of the tokenizer were not made together",
                where=str(folder),
                why=f"{STATE_FILE} names {expected}, the files make {tokenizer.fingerprint}",
                next_step=REMEDY,
            )
        return tokenizer

    @classmethod
    @abc.abstractmethod
    def _restore(cls, backend: Tokenizer, state: dict[str, Any]) -> Self:
        """A tokenizer of its backend and what ``write_files`` has written beside it."""


def read_state(folder: Path, kind: str) -> dict[str, Any]:
    """What ``write_files`` has written beside the backend.

    Raises:
        ArtifactError: The file is missing, unreadable, of another kind or of a newer version.
    """
    path = folder / STATE_FILE
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = (state["kind"], state["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    if found != (kind, VERSION):
        raise ArtifactError(
            f"{path} holds {found[0]!r} of version {found[1]!r}",
            why=f"{kind!r} of version {VERSION} was asked for, by domainformer {__version__}",
            next_step="read it with the class and the version of domainformer that wrote it",
        )
    return state


def specials_of(state: dict[str, Any]) -> SpecialTokens:
    """The special tokens that a state names."""
    return SpecialTokens(**state["special_tokens"])


def check_entries(size: object, least: int, most: int, *, less: str | None = None) -> None:
    """Whether a vocabulary can have so many entries; ``less`` says what to take for fewer.

    Raises:
        TokenizerError: It cannot, or this is no whole number.
    """
    if not isinstance(size, int) or isinstance(size, bool):
        raise TokenizerError(f"the number of entries is a whole number, but is {size!r}")
    if not least <= size <= most:
        raise TokenizerError(
            f"a vocabulary of {size:,} entries cannot be made",
            why=f"it is {least:,} to {most:,} entries",
            next_step=less if size < least else None,
        )


def not_text(texts: Sequence[Any], first: int = 0) -> TokenizerError:
    """The error of a batch in which something is no text: the first such thing is named."""
    for number, text in enumerate(texts, start=first):
        if not isinstance(text, str):
            return TokenizerError(
                f"text {number} is {type(text).__name__}", next_step="give texts, as str"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return TokenizerError(
                f"text {number} holds a lone surrogate, U+{ord(text[error.start]):04X}",
                where=f"character {error.start + 1:,}",
                why="it is half of a character, and cannot be written as UTF-8",
                next_step="read the text with errors='replace', or drop such characters",
            )
    return TokenizerError("the texts cannot be encoded")


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be read", why=f"{type(error).__name__}: {error}", next_step=REMEDY
    )
