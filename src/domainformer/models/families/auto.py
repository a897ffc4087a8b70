"""Any other causal language model that ``transformers`` knows."""

from __future__ import annotations

from domainformer.models.families.base import BaseAdapter


class AutoModelAdapter(BaseAdapter):
    """GPT-2, Llama, Mistral, Gemma…: whatever ``AutoModelForCausalLM`` opens without remote code.

    Blocks are found as the first list of as many modules as the configuration has layers.
    """
