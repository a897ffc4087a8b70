"""One way to ask any text tokenizer: transformers, `tokenizers`, or this library's own.

::

    PreTrainedTokenizerBase ─▶ HubView     both backends; Python ones have no offsets
    tokenizers.Tokenizer    ─▶ RustView
    CharacterTokenizer, …   ─▶ OwnView     its own ids; offsets and batches of its ``backend``

A view encodes bare text: no special tokens are added, nothing is cut or filled up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from domainformer.errors import TokenizerError
from tokenizers import Tokenizer

Offsets = list[tuple[int, int]]

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class TextView(ABC):
    """What the checks of a text tokenizer ask.

    Args:
        tokenizer: What is looked at; it is not changed.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @property
    def name(self) -> str:
        """Class of the tokenizer."""
        return type(self.tokenizer).__name__

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of ids, with tokens that were added: ``len(tokenizer)``."""

    @abstractmethod
    def vocab(self) -> dict[str, int]:
        """Token → id."""

    @abstractmethod
    def specials(self) -> dict[str, tuple[str, int | None]]:
        """Role → token and its id; None where the vocabulary does not have it."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of one text."""

    @abstractmethod
    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, by the tokenizer's way for batches."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""

    def offsets(self, text: str) -> tuple[list[int], Offsets] | None:
        """Ids, and where each begins and ends in the text; None where it cannot tell."""
        return None

    def padded(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]] | None:
        """Rows of one length and their masks; None without a padding token."""
        return None


class HubView(TextView):
    """A tokenizer of transformers, of either backend."""

    @property
    def size(self) -> int:
        """As `TextView`."""
        return len(self.tokenizer)

    def vocab(self) -> dict[str, int]:
        """As `TextView`."""
        return dict(self.tokenizer.get_vocab())

    def specials(self) -> dict[str, tuple[str, int | None]]:
        """As `TextView`."""
        known, found = self.vocab(), {}
        for role in ROLES:
            token = getattr(self.tokenizer, f"{role}_token", None)
            if token is not None:
                found[role] = (str(token), known.get(str(token)))
        return found

    def _call(self, text: Any, **options: Any) -> Any:
        bare = {"add_special_tokens": False, "truncation": False, "verbose": False}
        return self.tokenizer(text, **(bare | options))

    def encode(self, text: str) -> list[int]:
        """As `TextView`."""
        return list(self._call(text)["input_ids"])

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """As `TextView`."""
        return [list(ids) for ids in self._call(list(texts))["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """As `TextView`."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def offsets(self, text: str) -> tuple[list[int], Offsets] | None:
        """As `TextView`; a Python tokenizer returns none, and raises no error either."""
        if not self.tokenizer.is_fast:
            return None
        found = self._call(text, return_offsets_mapping=True)
        return list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]]

    def padded(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]] | None:
        """As `TextView`."""
        if self.tokenizer.pad_token is None:
            return None
        rows = self._call(list(texts), padding=True, padding_side="right")
        return [list(r) for r in rows["input_ids"]], [list(r) for r in rows["attention_mask"]]


