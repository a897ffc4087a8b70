"""``BaseAdapter``: one way to load, run and save a language model, whatever family it is of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from domainformer.artifacts import MANIFEST, staged_directory, write_json
from domainformer.errors import ArtifactError, FingerprintError, RegistryError
from domainformer.models.families.loading import read_pretrained, without_progress_bar
from domainformer.version import __version__
from domainformer.weights import CONFIG_FILE, INDEX_FILE, SUFFIX, check_weights, is_pickle

LINEAGE_FILE = "lineage.json"
FORMAT_VERSION = 1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
# What a saved model writes anew, or what belongs to one training and not to the model.
_NOT_CARRIED = frozenset(
    {
        CONFIG_FILE,
        INDEX_FILE,
        MANIFEST,
        LINEAGE_FILE,
        "generation_config.json",
        "README.md",
        "trainer_state.json",
        "position.json",
    }
)

# Families by the names that a config.json can hold; filled by defining a subclass.
BY_MODEL_TYPE: dict[str, type[BaseAdapter]] = {}
BY_ARCHITECTURE: dict[str, type[BaseAdapter]] = {}


class BaseAdapter:
    """A language model of one family, with its tokenizer.

    ::

        folder ──load_checkpoint──▶ adapter.model, adapter.tokenizer ──save_checkpoint──▶ folder
        config.json, *.safetensors      forward, get_config, blocks,      and lineage.json:
        tokenizer.json, …               context, boundary_id              which model it came from

    A new family is one subclass: it names what ``config.json`` calls itself, and where its blocks
    are; defining it registers it, and :func:`~domainformer.models.families.adapter_for` finds it.

    Args:
        model: The model.
        tokenizer: Its native tokenizer; None: it has none beside it.
        folder: Where both were read from, if anywhere: files that travel with the model (the
            tokenizer's, a schema, a license) are taken from there when it is saved.
        parent: The registered model that this one goes back to, as plain data
            (``model_name``, ``model_id``), if any.
        record: Plain data kept beside the weights (run, metrics, rules…).

    Example:
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> from domainformer.models.families import CustomTransformerAdapter
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=50, num_hidden_layers=1)
        >>> adapter = CustomTransformerAdapter(DomainTransformerForCausalLM(config))
        >>> adapter.blocks, adapter.context, adapter.get_config()["hidden_size"]
        ('model.layers', 2048, 128)
        >>> adapter.forward(torch.tensor([[1, 5, 7]])).logits.shape
        torch.Size([1, 3, 50])
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    """Values of ``model_type`` in ``config.json`` that are of this family."""
    architectures: ClassVar[tuple[str, ...]] = ()
    """Values of ``architectures`` that are, whatever the ``model_type``."""
    block_path: ClassVar[str | None] = None
    """Dotted path of the list of blocks; None: it is looked for."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        BY_MODEL_TYPE.update(dict.fromkeys(cls.model_types, cls))
        BY_ARCHITECTURE.update(dict.fromkeys(cls.architectures, cls))

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer | None = None,
        *,
        folder: Path | None = None,
        parent: Mapping[str, str] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.parent = dict(parent) if parent else None
        self.record = dict(record or {})
        self._descends = False
        self._read = (tokenizer, 0 if tokenizer is None else len(tokenizer))
        self._check_vocabulary()

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the model.

        Args:
            input_ids: Token ids [B, L].
            labels: The same ids, −100 where nothing is to be predicted, [B, L]: the model shifts
                them by one itself.
            attention_mask: 1 at real tokens, 0 at padding, [B, L].
            **kwargs: Handed to the model.

        Returns:
            What the model returns: ``logits`` [B, L, V], and ``loss`` where labels were given.
        """
        return self.model(
            input_ids=input_ids, labels=labels, attention_mask=attention_mask, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        """The architecture as plain data, as it stands in ``config.json``."""
        values: dict[str, Any] = self.model.config.to_dict()
        return values

    @property
    def architecture(self) -> str:
        """The name of the model's class, as ``config.json`` has it."""
        return type(self.model).__name__

    @property
    def blocks(self) -> str:
        """Dotted path of the list of blocks, such as ``model.layers`` or ``transformer.h``.

        Raises:
            RegistryError: No list of that many modules is found.
        """
        layers = int(getattr(self.model.config, "num_hidden_layers", 0))
        for path, module in self.model.named_modules():
            named = self.block_path in (None, path)
            if named and isinstance(module, nn.ModuleList) and len(module) == layers:
                return str(path)
        raise RegistryError(
            f"the blocks of {self.architecture} are not found",
            why=f"no list of {layers} modules lies "
            + (f"at {self.block_path!r}" if self.block_path else "in it"),
            next_step="define a subclass of BaseAdapter with its block_path",
        )

    @property
    def context(self) -> int | None:
        """The longest sequence that the model may see, in tokens; None where it states no limit."""
        config = self.model.config
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            value = getattr(config, name, None)
            if isinstance(value, int) and value > 0:
                return value
        return None

    @property
    def boundary_id(self) -> int | None:
        """The id that ends a document in training text; None where the model has none."""
        rows = int(self.model.get_input_embeddings().weight.shape[0])
        for owner in (self.tokenizer, self.model.config):
            value = getattr(owner, "eos_token_id", None)
            value = value[0] if isinstance(value, list) and value else value
            # A configuration may keep the default of a larger vocabulary.
            if isinstance(value, int) and value < rows:
                return value
        return None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def descend_from(self, reference: Mapping[str, str]) -> None:
        """Let what is saved from now on be another model, which goes back to a registered one.

        The record that was read stays readable until then; the new model starts its own.

        Args:
            reference: The registered model's ``model_name`` and ``model_id``.
        """
        self.parent = dict(reference)
        self._descends = True

    def save_checkpoint(
        self,
        folder: str | Path,
        *,
        record: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write weights, tokenizer and lineage into one folder, whole or not at all.

        Args:
            folder: Where it shall appear; ``transformers`` reads it as it is.
            record: Plain data to keep beside the weights; added to what the adapter has, unless
                that is its parent's.
            overwrite: Replace an existing folder.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
        """
        target = Path(folder)
        self.record = {**({} if self._descends else self.record), **(record or {})}
        self._descends = False
        lineage = {
            "format": FORMAT_VERSION,
            "domainformer": __version__,
            "adapter": type(self).__name__,
            "architecture": self.architecture,
            "parent": self.parent,
            "record": self.record,
        }
        with staged_directory(target, overwrite=overwrite, meta={"kind": "model"}) as staging:
            self.carry(staging)
            with without_progress_bar():
                self.model.save_pretrained(staging)
            write_json(staging / LINEAGE_FILE, lineage)
        return target

    @classmethod
    def load_checkpoint(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device | None = "cpu",
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        """Read a model and its tokenizer; code in the folder is never run, pickles never opened.

        Args:
            folder: As ``save_checkpoint``, ``save_pretrained`` or a training checkpoint left it.
            device: Where the weights shall go; None: where `options` put them.
            dtype: Cast the weights; as they were saved by default.
            **options: For ``from_pretrained``: ``device_map``, ``quantization_config``.

        Returns:
            The adapter, its model in evaluation mode.

        Raises:
            RegistryError: Weights are pickled, missing or damaged, or do not fit the
                configuration.
            FingerprintError: The tokenizer has ids that the model does not know.
        """
        folder = Path(folder)
        check_weights(folder)
        facts = read_lineage(folder)
        model = cls.read_model(folder, dtype, **options)
        if device is not None:
            model.to(device)
        model.eval()
        return cls(
            model,
            read_tokenizer(folder),
            folder=folder,
            parent=facts.get("parent"),
            record=facts.get("record"),
        )

    @classmethod
    def read_model(cls, folder: Path, dtype: torch.dtype | None, **options: Any) -> Any:
        """The model alone; a family that the Auto class does not know overrides this."""
        return read_pretrained(AutoModelForCausalLM, folder, dtype=dtype, **options)

    def carry(self, staging: Path) -> None:
        """Copy what travels with the model; a tokenizer that was changed is written anew.

        Args:
            staging: An existing folder.
        """
        if self.folder is not None and self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                weights = path.name.endswith(SUFFIX) or is_pickle(path.name)
                if path.is_file() and not weights and path.name not in _NOT_CARRIED:
                    shutil.copyfile(path, staging / path.name)
        if self.tokenizer is None:
            return
        read, length = self._read
        tokenizer = self.tokenizer
        as_read = len(tokenizer) == length and tokenizer is read
        if self.folder is None or not as_read:
            tokenizer.save_pretrained(staging)

    def _check_vocabulary(self) -> None:
        if self.tokenizer is None:
            return
        rows = int(self.model.get_input_embeddings().weight.shape[0])
        ids = len(self.tokenizer)
        if ids > rows:
            raise FingerprintError(
                "the tokenizer and the model do not belong together",
                where=str(self.folder) if self.folder else None,
                why=f"the tokenizer has {ids} ids, the model {rows} embeddings",
                next_step="use the model's own tokenizer, or model.resize_token_embeddings",
            )


def read_lineage(folder: Path) -> dict[str, Any]:
    """What ``save_checkpoint`` noted of a model's origin; empty for folders of other makers.

    Raises:
        ArtifactError: The note is damaged, or of another version.
    """
    path = folder / LINEAGE_FILE
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT_VERSION:
            raise ValueError(f"it has format {facts['format']}, not {FORMAT_VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{LINEAGE_FILE} cannot be read",
            where=str(path),
            why=str(error),
            next_step="restore the folder from a copy",
        ) from error
    return dict(facts)


def read_tokenizer(folder: Path) -> Any:
    """The native tokenizer of a model folder; None where it has none.

    Raises:
        ArtifactError: Its files are damaged, or need code of their own.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ArtifactError(
            "the tokenizer cannot be read",
            where=str(folder),
            why=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}",
            next_step="copy the tokenizer's files again; code beside them is never run",
        ) from error
