"""The Qwen family: Qwen2, Qwen2.5 (which calls itself Qwen2) and Qwen3, dense or experts."""

from __future__ import annotations

from domainformer.models.families.base import BaseAdapter

_END_OF_TEXT = "<|endoftext|>"


class QwenAdapter(BaseAdapter):
    """Qwen2, 2.5 and 3.

    Chat models of the family end a *turn* with their ``eos_token`` (``<|im_end|>``), while
    documents of text are divided by ``<|endoftext|>`` (Qwen's documentation, "Key Concepts",
    control tokens): training on text divides documents by the latter.
    """

    model_types = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
    block_path = "model.layers"

    @property
    def boundary_id(self) -> int | None:
        """The id of ``<|endoftext|>`` where the tokenizer has it."""
        if self.tokenizer is not None:
            found = self.tokenizer.get_vocab().get(_END_OF_TEXT)
            if found is not None:
                return int(found)
        return super().boundary_id
