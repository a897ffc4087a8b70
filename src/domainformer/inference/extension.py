"""A model for an extended tokenizer: old rows stay, and each new id begins with a row that fits.

What a new id begins with:

- *A category or number that was unknown*: the row of its field's UNK token (or of its hash
  bucket), because that is how the model has read such events so far: with the new id it answers as
  it did before. Where the fit has seen nothing unknown, that row was never trained; then it is the
  mean of the rows of the field's values, so that the new value begins as an average one.
- *A merge*: the mean of the rows of the two tokens that it joins.

The logits of all old ids are what they were, for any old input; the new ids take their own share of
the probability, so that an old id with probability p has p / (1 + r), where r is what the new ids'
exponentials add to the old sum. Copy heads copy whatever ids they see and need nothing: what they
copy keeps its share, and only the vocabulary's part of the mixture shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from transformers import PreTrainedModel

from domainformer.errors import FingerprintError
from domainformer.inference.bundle import load_bundle, save_bundle
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fields.categorical import CategoricalTokenizer, hash_bucket
from domainformer.tokenizers.occupancy import unknown_ids
from domainformer.tokenizers.slots import Block
from domainformer.tokenizers.vocabulary import merges_of

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BundleExtension:
    """What became of a bundle.

    Args:
        folder: The new bundle.
        parent: Fingerprint of the old bundle's tokenizer.
        fingerprint: Of the new one's.
        old_size: Ids before.
        new_size: Ids now.
    """

    folder: Path
    parent: str
    fingerprint: str
    old_size: int
    new_size: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"folder": str(self.folder)}

    def render(self) -> Table:
        """A table of one row, for people."""
        table = Table("bundle", "ids before", "ids now", caption="next: fine-tune it on new events")
        table.add_row(str(self.folder), f"{self.old_size:,}", f"{self.new_size:,}")
        return table


def extend_bundle(
    bundle: str | Path,
    tokenizer: DomainTokenizer | str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
) -> BundleExtension:
    """Write a copy of a bundle for an extension of its tokenizer.

    Args:
        bundle: A folder written by `save_bundle`.
        tokenizer: An extension of the bundle's tokenizer, or its folder.
        output: Where the new bundle shall appear.
        overwrite: Replace an existing folder.

    Raises:
        FingerprintError: The tokenizer does not extend the bundle's.
        ArtifactError: A folder cannot be read, or exists already.
    """
    if not isinstance(tokenizer, DomainTokenizer):
        tokenizer = DomainTokenizer.from_pretrained(tokenizer)
    old = load_bundle(bundle)
    if old.merges is not None:
        raise FingerprintError(
            "a model of merged tokens cannot be extended",
            where=str(bundle),
            why="its merges take the ids behind those of the fields, where new ones would stand",
            next_step="fit and train anew, or extend a model without tokenizer.merges",
        )
    parent = old.tokenizer.fingerprint
    if parent not in tokenizer.lineage:
        raise FingerprintError(
            "the tokenizer does not extend that of the bundle",
            where=str(bundle),
            why=f"the bundle has {parent}, the tokenizer {tokenizer.fingerprint} extends "
            f"{', '.join(tokenizer.lineage) or 'none'}",
            next_step="make it by extend(bundle, table): `domainformer tokenizer extend`",
        )
    grow_model(old.model, first_rows(old.tokenizer, tokenizer), old.tokenizer.vocab_size)
    # The weights now belong to the extension; saving writes its name in.
    old.model.config.tokenizer_fingerprint = None
    record = {**old.record, "extended_from": parent}
    folder = save_bundle(output, old.model, tokenizer, record, overwrite=overwrite)
    sizes = (old.tokenizer.vocab_size, tokenizer.vocab_size)
    return BundleExtension(folder, parent, tokenizer.fingerprint, *sizes)


def grow_model(model: PreTrainedModel, sources: Sequence[Ints], old_size: int) -> None:
    """Give a model rows for new ids, in place.

    Args:
        model: Its input embeddings grow, and its output layer (tied or not) where it has one.
        sources: For each new id the ids whose mean its rows begin with; they may be new ids that
            come before it.
        old_size: Ids so far.
    """
    if not sources:
        return
    model.resize_token_embeddings(old_size + len(sources), mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = {id(layer.weight): layer.weight for layer in layers if layer is not None}
    with torch.no_grad():
        for weight in weights.values():
            # The new values of a field share one array, whose mean is taken once.
            means: dict[int, torch.Tensor] = {}
            for new_id, ids in enumerate(sources, start=old_size):
                if id(ids) not in means:
                    rows = weight[torch.from_numpy(ids).to(weight.device)]
                    means[id(ids)] = rows.float().mean(dim=0).to(weight.dtype)
                weight[new_id] = means[id(ids)]


def first_rows(old: DomainTokenizer, new: DomainTokenizer) -> list[Ints]:
    """For each id that an extension added, the ids whose rows it begins with the mean of.

    Args:
        old: A fitted tokenizer.
        new: Its extension, or the extension of its extension.

    Returns:
        Arrays of ids in the order of the new ids, from ``old.vocab_size`` on.
    """
    found: dict[int, Ints] = {}
    for before, after in zip(old.layout.blocks, new.layout.blocks, strict=True):
        known = len(before.ids)
        added = after.ids[known:].tolist()
        if added:
            rows = _rows_of_field(old, before, after, range(known, known + len(added)))
            found |= dict(zip(added, rows, strict=True))
    vocab = new.vocab
    piece = {vocab[index]: index for index in new.bpe_ids.tolist()}
    for left, right in merges_of(new.backend)[len(merges_of(old.backend)) :]:
        found[piece[left + right]] = np.array([piece[left], piece[right]])
    return [found[index] for index in range(old.vocab_size, new.vocab_size)]


def _rows_of_field(old: DomainTokenizer, before: Block, after: Block, local: range) -> list[Ints]:
    """What the new values of one field begin with."""
    unknown = unknown_ids(before.tokenizer)
    slot = before.slots[-1]
    seen = None if old.reference is None else old.reference.slot(slot.name)
    if seen is not None and not seen.unknown:
        values = np.setdiff1d(np.arange(1, len(before.ids)), unknown)
        if len(values):
            return [before.ids[values]] * len(local)
    tokenizer = after.tokenizer
    buckets = tokenizer.spec.hash_buckets
    if buckets and isinstance(tokenizer, CategoricalTokenizer):
        texts = [str(tokenizer.describe(index)["value"]) for index in local]
        # The first of the unknown ids is UNK itself, the others are the buckets.
        return [before.ids[unknown[1 + hash_bucket(text, buckets)]][None] for text in texts]
    return [before.ids[unknown[:1]]] * len(local)
