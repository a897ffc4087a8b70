"""Configuration of the domain transformer, with the presets that the papers and we use.

This file travels with every saved model, so that the folder loads where domainformer is not
installed: it imports torch-free parts of transformers and nothing else. Annotations are not
deferred here, since ``@strict`` checks values against the types themselves.
"""

import difflib
from dataclasses import fields
from typing import Any, ClassVar, Literal, Self

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

# Width, layers, heads. "24m" and "330m" are the two sizes of nuFormer (arXiv 2507.23267);
# "24m-wide-heads" has as many weights and runs faster, since kernels like heads of 64.
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "24m": {"hidden_size": 256, "num_hidden_layers": 24, "num_attention_heads": 16},
    "24m-wide-heads": {"hidden_size": 256, "num_hidden_layers": 24, "num_attention_heads": 4},
    "330m": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}

# What every transformers configuration takes beside its own fields, as far as it matters here.
_HEAD_AND_RUNTIME = [
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
    "dtype",
    "attn_implementation",
]

# Named in every config.json, so that a saved folder opens through each Auto class with
# trust_remote_code=True, whichever of the models was saved.
AUTO_MAP = {
    "AutoConfig": "configuration_domain_transformer.DomainTransformerConfig",
    "AutoModel": "modeling_domain_transformer.DomainTransformerModel",
    "AutoModelForCausalLM": "modeling_domain_transformer.DomainTransformerForCausalLM",
    "AutoModelForSequenceClassification": (
        "modeling_domain_transformer.DomainTransformerForSequenceClassification"
    ),
}


@strict
class DomainTransformerConfig(PreTrainedConfig):
    """What a domain transformer looks like: a pre-norm GPT over event tokens.

    Args:
        vocab_size: Number of tokens, exactly the tokenizer's.
        hidden_size: Width of the residual stream.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Heads; they divide the width.
        intermediate_size: Width inside the MLP. None: 4 × width for "gelu"; for "swiglu", whose
            three matrices share the budget of two, 8/3 × width rounded up to a multiple of 64.
        max_position_embeddings: Longest context. It sizes the table of "learned" positions; the
            other encodings have no table and take it as a statement of what was trained.
        position_encoding: "none" (the causal mask alone tells the order, arXiv 2305.19466),
            "learned" (added to the embedding), or "rope" (rotates queries and keys,
            arXiv 2104.09864).
        norm: "layernorm" or "rmsnorm" (arXiv 1910.07467).
        mlp: "gelu" or "swiglu" (arXiv 2002.05202).
        norm_eps: Added to the variance before the root.
        copy_heads: Heads of the pointer that mixes the vocabulary's distribution with copies of
            earlier tokens (a pointer sentinel mixture, arXiv 1609.07843); 0: no copying.
        copy_width: Width of each of them.
        dropout: Dropout of the embedding and of what each block adds to the residual stream.
        attention_dropout: Dropout of the attention weights.
        classifier_dropout: Dropout before the classification head.
        initializer_range: Standard deviation of new weights; the two projections into the
            residual stream get it divided by √(2 · layers).
        rope_theta: Base of the rotary wavelengths.
        tie_word_embeddings: Whether the output layer shares the embedding's weights.
        use_cache: Whether a forward in evaluation mode returns keys and values.
        pad_token_id: The padding token; its embedding is no different from others, the masks
            keep it out.
        bos_token_id: The token that starts every document.
        eos_token_id: The token that ends generation.

    Raises:
        StrictDataclassError: Sizes that do not fit together, an unknown choice, a wrong type
            (huggingface_hub's error, as with every transformers configuration).

    Example:
        >>> config = DomainTransformerConfig.preset("24m", vocab_size=1000)
        >>> config.hidden_size, config.num_hidden_layers, config.head_dim
        (256, 24, 16)
    """

    model_type = "domain_transformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 1024
    hidden_size: int = 256
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int | None = None
    max_position_embeddings: int = 2048
    position_encoding: Literal["none", "learned", "rope"] = "none"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    mlp: Literal["gelu", "swiglu"] = "gelu"
    norm_eps: float = 1e-5
    copy_heads: int = 0
    copy_width: int = 32
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    classifier_dropout: float | int = 0.0
    initializer_range: float = 0.02
    rope_theta: float | int = 10000.0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other values."""
        if self.intermediate_size is None:
            if self.mlp == "gelu":
                self.intermediate_size = 4 * self.hidden_size
            else:
                self.intermediate_size = -(-8 * self.hidden_size // (3 * 64)) * 64
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check sizes against each other (called by ``@strict`` when built and when saved)."""
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        for name in (*sizes, "intermediate_size", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.copy_heads < 0 or self.copy_width < 1:
            raise ValueError(
                f"copying needs copy_heads of 0 or more ({self.copy_heads}) "
                f"and copy_width of 1 or more ({self.copy_width})"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        if self.position_encoding == "rope" and self.head_dim % 2:
            raise ValueError(f"rope turns pairs of numbers: heads of {self.head_dim} are odd")
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """A named size, with any field overridden.

        Args:
            name: "tiny" (128 wide, 4 layers, 4 heads), "24m" (256, 24, 16), "24m-wide-heads"
                (256, 24, 4) or "330m" (1024, 24, 16).
            **overrides: Fields of the configuration; ``vocab_size`` is the usual one.

        Raises:
            ValueError: There is no preset, or no field, of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}{_hint(name, PRESETS)}")
        # PreTrainedConfig keeps unknown keywords as attributes; here a misspelt one is an error.
        inherited = {field.name for field in fields(PreTrainedConfig)}
        known = [field.name for field in fields(cls) if field.name not in inherited]
        known += _HEAD_AND_RUNTIME
        for key in overrides:
            if key not in known:
                raise ValueError(f"the configuration has no field {key!r}{_hint(key, known)}")
        return cls(**{**PRESETS[name], **overrides})


def _hint(name: str, known: Any) -> str:
    match = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {match[0]!r}?" if match else f": choose one of {', '.join(known)}"


__all__ = ["PRESETS", "DomainTransformerConfig"]
