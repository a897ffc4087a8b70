"""Tokenizers from a user's own files, whatever wrote them.

::

    tokenizer.json             tokenizers, transformers        as it is
    *.model                    SentencePiece                   translated and compared
    *.tiktoken                 tiktoken ranks                  with a pattern
    vocab.json + merges.txt    byte-level BPE, as GPT-2's      put together

What is inside decides, and not the name. All become a tokenizer of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainformer.errors import DataError, TokenizerError
from domainformer.tokenizers import hub
from domainformer.tokenizers.language.sentencepiece_file import sentencepiece_backend
from domainformer.tokenizers.language.specials import check_special_token
from domainformer.tokenizers.language.tiktoken_file import byte_letters, tiktoken_backend
from domainformer.tokenizers.language.view import ROLES, RustView
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from domainformer.tokenizers.hub import HFTokenizer

VOCAB, MERGES = "vocab.json", "merges.txt"
_TIKTOKEN = "tiktoken file"


@dataclass(frozen=True)
class OwnFile:
    """A user's own tokenizer.

    Args:
        kind: What the file is.
        path: The file, or the folder of a vocabulary and merges.
        backend: The tokenizer.
        specials: Role (bos, eos, …) → token.
        notes: What a user should know.
        parse_special_tokens: Whether a special token inside a text is one.
    """

    kind: str
    path: Path
    backend: Tokenizer
    specials: Mapping[str, str]
    notes: tuple[str, ...] = ()
    parse_special_tokens: bool = True

    def to_hf(self) -> HFTokenizer:
        """A tokenizer of transformers with equal ids."""
        roles = {f"{role}_token": token for role, token in self.specials.items()}
        settings = {"clean_up_tokenization_spaces": False, **roles}
        if not self.parse_special_tokens:
            settings["split_special_tokens"] = True
        return hub.fast_tokenizer(self.backend, settings)


def open_own_file(
    path: str | Path,
    *,
    pattern: str | None = None,
    special_tokens: Mapping[str, str] | None = None,
) -> OwnFile:
    r"""Read a tokenizer from a user's own file.

    Args:
        path: A file, or a folder with ``tokenizer.json`` or a vocabulary and merges; or the
            vocabulary, whose merges are then beside it.
        pattern: How texts are cut into words: for tiktoken files, see `tiktoken_backend`.
        special_tokens: Role (bos, eos, unk, sep, pad, cls, mask) → token. A token that the file
            does not have is added behind its last id.

    Raises:
        DataError: There is no such file.
        TokenizerError: It is none of these kinds, or is damaged; or there is no such role, or no
            use for the pattern.
        ArtifactError: A ``tokenizer.json`` cannot be read.
        MissingExtraError: For a SentencePiece model: sentencepiece is not installed.

    Example:
        >>> import base64, tempfile
        >>> lines = [base64.b64encode(bytes([b])) + b" %d" % b for b in range(256)]
        >>> file = Path(tempfile.mkdtemp()) / "mine.tiktoken"
        >>> _ = file.write_bytes(b"\n".join(lines))
        >>> own = open_own_file(file, pattern="cl100k", special_tokens={"eos": "<|end|>"})
        >>> own.kind, own.backend.encode("Hi").ids, own.backend.token_to_id("<|end|>")
        ('tiktoken file', [72, 105], 256)
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"there is no file or folder {path}", next_step="check the path")
    kind, read = _recognise(place)
    backend, roles, notes, parse = read(place, pattern)
    if pattern is not None and kind != _TIKTOKEN:
        raise TokenizerError(
            f"{path} is a {kind}, which says itself how texts are cut into words",
            next_step="leave the pattern out; it is of tiktoken files",
        )
    for role, token in (special_tokens or {}).items():
        if role not in ROLES:
            raise TokenizerError(
                f"there is no special token {role!r}", next_step=f"choose among {', '.join(ROLES)}"
            )
        check_special_token(token)
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        roles[role] = token
    return OwnFile(kind, place, backend, roles, notes, parse)


_Parts = tuple[Tokenizer, dict[str, str], tuple[str, ...], bool]
_Reader = Callable[[Path, str | None], _Parts]


