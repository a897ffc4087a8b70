"""The family of domainformer's own Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from domainformer.artifacts import write_json
from domainformer.models.configuration_domain_transformer import DomainTransformerConfig
from domainformer.models.families.base import BaseAdapter
from domainformer.models.families.loading import read_pretrained
from domainformer.models.modeling_domain_transformer import (
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.weights import read_model_config

_BUNDLE_FILE = "domainformer.json"


class CustomTransformerAdapter(BaseAdapter):
    """Models of this library: language models over text or events, and classifiers of histories.

    A bundle of :func:`~domainformer.inference.save_bundle` stays one: schema, fitted tokenizer and
    fingerprints travel along, and its record names the run that it was trained further from.
    """

    model_types = (DomainTransformerConfig.model_type,)
    block_path = "model.layers"

    @classmethod
    def read_model(cls, folder: Path, dtype: torch.dtype | None, **options: Any) -> Any:
        """A classifier where ``config.json`` says so, else a language model."""
        classes = DomainTransformerForCausalLM, DomainTransformerForSequenceClassification
        known = {found.__name__: found for found in classes}
        named = (read_model_config(folder).get("architectures") or [""])[0]
        chosen = known.get(named, DomainTransformerForCausalLM)
        return read_pretrained(chosen, folder, dtype=dtype, **options)

    def carry(self, staging: Path) -> None:
        """Copy what travels along; a bundle's record names the run that it goes back to."""
        super().carry(staging)
        path = staging / _BUNDLE_FILE
        if path.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            was = facts.get("record") or {}
            kept = {key: value for key, value in was.items() if key not in ("run", "metrics")}
            facts["record"] = {
                **kept,
                "pretrained": was.get("run") or was.get("pretrained"),
                **self.record,
            }
            write_json(path, facts)
