"""CharacterTokenizer: one id per ASCII character, exact both ways, at the speed of a table.

::

    0                  <|endoftext|>: between documents, and padding; never made by text
    1 … vocab_size-1   the characters of the alphabet

Saved, it is a folder that `AutoTokenizer.from_pretrained` reads, with equal ids (``files.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from domainformer.artifacts import fingerprint, staged_directory
from domainformer.data.text_policy import (
    REPLACEMENT,
    Policy,
    Unknown,
    check_unknown,
    describe_character,
    foreign_characters,
    locate,
    policy_characters,
)
from domainformer.errors import FingerprintError, TokenizerError
from domainformer.tokenizers import hub
from domainformer.tokenizers.language import files
from domainformer.tokenizers.language.files import END_OF_TEXT, KIND
from tokenizers import Tokenizer

_UNKNOWN = 255  # no id: an alphabet of ASCII has at most 128 characters
_DEFAULT: Policy = "printable+newline+tab"


class CharacterTokenizer:
    """Turns ASCII text into one id per character, and back without loss.

    Args:
        alphabet: The characters in the order of their ids, from 1 on; a string will do.
        policy: Which characters an alphabet may have; see :mod:`domainformer.data.text_policy`.
        unknown: What `encode` does with a character that is not in the alphabet: ``error``,
            ``replace`` (by ``?``, which must be in the alphabet) or ``drop``.

    Raises:
        TokenizerError: The alphabet is empty, repeats a character, has an entry that is not one
            character of the policy, or lacks the ``?`` that replaces.
        ConfigError: No such policy or treatment.

    Example:
        >>> tokenizer = CharacterTokenizer.fit(["to be or not to be"])
        >>> tokenizer.encode("not"), tokenizer.decode([4, 5, 7]), tokenizer.vocab_size
        ([4, 5, 7], 'not', 8)
        >>> tokenizer.encode("note!")
        Traceback (most recent call last):
        ...
        domainformer.errors.TokenizerError: the alphabet does not have '!' U+0021 EXCLAMATION MARK
          where: line 1, column 5
          ...
    """

    eos_id: ClassVar[int] = 0
    """Ends a document."""
    pad_id: ClassVar[int] = 0
    """Fills rows up; the same as `eos_id`, since neither is ever part of a text."""

    def __init__(
        self, alphabet: Sequence[str], *, policy: Policy = _DEFAULT, unknown: Unknown = "error"
    ) -> None:
        self.alphabet = _checked(tuple(alphabet), policy, unknown)
        self.policy, self.unknown = policy, unknown
        codes = [ord(char) for char in self.alphabet]
        other = self.alphabet.index(REPLACEMENT) + 1 if unknown == "replace" else _UNKNOWN
        table = np.full(256, other, np.uint8)  # code point, at most 255 → id
        table[codes] = np.arange(1, len(codes) + 1)
        self._id_of_code, self._table = table, table.tobytes()
        self._code_of_id = np.array([0, *codes], np.uint8)

    @classmethod
    def fit(
        cls, texts: Iterable[str], *, policy: Policy = _DEFAULT, unknown: Unknown = "error"
    ) -> Self:
        """The alphabet of some texts: their distinct characters, sorted by code point.

        Args:
            texts: Training texts, normalised to the policy.
            policy: As in the class.
            unknown: As in the class; it also says what happens here to characters that the
                policy does not admit. ``replace`` adds ``?`` to the alphabet.

        Raises:
            TokenizerError: A character that the policy does not admit, where this is an error,
                or no characters at all.
        """
        admitted, found = policy_characters(policy), set[str]()
        check_unknown(unknown)
        for number, text in enumerate(texts):
            foreign = foreign_characters(text, admitted)
            if foreign and unknown == "error":
                where, char = locate(text, foreign, name=f"text {number}")
                raise TokenizerError(
                    f"the policy {policy} does not admit {describe_character(char)}",
                    where=where,
                    next_step="normalise the texts first (domainformer.normalise)",
                )
            found |= set(text) - foreign
        if unknown == "replace":
            found.add(REPLACEMENT)
        return cls(sorted(found), policy=policy, unknown=unknown)

    @classmethod
    def ascii(cls, policy: Policy = _DEFAULT, *, unknown: Unknown = "error") -> Self:
        """The whole alphabet of a policy, so that any normalised text can be encoded.

        Example:
            >>> CharacterTokenizer.ascii().vocab_size
            98
        """
        return cls(policy_characters(policy), policy=policy, unknown=unknown)

    # ── text and ids ─────────────────────────────────────────────────────────────────────────

    def encode(self, text: str) -> list[int]:
        """The ids of a text; what looks like a special token is text.

        Raises:
            TokenizerError: A character is not in the alphabet, and this is an error.
        """
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> npt.NDArray[np.uint8]:
        """The ids of a text as an array, uint8 [n]: some nanoseconds per character.

        Raises:
            TokenizerError: As `encode`.
        """
        if text.isascii():
            ids = np.frombuffer(bytearray(text.encode("ascii").translate(self._table)), np.uint8)
        else:
            codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
            ids = self._id_of_code[np.minimum(codes, 255)]
        if self.unknown == "drop":
            return ids[ids != _UNKNOWN]
        if self.unknown == "error" and (ids == _UNKNOWN).any():
            raise self._not_in_alphabet(text)
        return ids

    def decode(self, ids: npt.ArrayLike, *, skip_special_tokens: bool = False) -> str:
        """The text of some ids.

        Args:
            ids: Integers [n].
            skip_special_tokens: Leave ``<|endoftext|>`` out instead of spelling it.

        Raises:
            TokenizerError: An id is outside the vocabulary; the first is named.
        """
        given = np.asarray(ids)
        if given.size == 0:
            return ""
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise TokenizerError(
                "ids are a flat list of integers",
                why=f"these are {given.dtype} of shape {list(given.shape)}",
                next_step="decode one row at a time",
            )
        outside = (given < 0) | (given >= self.vocab_size)
        if outside.any():
            place = int(outside.argmax())
            raise TokenizerError(
                f"the id {given[place]} is outside the vocabulary of {self.vocab_size}",
                where=f"position {place}",
                next_step="decode with the tokenizer that the model was trained with",
            )
        ends = given == self.eos_id
        if not ends.any():
            return self._spell(given)
        if skip_special_tokens:
            return self._spell(given[~ends])
        parts = np.split(given, np.flatnonzero(ends))
        return END_OF_TEXT.join(
            self._spell(part[1:] if index else part) for index, part in enumerate(parts)
        )

    def _spell(self, ids: npt.NDArray[Any]) -> str:
        return self._code_of_id[ids].tobytes().decode("ascii")

    # ── what it knows ────────────────────────────────────────────────────────────────────────

    @property
    def vocab(self) -> list[str]:
        """Id → token."""
        return [END_OF_TEXT, *self.alphabet]

    @property
    def vocab_size(self) -> int:
        """Number of ids: the characters and ``<|endoftext|>``."""
        return len(self.alphabet) + 1

    @cached_property
    def fingerprint(self) -> str:
        """Short name of all that decides ids: equal tokenizers have equal fingerprints."""
        return fingerprint({"kind": KIND, "alphabet": self.alphabet, "unknown": self.unknown})

    @cached_property
    def backend(self) -> Tokenizer:
        """The same as a Hugging Face ``tokenizers.Tokenizer``, which ``tokenizer.json`` holds."""
        stands_in = {"error": None, "replace": REPLACEMENT, "drop": ""}[self.unknown]
        return files.backend(self.alphabet, stands_in=stands_in)

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the tokenizer as a folder that `AutoTokenizer.from_pretrained` reads, too.

        Raises:
            ArtifactError: The folder exists, or cannot be written; nothing partial is left.
        """
        meta = {"kind": KIND, "fingerprint": self.fingerprint}
        with staged_directory(Path(folder), overwrite=overwrite, meta=meta) as staging:
            self.write_files(staging)
        return Path(folder)

    def write_files(self, folder: Path) -> None:
        """Write the files into an existing folder, without a manifest.

        For callers that stage a folder of their own, such as a model directory.
        """
        state = {
            "fingerprint": self.fingerprint,
            "alphabet": "".join(self.alphabet),
            "policy": self.policy,
            "unknown": self.unknown,
        }
        files.write(folder, self.backend, state)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read a tokenizer that `save_pretrained` has written, or that is part of a model.

        Raises:
            ArtifactError: The folder is missing, incomplete, damaged or no such tokenizer.
            FingerprintError: Its files come from different tokenizers.
        """
        hub.verify_files(Path(folder), files.FILES)
        return cls.read_files(Path(folder))

    @classmethod
    def read_files(cls, folder: Path) -> Self:
        """Read the tokenizer from its file, without a look at the folder's manifest.

        Raises:
            ArtifactError: The file is missing, unreadable or of a newer version.
            FingerprintError: It was changed.
        """
        state = files.read_state(folder)
        try:
            tokenizer = cls(state["alphabet"], policy=state["policy"], unknown=state["unknown"])
            expected = state["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise files.unreadable(folder, error) from error
        if tokenizer.fingerprint != expected:
            raise FingerprintError(
                "the tokenizer is not the one that was saved",
                where=str(folder / files.STATE_FILE),
                why=f"it names {expected}, and makes {tokenizer.fingerprint}",
                next_step=files.REMEDY,
            )
        return tokenizer

    def __repr__(self) -> str:
        return f"CharacterTokenizer({''.join(self.alphabet)!r}, unknown={self.unknown!r})"

    def _not_in_alphabet(self, text: str) -> TokenizerError:
        missing = foreign_characters(text, "".join(self.alphabet))
        where, char = locate(text, missing)
        many = f"it lacks {len(missing)} characters of the text" if len(missing) > 1 else None
        return TokenizerError(
            f"the alphabet does not have {describe_character(char)}",
            where=where,
            why=many,
            next_step="normalise the text first, take CharacterTokenizer.ascii(), or set unknown "
            "to 'replace' or 'drop'",
        )


def _checked(alphabet: tuple[str, ...], policy: Policy, unknown: Unknown) -> tuple[str, ...]:
    """The alphabet, if it is one."""
    admitted = set(policy_characters(policy))
    check_unknown(unknown)
    if not alphabet:
        raise TokenizerError("the alphabet is empty", next_step="give it a text with characters")
    for index, char in enumerate(alphabet):
        if char not in admitted:
            raise TokenizerError(
                f"{char!r} cannot be part of the alphabet",
                where=f"entry {index}",
                why=f"it is not one character of the policy {policy}",
                next_step="normalise the texts first, or take another policy",
            )
    if len(set(alphabet)) < len(alphabet):
        twice = next(char for char in alphabet if alphabet.count(char) > 1)
        raise TokenizerError(f"the alphabet has {twice!r} more than once")
    if unknown == "replace" and REPLACEMENT not in alphabet:
        raise TokenizerError(
            f"unknown characters are replaced by {REPLACEMENT!r}, which the alphabet lacks",
            next_step=f"add {REPLACEMENT!r}, or set unknown to 'drop'",
        )
    return alphabet
