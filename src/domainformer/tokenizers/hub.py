"""The door to Hugging Face: files that `AutoTokenizer` reads, and tokens for other tokenizers.

A saved tokenizer is a folder::

    tokenizer.json          what `tokenizers` and `transformers` need: all tokens with their ids
    tokenizer_config.json   which class reads it, and which tokens are special
    schema.yaml             what the columns mean
    domain_tokenizer.json   bins, vocabularies and anchors, as fitted
    manifest.json           size and SHA-256 of each, written last

`transformers` and `torch` are imported here alone, inside functions, so that a worker that only
tokenizes never loads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from domainformer.artifacts import read_manifest, sha256_file, write_json, write_text
from domainformer.errors import ArtifactError, FingerprintError, TokenizerError
from domainformer.schema import DomainSchema
from domainformer.schema.fields import GENERIC_SPECIALS
from domainformer.tokenizers.fields import restore
from domainformer.tokenizers.reference import Reference
from domainformer.tokenizers.slots import Growth, lay_out
from domainformer.tokenizers.vocabulary import has_bpe, tokens_by_id
from domainformer.version import __version__
from tokenizers import AddedToken, Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from domainformer.tokenizers.domain import DomainTokenizer

    HFTokenizer: TypeAlias = PreTrainedTokenizerFast

KIND = "domainformer.tokenizer"
VERSION = 2
"""The format that is written; 2 brought extensions, and what the fit has seen."""
READABLE = (1, 2)
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SCHEMA_FILE = "schema.yaml"
STATE_FILE = "domain_tokenizer.json"
FILES = (TOKENIZER_FILE, CONFIG_FILE, SCHEMA_FILE, STATE_FILE)

_SPECIAL_NAMES = dict(
    zip(("pad_token", "bos_token", "eos_token", "unk_token"), GENERIC_SPECIALS, strict=True)
)
_REMEDY = "restore the folder from a copy, or fit and save the tokenizer again"


def write_files(tokenizer: DomainTokenizer, folder: Path) -> None:
    """Write a fitted tokenizer's files into an existing folder, without a manifest.

    For callers that stage a folder of their own, such as a model bundle.
    """
    write_text(folder / TOKENIZER_FILE, tokenizer.backend.to_str(pretty=True) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_SPECIAL_NAMES,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / CONFIG_FILE, config)
    tokenizer.schema.to_yaml(folder / SCHEMA_FILE)
    fields = [{"field": field.spec.name, "state": field.state()} for field in tokenizer.fields]
    state = {
        "kind": KIND,
        "version": VERSION,
        "domainformer": __version__,
        "fingerprint": tokenizer.fingerprint,
        "bpe_vocab_size": tokenizer.bpe_vocab_size,
        "growths": [asdict(growth) for growth in tokenizer.layout.growths],
        "fields": fields,
        "reference": None if tokenizer.reference is None else tokenizer.reference.to_json(),
    }
    write_json(folder / STATE_FILE, state)


def read_files(folder: Path) -> DomainTokenizer:
    """Read a tokenizer from its files, without a look at the folder's manifest.

    Raises:
        ArtifactError: A file is missing, unreadable or of a newer version.
        FingerprintError: The files come from different tokenizers.
    """
    from domainformer.tokenizers.domain import DomainTokenizer

    state = _read_state(folder)
    schema = DomainSchema.from_yaml(folder / SCHEMA_FILE)
    backend = read_backend(folder / TOKENIZER_FILE)
    try:
        saved = [(schema.field(item["field"]), item["state"]) for item in state["fields"]]
        tokenizer = DomainTokenizer(schema, bpe_vocab_size=int(state["bpe_vocab_size"]))
        expected = state["fingerprint"]
        growths = [_growth(item) for item in state["growths"]]
        seen = state["reference"]
        tokenizer.reference = None if seen is None else Reference.from_json(seen)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder / STATE_FILE, error) from error
    tokens = tokens_by_id(backend, where=str(folder / TOKENIZER_FILE))
    fields = [restore(spec, field) for spec, field in saved]
    named = sum(len(field.vocab) for field in fields) + len(GENERIC_SPECIALS)
    pieces = max(0, len(tokens) - named) if has_bpe(backend) else 0
    try:
        layout = lay_out(fields, pieces=pieces, growths=growths)
    except TokenizerError as error:
        raise _mixed(folder, f"{STATE_FILE}: {error.what}") from error
    if layout.has_text and not has_bpe(backend):
        raise _mixed(folder, f"{TOKENIZER_FILE} has no BPE model, and a field is text")
    if len(tokens) != layout.vocab_size or layout.tokens != tuple(
        tokens[index] for index in layout.token_ids.tolist()
    ):
        raise _mixed(folder, f"{TOKENIZER_FILE} has other tokens than {STATE_FILE}")
    tokenizer.assemble(layout, backend)
    if tokenizer.fingerprint != expected:
        raise _mixed(
            folder, f"{STATE_FILE} names {expected}, the files make {tokenizer.fingerprint}"
        )
    return tokenizer


def verify_files(folder: Path, files: Sequence[str] = FILES) -> None:
    """Check a tokenizer's files, and only these, against the checksums of the folder's manifest.

    Args:
        folder: Written by ``save_pretrained``, or a model with its tokenizer.
        files: Names of the files; those of a `DomainTokenizer` unless told otherwise.

    Raises:
        ArtifactError: The folder has no manifest, or a file is missing or was changed.
    """
    listed = read_manifest(folder)["files"]
    for name in files:
        path = folder / name
        if name not in listed:
            raise ArtifactError(
                f"{folder} holds no tokenizer",
                where=name,
                why="its manifest does not list this file",
                next_step="give a folder written by the tokenizer's save_pretrained, or a bundle",
            )
        if not path.is_file():
            why = "the file is missing"
        elif path.stat().st_size != listed[name]["bytes"]:
            why = f"it has {path.stat().st_size} bytes and should have {listed[name]['bytes']}"
        elif sha256_file(path) != listed[name]["sha256"]:
            why = "its content differs from the checksum in the manifest"
        else:
            continue
        raise ArtifactError(f"{folder} is damaged", where=name, why=why, next_step=_REMEDY)


def to_hf(tokenizer: DomainTokenizer) -> HFTokenizer:
    """A `transformers` tokenizer of the same vocabulary; a copy, so changes to it stay its own."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend.to_str()),
        clean_up_tokenization_spaces=False,
        **_SPECIAL_NAMES,
    )


