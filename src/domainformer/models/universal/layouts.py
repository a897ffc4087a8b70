"""Which family of hand-written Transformers a model looks like.

The layout is told to people and chooses words in messages; no tensor is routed by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from torch import nn

from domainformer.models.universal.aliases import Role

if TYPE_CHECKING:
    from domainformer.models.universal.signature import ForwardParameter

Layout = Literal["standard", "gpt", "bert", "flat", "unknown"]

# Parts that a code generator numbers in one flat namespace.
_FLAT = re.compile(
    r"(embedding|mhsa|mha|attention|attn|layer_?norm|norm|ln|ffn|mlp|residual|add|linear|lm_head)"
    r"_\d+(_[a-z]+)*"
)
_GPT = {"wte", "wpe", "ln_f", "tok_emb", "pos_emb", "token_embedding_table"}
_BERT = {"embeddings", "encoder", "pooler", "cls"}


def recognise(
    model: nn.Module | type[nn.Module], parameters: Sequence[ForwardParameter]
) -> tuple[Layout, str]:
    """The layout of a model, and what it was recognised by.

    Args:
        model: The module; a class has no children yet and is known by its signature alone.
        parameters: What its ``forward`` takes.

    Example:
        >>> flat = nn.ModuleDict({"embedding_0_token": nn.Embedding(8, 4),
        ...     "mhsa_0": nn.Identity(), "layernorm_0": nn.LayerNorm(4)})
        >>> recognise(flat, [])
        ('flat', 'numbered parts in one namespace: embedding_0_token, mhsa_0, layernorm_0')
    """
    children = [] if isinstance(model, type) else [name for name, _ in model.named_children()]
    names = {parameter.name for parameter in parameters}
    flat = [name for name in children if _FLAT.fullmatch(name)]
    if len(flat) >= 3 and len({name.split("_")[0] for name in flat}) >= 2:
        return "flat", f"numbered parts in one namespace: {', '.join(flat[:4])}"
    intermediate = [p.name for p in parameters if p.role is Role.INTERMEDIATE]
    if intermediate:
        return "flat", f"forward takes outputs of its parts: {', '.join(intermediate[:4])}"
    grandchildren = set(children)
    if "transformer" in grandchildren and not isinstance(model, type):
        grandchildren |= {name for name, _ in model.transformer.named_children()}
    if _GPT & grandchildren:
        return "gpt", f"children {', '.join(sorted(_GPT & grandchildren))}"
    if {"idx", "targets"} <= names:
        return "gpt", "forward takes idx and targets"
    if {"input_ids", "token_type_ids"} <= names or (
        "token_type_ids" in names and len(_BERT & set(children)) >= 2
    ):
        return "bert", "forward takes token_type_ids"
    if {"input_ids", "attention_mask"} <= names:
        return "standard", "forward takes input_ids and attention_mask"
    if "input_ids" in names:
        return "standard", "forward takes input_ids"
    return "unknown", "nothing known in its names"
