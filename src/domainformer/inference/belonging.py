"""Whether the parts of a bundle were made for each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainformer.errors import FingerprintError
from domainformer.schema import DomainSchema
from domainformer.tokenizers import ActionPieceMerges, DomainTokenizer
from domainformer.tokenizers.hub import SCHEMA_FILE

BUNDLE_FILE = "domainformer.json"
MERGES_FILE = "merges.json"


def ids_of(
    tokenizer: DomainTokenizer, merges: ActionPieceMerges | None
) -> DomainTokenizer | ActionPieceMerges:
    """What makes the ids that a model understands."""
    return tokenizer if merges is None else merges


def read_merges(folder: Path, facts: dict[str, Any]) -> ActionPieceMerges | None:
    """The merges of a bundle that names some."""
    named = facts.get("merges_fingerprint")
    if named is None:
        return None
    merges = ActionPieceMerges.load(folder / MERGES_FILE)
    if merges.fingerprint != named:
        raise mismatch(f"{BUNDLE_FILE}, for merges,", named, merges.fingerprint, where=str(folder))
    return merges


def check_merges(
    tokenizer: DomainTokenizer, merges: ActionPieceMerges | None, *, where: str
) -> None:
    """Refuse merges that were learned for another tokenizer."""
    if merges is not None and merges.base_fingerprint != tokenizer.fingerprint:
        raise mismatch("the merges", merges.base_fingerprint, tokenizer.fingerprint, where=where)


def check_fingerprints(
    folder: Path,
    facts: dict[str, Any],
    config: Any,
    tokenizer: DomainTokenizer,
    merges: ActionPieceMerges | None,
    schema: DomainSchema,
) -> None:
    """Compare what the files of a bundle name with what they are.

    Raises:
        FingerprintError: They differ.
    """
    check_merges(tokenizer, merges, where=str(folder))
    ids = ids_of(tokenizer, merges)
    for owner, named, found in (
        (BUNDLE_FILE, facts.get("tokenizer_fingerprint"), tokenizer.fingerprint),
        ("config.json", getattr(config, "tokenizer_fingerprint", None), ids.fingerprint),
    ):
        if named != found:
            raise mismatch(owner, named, found, where=str(folder))
    for name, other in (("tokenizer", tokenizer.schema), (SCHEMA_FILE, schema)):
        if other.fingerprint() != facts.get("schema_fingerprint"):
            raise FingerprintError(
                f"the schema of {name} is not the one that the model was trained with",
                where=str(folder),
                next_step="restore the folder from a copy; its parts cannot be mixed",
            )
    check_sizes(config, ids, where=str(folder))


def check_sizes(config: Any, ids: DomainTokenizer | ActionPieceMerges, *, where: str) -> None:
    """Refuse a model that has another number of ids."""
    if config.vocab_size != ids.vocab_size:
        name = "merges" if isinstance(ids, ActionPieceMerges) else "tokenizer"
        raise FingerprintError(
            f"the model and the {name} have different vocabularies",
            where=where,
            why=f"the model has {config.vocab_size} ids, the {name} {ids.vocab_size}",
            next_step=f"build the model with vocab_size={name}.vocab_size",
        )


def mismatch(owner: str, named: object, found: str, *, where: str) -> FingerprintError:
    """The error of two parts that do not belong together."""
    return FingerprintError(
        "the model was trained with another tokenizer",
        where=where,
        why=f"{owner} names tokenizer {named}, this tokenizer is {found}",
        next_step="use the tokenizer of the same bundle, or train a model for this one",
    )