def fast_tokenizer(backend: Tokenizer, settings: dict[str, Any]) -> HFTokenizer:
    """A `transformers` tokenizer around a copy of a backend.

    Args:
        backend: The vocabulary, and how texts become ids.
        settings: What ``tokenizer_config.json`` would say, but the class.
    """
    from transformers import PreTrainedTokenizerFast

    copy = Tokenizer.from_str(backend.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=copy, **settings)


def add_domain_tokens(
    hf_tokenizer: PreTrainedTokenizerBase,
    tokenizer: DomainTokenizer,
    model: PreTrainedModel | None = None,
) -> dict[str, int]:
    """Teach an existing Hugging Face tokenizer (and its model) the tokens of all fields.

    The tokenizer keeps its own vocabulary for text. The model's embeddings grow, and each new row
    is the mean of the old ones, so that a new token starts where the model's words are and not
    at random (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").

    Args:
        hf_tokenizer: Changed in place.
        tokenizer: A fitted tokenizer; its generic specials and BPE tokens are left out.
        model: Changed in place: input embeddings, and the output layer where it is not tied.

    Returns:
        Token → its id in ``hf_tokenizer``, for all field tokens.
    """
    old_size = len(hf_tokenizer)
    tokens = list(tokenizer.layout.tokens[len(GENERIC_SPECIALS) :])
    hf_tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
    if model is not None:
        _grow_embeddings(model, old_size, len(hf_tokenizer))
    return dict(zip(tokens, hf_tokenizer.convert_tokens_to_ids(tokens), strict=True))


def _grow_embeddings(model: PreTrainedModel, old_size: int, new_size: int) -> None:
    """Give rows ``old_size:new_size`` of the embeddings the mean of the rows before them."""
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    if rows < old_size:
        raise TokenizerError(
            "the tokenizer does not belong to the model",
            why=f"it has {old_size} tokens, the model's embedding {rows} rows",
            next_step="load both from the same folder",
        )
    # Models often have more rows than tokens (padding to a multiple): these are used first.
    if new_size > rows:
        model.resize_token_embeddings(new_size, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for layer in layers:
            for parameter in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
                if parameter is not None and parameter.shape[0] >= new_size:
                    mean = parameter[:old_size].float().mean(dim=0)
                    parameter[old_size:new_size] = mean.to(parameter.dtype)


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = state["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    if version not in READABLE:
        raise ArtifactError(
            f"{path} has version {version!r}",
            why=f"this version of domainformer ({__version__}) reads versions 1 to {VERSION}",
            next_step=f"use domainformer {state.get('domainformer')}, which wrote it",
        )
    if version == 1:  # knew neither extensions nor what the fit had seen
        state |= {"growths": [], "reference": None}
    return state


def _growth(item: dict[str, Any]) -> Growth:
    return Growth(str(item["parent"]), tuple(map(int, item["fields"])), int(item["pieces"]))


def read_backend(path: Path) -> Tokenizer:
    """The backend that a ``tokenizer.json`` holds.

    Raises:
        ArtifactError: It cannot be read.
    """
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:
        # `tokenizers` raises plain Exceptions for whatever it cannot parse.
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be read", why=f"{type(error).__name__}: {error}", next_step=_REMEDY
    )


def _mixed(folder: Path, why: str) -> FingerprintError:
    return FingerprintError(
        "the files of the tokenizer were not made together",
        where=str(folder),
        why=why,
        next_step=_REMEDY,
    )
