"""Which special tokens a text tokenizer has, and what each is for.

::

    role       pad      bos, eos         unk cls sep mask     extra
    token   <|pad|>  <|endoftext|>        none unless named    <|user|>, <|assistant|>, …
    id          0          1                               then, in this order
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from domainformer.errors import TokenizerError

_ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a text tokenizer; they have the first ids.

    One token may have several roles: `bos` and `eos` are the same unless told otherwise. Padding
    is a token of its own, so that no loss that ignores padding forgets where texts end.

    Args:
        pad: Fills rows up.
        bos: Begins a text.
        eos: Ends a text.
        unk: Stands for what has no token; None where nothing is unknown.
        cls: Begins a row of a masked language model.
        sep: Parts texts within such a row.
        mask: Stands where such a model shall guess.
        extra: Further tokens, such as those of a chat.

    Raises:
        TokenizerError: A token is empty, holds a blank, or is there twice.

    Example:
        >>> SpecialTokens(extra=("<|user|>",)).tokens
        ('<|pad|>', '<|endoftext|>', '<|user|>')
        >>> SpecialTokens(mask="[MASK]").by_role["mask_token"]
        '[MASK]'
    """

    pad: str = "<|pad|>"
    bos: str = "<|endoftext|>"
    eos: str = "<|endoftext|>"
    unk: str | None = None
    cls: str | None = None
    sep: str | None = None
    mask: str | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what transformers would misread."""
        given: Any = self.extra
        extra = (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "extra", extra)
        for token in (*self.by_role.values(), *self.extra):
            check_special_token(token)
        if len({*self.by_role.values(), *self.extra}) < len(set(self.by_role.values())) + len(
            self.extra
        ):
            raise TokenizerError(
                "an extra special token is there twice",
                why=f"of {', '.join(self.extra)}",
                next_step="name each token once; those with a role are special already",
            )

    @property
    def by_role(self) -> dict[str, str]:
        """Role, as transformers names it (``pad_token``), → token."""
        given = {role: getattr(self, role) for role in _ROLES}
        return {f"{role}_token": token for role, token in given.items() if token is not None}

    @property
    def tokens(self) -> tuple[str, ...]:
        """Each token once, in the order of their ids from 0 on."""
        return tuple(dict.fromkeys((*self.by_role.values(), *self.extra)))

    def to_json(self) -> dict[str, str | list[str] | None]:
        """Plain data; ``SpecialTokens(**data)`` makes it again."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        return data | {"extra": list(self.extra)}


def check_special_token(token: str) -> None:
    """Whether a string can be a special token.

    Raises:
        TokenizerError: It is empty, no string, or holds a blank or a control character.
    """
    if (
        isinstance(token, str)
        and token
        and not any(map(str.isspace, token))
        and token.isprintable()
    ):
        return
    raise TokenizerError(
        f"{token!r} cannot be a special token",
        why="a special token is a word without blanks and control characters",
        next_step="spell it like <|user|> or [MASK]",
    )
