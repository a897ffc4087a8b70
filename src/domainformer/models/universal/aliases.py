"""Which names of arguments mean what: a table of whole names, never of prefixes.

``attention_mask`` is a mask and ``attention_output`` an intermediate: nothing is read off the
first letters of a name. Names that mean different things in different models stand in
``AMBIGUOUS`` with the reason, and are left for the user to say.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType

from domainformer.errors import AdapterError, nearest


class Role(enum.StrEnum):
    """What an argument of ``forward`` is for."""

    TOKENS = "tokens"  # ids [B, L]
    EMBEDDINGS = "embeddings"  # vectors instead of ids [B, L, H]
    MASK = "mask"  # 1 for a token, 0 for padding [B, L]
    POSITIONS = "positions"  # [B, L]
    TOKEN_TYPES = "token_types"  # noqa: S105 - segments [B, L]
    LABELS = "labels"  # what the loss compares with [B, L]
    CACHE = "cache"  # what an earlier call gave back: keys and values, or a state
    ENCODER = "encoder"  # the other side of an encoder-decoder
    INTERMEDIATE = "intermediate"  # the output of a part of this very model
    OPTION = "option"  # a switch or number; the caller gives it by name, or its default holds
    UNKNOWN = "unknown"


_NAMES: dict[Role, tuple[str, ...]] = {
    Role.TOKENS: (
        "input_ids",
        "idx",
        "ids",
        "tokens",
        "token_ids",
        "input_tokens",
        "input_token_ids",
        "src_tokens",
        "src_ids",
    ),
    Role.EMBEDDINGS: ("inputs_embeds", "input_embeds", "input_embeddings", "inputs_embeddings"),
    Role.MASK: ("attention_mask", "key_padding_mask", "src_key_padding_mask"),
    Role.POSITIONS: ("position_ids", "positions", "pos_ids", "input_positions"),
    Role.TOKEN_TYPES: ("token_type_ids", "segment_ids", "token_types", "segments"),
    Role.LABELS: ("labels", "label_ids", "targets"),
    Role.CACHE: (
        "past_key_values",
        "past_key_value",
        "past",
        "layer_past",
        "cache",
        "kv_cache",
        "mems",
        "state",
        "hidden",
        "hidden_state",
        "h0",
        "h_0",
        "hx",
        "hc",
        "cache_params",
    ),
    Role.ENCODER: (
        "decoder_input_ids",
        "decoder_attention_mask",
        "decoder_inputs_embeds",
        "encoder_outputs",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "tgt",
        "tgt_tokens",
        "tgt_ids",
        "memory",
    ),
    Role.OPTION: (
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "logits_to_keep",
        "num_logits_to_keep",
        "cache_position",
        "head_mask",
        "temperature",
        "is_causal",
    ),
}

ALIASES: Mapping[str, Role] = MappingProxyType(
    {name: role for role, names in _NAMES.items() for name in names}
)

# Masks of torch.nn say the opposite of attention_mask: True is padding.
INVERTED_MASKS = frozenset({"key_padding_mask", "src_key_padding_mask"})

# Labels that are one step ahead of the ids already (nanoGPT); `labels` are the ids themselves.
SHIFTED_LABELS = frozenset({"targets"})

AMBIGUOUS: Mapping[str, str] = MappingProxyType(
    {
        "mask": "a mask of padding [B, L] in some models, of attention scores [L, L] in others",
        "attn_mask": "a mask of attention scores [L, L] in torch.nn, of padding in others",
        "src_mask": "a mask of attention scores [L, L] in torch.nn, of padding in others",
        "padding_mask": "1 is padding in some models and a token in others",
        "pad_mask": "1 is padding in some models and a token in others",
        "input_mask": "1 is padding in some models and a token in others",
        "y": "labels in some models, the inputs of a decoder in others",
        "target": "labels in some models, the inputs of a decoder in others",
    }
)

# Names that say nothing themselves; what `forward` does with the value decides (evidence.py).
NEUTRAL = frozenset({"x", "input", "inputs", "src", "source", "sequence", "seq", "batch", "data"})

_GENERATED_TOKENS = re.compile(r"input_\d+_(tokens?|ids|token_ids)")
_PARTS = (
    "embeddings?|mhsa|mha|attention|attn|self_attention|ffn|mlp|feed_?forward|layer_?norm|norm|ln|"
    "rms_?norm|residual|add|linear|dense|dropout|conv|block|layer|head|lm_head|projection|proj"
)
_GENERATED_PART = re.compile(rf"({_PARTS})(_\d+)(_[a-z]+)*?(_(output|out|hidden))?")
_NUMBERED_OUTPUT = re.compile(r"[a-z][a-z_]*_\d+(_[a-z]+)*_(output|out)")
_NAMED_OUTPUT = re.compile(rf"({_PARTS})_(output|out)")


def role_of(name: str) -> tuple[Role, str]:
    """What a name alone says, and why.

    Args:
        name: An argument of ``forward``.

    Example:
        >>> role_of("attention_mask")
        (<Role.MASK: 'mask'>, 'the name is in the alias table')
        >>> role_of("mhsa_0_output")[0], role_of("attention_output")[0], role_of("attention")[0]
        (<Role.INTERMEDIATE: 'intermediate'>, <Role.INTERMEDIATE: 'intermediate'>,
         <Role.UNKNOWN: 'unknown'>)
        >>> role_of("mask")
        (<Role.UNKNOWN: 'unknown'>,
         'ambiguous: a mask of padding [B, L] in some models, of attention scores [L, L] in others')
    """
    folded = name.lower()
    if folded in ALIASES:
        return ALIASES[folded], "the name is in the alias table"
    if folded in AMBIGUOUS:
        return Role.UNKNOWN, f"ambiguous: {AMBIGUOUS[folded]}"
    if _GENERATED_TOKENS.fullmatch(folded):
        return Role.TOKENS, "a generated name of token inputs (input_N_tokens)"
    generated = (_GENERATED_PART, _NUMBERED_OUTPUT, _NAMED_OUTPUT)
    if any(pattern.fullmatch(folded) for pattern in generated):
        return Role.INTERMEDIATE, "a generated name of a part's output (part_N_output)"
    return Role.UNKNOWN, "the name is not in the alias table"


def as_role(value: Role | str, *, where: str | None = None) -> Role:
    """A role from its name.

    Raises:
        AdapterError: There is no such role.

    Example:
        >>> as_role("tokens")
        <Role.TOKENS: 'tokens'>
    """
    try:
        return Role(str(value).lower())
    except ValueError:
        raise AdapterError(
            f"{value!r} is no role of an argument",
            where=where,
            next_step=nearest(str(value), [role.value for role in Role]),
        ) from None
