"""From text files to windows of ids, and to the model that shall learn them."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from domainformer.artifacts import fingerprint, sha256_file
from domainformer.data.text import (
    Document,
    normalise_documents,
    read_texts,
    split_text,
    text_fingerprint,
)
from domainformer.data.text_policy import Policy
from domainformer.data.text_windows import TextWindows
from domainformer.data.windows import SequenceBuilder
from domainformer.errors import ConfigError, InputError
from domainformer.models import DomainTransformerForCausalLM
from domainformer.models.families import (
    BaseAdapter,
    CustomTransformerAdapter,
    adapter_class,
    adapter_for,
)
from domainformer.registry import Registry
from domainformer.tokenizers.language import CharacterTokenizer
from domainformer.tokenizers.language.files import STATE_FILE
from domainformer.training.engine import model_settings
from domainformer.training.language.config import TextDataConfig, TextRunConfig
from domainformer.weights import read_model_config

TOKENIZER_FOLDER = "tokenizer"
_DEFAULT_POLICY: Policy = "printable+newline+tab"
# data.unknown is about the policy: a character that it admits may still be absent in training.
_REMEDY_OF_OURS = "choose tokenizer.alphabet=ascii, or split the text otherwise"
_REMEDY_OF_REGISTERED = (
    "correct the text, normalise it (data.policy=printable+newline+tab), or take a model that was "
    "trained with tokenizer.alphabet=ascii"
)


@dataclass(frozen=True)
class Texts:
    """The text of a run, split.

    Args:
        train: Training documents.
        validation: Validation documents.
        fingerprint: Of all documents, as they are after normalisation.
        changes: What normalisation changed.
    """

    train: list[Document]
    validation: list[Document]
    fingerprint: str
    changes: dict[str, Any]


def read_split(config: TextDataConfig, *, characters: bool) -> Texts:
    """Read, normalise and split the text.

    Args:
        config: Where it is, and how it is split.
        characters: Whether a character tokenizer will read it, which needs a policy.

    Raises:
        ConfigError: No path was given, or a variable of the environment in it is not set.
        DataError: The text cannot be read, normalised or split.
    """
    documents = read_texts(expanded(config.path))
    changes: dict[str, Any] = {}
    if characters or config.policy != "auto":
        documents, report = normalise_documents(documents, policy_of(config), config.unknown)
        changes = report.to_json()
    train, validation = split_text(documents, config.split_by, config.validation, config.split_seed)
    return Texts(train, validation, text_fingerprint(documents), changes)


def policy_of(config: TextDataConfig) -> Policy:
    """The policy, where ``auto`` was resolved to that of a character tokenizer."""
    return _DEFAULT_POLICY if config.policy == "auto" else config.policy


def expanded(path: str | None) -> str:
    """A path with its variables of the environment filled in.

    Raises:
        ConfigError: There is no path, or a variable is not set.

    Example:
        >>> expanded("texts/a.txt")
        'texts/a.txt'
    """
    if path is None:
        raise ConfigError(
            "there is no text to train on",
            where="data.path",
            next_step="give a file or a folder: data.path=shakespeare.txt",
        )
    try:
        return string.Template(path).substitute(os.environ)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the path {path!r} cannot be filled in",
            where="data.path",
            why=f"the variable {error} of the environment is not set",
            next_step="set it, or give the path itself: data.path=shakespeare.txt",
        ) from None


def make_adapter(config: TextRunConfig, texts: Texts, folder: Path) -> BaseAdapter:
    """The model that shall learn, with its tokenizer: registered, or new.

    Args:
        config: Which.
        texts: A character tokenizer is fitted to the training part.
        folder: Of the run, where a new tokenizer is saved.

    Raises:
        RegistryError: No model has that name, or its files were changed.
        ConfigError: The model cannot be built, or its context is shorter than the one asked for.
    """
    context = config.training.context
    if config.model_name is not None:
        # Most models are published in bfloat16, whose steps swallow small updates of a weight:
        # master weights are float32, and training.precision says what products are made in.
        adapter = Registry(config.registry.root).load(config.model_name, dtype=torch.float32)
        if adapter.tokenizer is None:
            raise ConfigError(
                f"the model {config.model_name!r} has no tokenizer",
                where="model_name",
                why="its folder has none of its own, and another's ids would mean other things",
                next_step="import it again from a folder that holds its tokenizer's files",
            )
        check_context(adapter, context)
        return adapter
    own = folder / TOKENIZER_FOLDER
    if config.tokenizer.path is None:
        character_tokenizer(config, texts).save_pretrained(own, overwrite=True)
    tokenizer = read_tokenizer(Path(config.tokenizer.path or own))
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    overrides = {"position_encoding": "learned", **ends, "bos_token_id": tokenizer.bos_token_id}
    settings = model_settings(
        config.model.model_copy(update={"overrides": {**overrides, **config.model.overrides}}),
        len(tokenizer),
        context,
    )
    place = own if config.tokenizer.path is None else Path(config.tokenizer.path)
    return CustomTransformerAdapter(DomainTransformerForCausalLM(settings), tokenizer, folder=place)


def character_tokenizer(config: TextRunConfig, texts: Texts) -> CharacterTokenizer:
    """The alphabet that the configuration asks for."""
    policy = policy_of(config.data)
    if config.tokenizer.alphabet == "ascii":
        return CharacterTokenizer.ascii(policy)
    return CharacterTokenizer.fit([document.text for document in texts.train], policy=policy)


def read_tokenizer(folder: Path) -> Any:
    """A tokenizer of Hugging Face's making from a folder; no code in it is run.

    Raises:
        ConfigError: There is none.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ConfigError(
            f"there is no tokenizer in {folder}",
            where="tokenizer.path",
            why=str(error).strip().splitlines()[0],
        ) from error


