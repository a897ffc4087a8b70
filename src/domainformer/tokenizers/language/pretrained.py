"""Pretrained tokenizers: from a folder, the local cache, or the hub, in this order.

A tokenizer is measured when it is there: its ids, and the rows of the embedding that its model's
configuration names. Where the hub cannot be reached, or asks for terms to be accepted, the error
says so; code that a folder brings along is never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.language.known import KNOWN_TOKENIZERS

Origin = Literal["folder", "local cache", "hub"]


@dataclass(frozen=True)
class Pretrained:
    """A tokenizer that came with a model.

    Args:
        name: Folder or hub id.
        origin: Where it was found.
        tokenizer: Of transformers.
        size: ``len(tokenizer)``.
        rows: Rows of the model's embedding, by its configuration; None where it has none.
        notes: What a user should know.
    """

    name: str
    origin: Origin
    tokenizer: Any
    size: int
    rows: int | None
    notes: tuple[str, ...] = ()


def load_pretrained(name: str | Path, *, offline: bool = False) -> Pretrained:
    """Load the tokenizer of a model.

    Args:
        name: A folder, or a hub id such as those of `KNOWN_TOKENIZERS`.
        offline: Look at folders and the local cache only, and never ask the hub.

    Raises:
        TokenizerError: It is not there, or the hub cannot be reached, does not know it, or wants
            terms to be accepted; or it needs code or a package that is not here.
    """
    if Path(name).is_dir():
        return _measured(str(name), "folder", _open(str(name), local=True))
    if isinstance(name, Path) or str(name).count("/") > 1 or str(name).startswith((".", "/", "~")):
        raise TokenizerError(
            f"there is no folder {name}", next_step="check the path, or give a hub id"
        )
    try:
        return _measured(str(name), "local cache", _open(str(name), local=True))
    except TokenizerError:
        if offline:
            raise
    return _measured(str(name), "hub", _open(str(name), local=False))


def _open(name: str, *, local: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)
    except Exception as error:
        # transformers lets OSError, ValueError, ImportError and the hub's own errors through.
        raise _refused(name, error, local=local) from error


def _measured(name: str, origin: Origin, tokenizer: Any) -> Pretrained:
    known = KNOWN_TOKENIZERS.get(name)
    size, rows = len(tokenizer), _rows(name, local=origin != "hub")
    notes = []
    if known is not None:
        notes.append(f"licence: {known.license}")
        if size != known.size:
            notes.append(f"KNOWN_TOKENIZERS has {known.size:,} tokens, this one {size:,}")
        if rows is not None and rows != known.rows:
            notes.append(f"KNOWN_TOKENIZERS has {known.rows:,} rows, this model {rows:,}")
        rows = known.rows if rows is None else rows
    if rows is not None and size > rows:
        over = size - rows
        notes.append(f"{over:,} of its ids have no row in the model's embedding of {rows:,}")
    return Pretrained(name, origin, tokenizer, size, rows, tuple(notes))


def _rows(name: str, *, local: bool) -> int | None:
    """What the model's configuration says of its embedding; None where there is none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, local_files_only=local, trust_remote_code=False)
        return int(config.get_text_config().vocab_size)
    except Exception:  # noqa: BLE001  (a tokenizer may well come without a model)
        return None


def _refused(name: str, error: Exception, *, local: bool) -> TokenizerError:
    """What went wrong, in the words of somebody who wants a tokenizer."""
    kinds, told = {type(one).__name__ for one in _chain(error)}, str(error)
    why: str = told.strip().splitlines()[0] if told.strip() else type(error).__name__
    step = "give the path of a folder that has its files"
    if Path(name).is_dir():
        what = f"{name} holds no tokenizer that can be read"
    elif kinds & {"GatedRepoError"} or "gated" in told:
        what, why = f"the hub asks for terms to be accepted before it gives {name}", "it is gated"
        step = f"accept them on the page of {name} and log in (hf auth login), or " + step
    elif kinds & {"RepositoryNotFoundError"} or "not a valid model identifier" in told:
        what, why = f"the hub does not know {name}", "there is no such model, or it is private"
        step = nearest(name, KNOWN_TOKENIZERS) or step
    elif "trust_remote_code" in told:
        what, why = f"{name} needs code of its own", "code in a model's folder is never run here"
        step = "give its tokenizer.json as own="
    elif local:
        what, why = f"{name} is not in the local cache", "the hub was not asked"
        step = f"download it once where there is a network, or {step}"
    elif isinstance(error, OSError) or kinds & {"ConnectionError", "ConnectError"}:
        what = f"the hub cannot be reached, and {name} is not in the local cache"
        step = f"try again with a network, or {step}"
    else:
        what = f"the tokenizer {name} cannot be loaded"
    return TokenizerError(what, why=why, next_step=step)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
