"""The files of a character tokenizer, which `AutoTokenizer` reads with equal ids.

::

    tokenizer.json            a word-level model whose words are single characters
    tokenizer_config.json     which token is special; that text never becomes one
    character_tokenizer.json  alphabet, policy and treatment of unknown characters
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_json, write_text
from domainformer.errors import ArtifactError
from domainformer.tokenizers.hub import CONFIG_FILE, TOKENIZER_FILE
from domainformer.version import __version__
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"
KIND = "domainformer.character_tokenizer"
VERSION = 1
STATE_FILE = "character_tokenizer.json"
FILES = (TOKENIZER_FILE, CONFIG_FILE, STATE_FILE)
REMEDY = "restore the folder from a copy, or fit and save the tokenizer again"


def backend(alphabet: Sequence[str], *, stands_in: str | None) -> Tokenizer:
    """A Hugging Face ``tokenizers.Tokenizer`` of one token per character.

    Args:
        alphabet: The characters with the ids 1, 2, …
        stands_in: What takes the place of any other character; empty drops it, and None makes
            it an error.
    """
    tokens = [END_OF_TEXT, *alphabet]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}))
    if stands_in is not None:
        others = Regex("[^" + "".join(f"\\x{ord(char):02x}" for char in alphabet) + "]")
        tokenizer.normalizer = normalizers.Replace(others, stands_in)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    tokenizer.encode_special_tokens = True  # the file does not keep this; its configuration does
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, state: dict[str, Any]) -> None:
    """Write the files into an existing folder."""
    write_text(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        # "<|endoftext|>" inside a document stays 13 characters.
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / CONFIG_FILE, config)
    head = {"kind": KIND, "version": VERSION, "domainformer": __version__}
    write_json(folder / STATE_FILE, head | state)


def read_state(folder: Path) -> dict[str, Any]:
    """What :func:`write` was given as state.

    Raises:
        ArtifactError: The file is missing, unreadable, something else or of a newer version.
    """
    path = folder / STATE_FILE
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = state["kind"], state["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder, error) from error
    if (kind, version) != (KIND, VERSION):
        raise ArtifactError(
            f"{path} holds {kind!r} of version {version!r}",
            why=f"this version of domainformer ({__version__}) reads version {VERSION}",
            next_step=f"use domainformer {state.get('domainformer')}, which wrote it",
        )
    return state


def unreadable(folder: Path, error: Exception) -> ArtifactError:
    """The error of a state file that is not what it should be."""
    why = f"{type(error).__name__}: {error}"
    return ArtifactError(f"{folder / STATE_FILE} cannot be read", why=why, next_step=REMEDY)