def resumed_adapter(checkpoint: Path, folder: Path, *, empty: bool = False) -> BaseAdapter:
    """The model that a checkpoint holds, by what the checkpoint says alone.

    Args:
        checkpoint: Its ``config.json`` names the architecture.
        folder: Of the run, which has the tokenizer.
        empty: Read no weights: they are those of a model that was added to since.
    """
    adapter = _empty_adapter(checkpoint) if empty else adapter_for(checkpoint)
    adapter.tokenizer = read_tokenizer(folder / TOKENIZER_FOLDER)
    adapter.folder = folder / TOKENIZER_FOLDER
    return adapter


def _empty_adapter(checkpoint: Path) -> BaseAdapter:
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return adapter_class(read_model_config(checkpoint))(model.eval())


def check_context(adapter: BaseAdapter, context: int) -> None:
    """Refuse a context that the model cannot see.

    Raises:
        ConfigError: It is longer than the model's own.
    """
    if adapter.context is not None and context > adapter.context:
        raise ConfigError(
            f"the model sees at most {adapter.context} tokens, the run asks for {context}",
            where="training.context",
            next_step=f"training.context={adapter.context}",
        )


def tokenizer_fingerprint(folder: Path) -> str:
    """A short name of a tokenizer's files."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    there = [folder / name for name in names if (folder / name).is_file()]
    return fingerprint({path.name: sha256_file(path) for path in there})


def encode(documents: Sequence[Document], adapter: BaseAdapter, *, new: bool) -> list[np.ndarray]:
    """The ids of each document.

    Args:
        documents: Their text.
        adapter: Its tokenizer reads them.
        new: Whether the tokenizer is the run's own, which may be chosen otherwise.

    Raises:
        InputError: The tokenizer does not know a character; the document is named.
    """
    reader = id_reader(adapter)
    encoded = []
    for document in documents:
        try:
            ids = reader(document.text)
        except Exception as error:
            where = getattr(error, "where", None)
            part = f", counted from character {document.start:,} on" if document.start else ""
            raise InputError(
                f"{document.name} cannot be encoded",
                where=where and where + part,
                why=getattr(error, "what", None) or str(error).strip().splitlines()[0],
                next_step=_REMEDY_OF_OURS if new else _REMEDY_OF_REGISTERED,
            ) from error
        encoded.append(np.asarray(ids, dtype=np.int64))
    return encoded


def id_reader(adapter: BaseAdapter) -> Callable[[str], Any]:
    """What gives the ids of a text: the tokenizer, or for characters a table, which is faster."""
    if adapter.folder is not None and (adapter.folder / STATE_FILE).is_file():
        return CharacterTokenizer.read_files(adapter.folder).encode_array
    tokenizer: Any = adapter.tokenizer
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@dataclass(frozen=True)
class Windows:
    """The windows of a run.

    Args:
        train: For training, by seed and epoch.
        validation: For scoring, each token once.
        characters: That the scored tokens stand for.
    """

    train: TextWindows
    validation: TextWindows
    characters: int


def make_windows(config: TextRunConfig, texts: Texts, adapter: BaseAdapter) -> Windows:
    """Cut both parts of the text into windows.

    Raises:
        DataError: A document is shorter than one window.
    """
    crosses = config.data.cross_documents
    builder = SequenceBuilder(
        context=config.training.context,
        stride=config.data.stride,
        cross_documents=crosses,
        boundary_id=adapter.boundary_id if crosses else None,
    )
    names = [document.name for document in texts.train]
    tokenizer: Any = adapter.tokenizer
    new = config.model_name is None
    # Training text first: where it is too short for one window, that is the error to tell.
    train = builder.build(
        encode(texts.train, adapter, new=new), seed=config.training.seed, names=names
    )
    scored = encode(texts.validation, adapter, new=new)
    validation = builder.build_scoring(
        scored,
        history=config.evaluation.history,
        names=[document.name for document in texts.validation],
    )
    # What begins a document has nothing before it, and is not scored.
    first = scored[:1] if crosses else scored
    unscored = sum(len(str(tokenizer.decode(ids[:1]))) for ids in first if len(ids))
    return Windows(
        train=train,
        validation=validation,
        characters=sum(len(document.text) for document in texts.validation) - unscored,
    )