def _recognise(place: Path) -> tuple[str, _Reader]:
    """The kind of a file by what is in it, and who reads it."""
    if place.is_dir():
        if (place / hub.TOKENIZER_FILE).is_file():
            return "tokenizer.json", _tokenizer_json
        if (place / VOCAB).is_file() and (place / MERGES).is_file():
            return "vocabulary and merges", _vocab_and_merges
        found = sorted([*place.glob("*.model"), *place.glob("*.tiktoken")])
        if len(found) == 1:
            kind, read = _recognise(found[0])
            return kind, lambda _, pattern: read(found[0], pattern)
        raise _no_kind(place, "it holds " + (", ".join(p.name for p in found) or "no such file"))
    head = place.read_bytes()[: 1 << 16]
    if head.lstrip()[:1] == b"{":
        keys = _keys(place)
        if "model" in keys:
            return "tokenizer.json", _tokenizer_json
        if (place.parent / MERGES).is_file():
            return "vocabulary and merges", _vocab_and_merges
        raise _no_kind(place, f"it looks like a vocabulary, and there is no {MERGES} beside it")
    if _is_ranks(head):
        return _TIKTOKEN, lambda p, pattern: (*tiktoken_backend(p, pattern), True)
    if b"\x00" in head or head[:1] == b"\x0a":
        return "SentencePiece model", lambda p, _: (*sentencepiece_backend(p), False)
    raise _no_kind(place, f"it begins with {head[:24]!r}")


def _tokenizer_json(place: Path, _: str | None) -> _Parts:
    file = place / hub.TOKENIZER_FILE if place.is_dir() else place
    backend = hub.read_backend(file)
    roles = {role: token for role, (token, _) in RustView(backend).specials().items()}
    settings = file.with_name(hub.CONFIG_FILE)
    if not settings.is_file():
        note = f"no {hub.CONFIG_FILE} beside it: roles of special tokens go by their names"
        return backend, roles, (note,), True
    said = _keys(settings)
    roles = {r: t for r in ROLES if (t := _content(said.get(f"{r}_token"))) is not None}
    return backend, roles, (), not said.get("split_special_tokens", False)


def _vocab_and_merges(place: Path, _: str | None) -> _Parts:
    file = place / VOCAB if place.is_dir() else place
    vocab = _keys(file)
    lacking = sum(letter not in vocab for letter in byte_letters())
    if lacking:
        raise TokenizerError(
            f"{file} is not the vocabulary of a byte-level BPE",
            why=f"{lacking} of 256 bytes have no entry; how other kinds cut texts is not in "
            "these files",
            next_step=f"give the {hub.TOKENIZER_FILE} of the model, which says all",
        )
    try:
        model = models.BPE.from_file(str(file), str(file.with_name(MERGES)))
    except Exception as error:
        # `tokenizers` raises a plain Exception for merges that the vocabulary does not have.
        raise TokenizerError(
            f"{file} and {MERGES} do not go together",
            why=str(error),
            next_step="give the two files of one tokenizer",
        ) from error
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [t for t in vocab if len(t) > 2 and t[0] in "<[" and t[-1] in ">]"]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    roles = {role: token for role, (token, _) in RustView(backend).specials().items()}
    notes = ("texts are cut into words as in GPT-2", f"{len(special)} entries are special tokens")
    return backend, roles, notes, True


def _keys(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"{file} cannot be read", why=f"{type(error).__name__}: {error}"
        ) from error
    return value if isinstance(value, dict) else {}


def _content(token: Any) -> str | None:
    """The text of a token, which files write as a string or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _is_ranks(head: bytes) -> bool:
    first = head.split(b"\n", 1)[0].split()
    return len(first) == 2 and first[1].isdigit()


def _no_kind(place: Path, why: str) -> TokenizerError:
    return TokenizerError(
        f"{place} is no tokenizer that is known here",
        why=why,
        next_step=f"give {hub.TOKENIZER_FILE}, a SentencePiece model, a tiktoken file, or a folder "
        f"with {VOCAB} and {MERGES}",
    )