class RustView(TextView):
    """A bare ``tokenizers.Tokenizer``: it has special tokens, and no roles for them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        # A file may ask for truncation or padding; a copy spares the user's tokenizer the change.
        self._bare = Tokenizer.from_str(tokenizer.to_str())
        self._bare.no_truncation()
        self._bare.no_padding()
        self._bare.encode_special_tokens = tokenizer.encode_special_tokens

    @property
    def size(self) -> int:
        """As `TextView`."""
        return int(self._bare.get_vocab_size(with_added_tokens=True))

    def vocab(self) -> dict[str, int]:
        """As `TextView`."""
        return dict(self._bare.get_vocab(with_added_tokens=True))

    def specials(self) -> dict[str, tuple[str, int | None]]:
        """As `TextView`: by their usual names, since the file gives them no roles."""
        known = self.vocab()
        added = self._bare.get_added_tokens_decoder().values()
        names = {str(token.content) for token in added if token.special}
        return {
            role: (token, known[token])
            for role, usual in _USUAL.items()
            for token in [next((name for name in usual if name in names), None)]
            if token is not None
        }

    def encode(self, text: str) -> list[int]:
        """As `TextView`."""
        return list(self._bare.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """As `TextView`."""
        found = self._bare.encode_batch(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in found]

    def decode(self, ids: Sequence[int]) -> str:
        """As `TextView`."""
        return str(self._bare.decode(list(ids), skip_special_tokens=False))

    def offsets(self, text: str) -> tuple[list[int], Offsets] | None:
        """As `TextView`."""
        found = self._bare.encode(text, add_special_tokens=False)
        return list(found.ids), [(int(a), int(b)) for a, b in found.offsets]


class OwnView(TextView):
    """A tokenizer of this library: ``encode``, ``decode``, ``vocab_size`` and a ``backend``.

    Its own ids are looked at; what it does not do itself (batches, offsets) is asked of its
    backend, so that the two are compared.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._rust = RustView(tokenizer.backend)

    @property
    def size(self) -> int:
        """As `TextView`."""
        return int(self.tokenizer.vocab_size)

    def vocab(self) -> dict[str, int]:
        """As `TextView`."""
        return self._rust.vocab()

    def specials(self) -> dict[str, tuple[str, int | None]]:
        """As `TextView`: its ``special_tokens``, or attributes ``pad_id`` and so on."""
        named = getattr(self.tokenizer, "special_tokens", None)
        if named is not None:
            known = self.vocab()
            roles = {role.removesuffix("_token"): token for role, token in named.by_role.items()}
            return {role: (token, known.get(token)) for role, token in roles.items()}
        token = {number: name for name, number in self.vocab().items()}
        ids = {role: getattr(self.tokenizer, f"{role}_id", None) for role in ROLES}
        return {
            role: (token.get(index, f"id {index}"), index if index in token else None)
            for role, index in ids.items()
            if index is not None
        }

    def encode(self, text: str) -> list[int]:
        """As `TextView`."""
        return list(self.tokenizer.encode(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """As `TextView`."""
        return self._rust.encode_all(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """As `TextView`."""
        return str(self.tokenizer.decode(list(ids)))

    def offsets(self, text: str) -> tuple[list[int], Offsets] | None:
        """As `TextView`."""
        return self._rust.offsets(text)


_USUAL = {
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[EOS]"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
    "sep": ("[SEP]", "<sep>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "cls": ("[CLS]", "<cls>"),
    "mask": ("[MASK]", "<mask>"),
}


def view_of(tokenizer: Any) -> TextView:
    """The view of any text tokenizer.

    Args:
        tokenizer: Of transformers, of `tokenizers`, or of this library; a view is its own.

    Raises:
        TokenizerError: It is none of these.

    Example:
        >>> from domainformer.tokenizers import CharacterTokenizer
        >>> view = view_of(CharacterTokenizer("abc"))
        >>> view.size, view.encode("cab"), view.offsets("ab")
        (4, [3, 1, 2], ([1, 2], [(0, 1), (1, 2)]))
    """
    if isinstance(tokenizer, TextView):
        return tokenizer
    if isinstance(tokenizer, Tokenizer):
        return RustView(tokenizer)
    if hasattr(tokenizer, "is_fast") and callable(tokenizer):
        return HubView(tokenizer)
    view = getattr(tokenizer, "view", None)
    if isinstance(view, TextView):
        return view
    if isinstance(getattr(tokenizer, "backend", None), Tokenizer):
        return OwnView(tokenizer)
    raise TokenizerError(
        f"{type(tokenizer).__name__} is no text tokenizer",
        why="it is neither of transformers, nor of tokenizers, nor of this library",
        next_step="give a tokenizer object; a file or folder is read by open_text_tokenizer",
    )
